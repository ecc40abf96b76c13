//! All faults of a testnet: who asked for them, how long they last, what proves them.
//!
//! The table is the desired state. It is handed to the backend whole, so that faults compose and none overwrites
//! another. Leases are renewed from here alone: when this process dies or hangs, every fault ends by itself.

mod evidence;
mod fault;
mod nodes;
mod recall;
mod shape;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
pub use fault::{Fault, Held, Wanted};
use netsplit_backend::{Backend, CutRequest, LinksEvidence};
use netsplit_observe::Observer;
use netsplit_plan::{LinkFault, experiment::FaultObserved};
pub use recall::Recalled;
pub use shape::Shape;
use tokio::sync::{Mutex, watch};

use super::{
    clock::unix_ms,
    links::{LinkBook, SeenLink},
};

/// Chances to renew before a lease ends.
const RENEWALS: u32 = 5;
/// How often due ends are looked for and evidence is read, while there are faults.
const TICK: Duration = Duration::from_millis(100);
/// How often links are measured while there are none.
const CALM_TICK: Duration = Duration::from_secs(1);
/// Measures of very many links take time to collect: this many times that time, nobody asks again.
const MEASURE_REST: u32 = 9;
/// Healed faults whose evidence is still wanted, at most: all that an experiment may have, and some more.
const MAX_HEALED: usize = 128;
/// Faults active at one time, at most.
const MAX_ACTIVE: usize = 256;

/// Owner of the faults made by hand.
pub const USER: &str = "user";

#[derive(Debug, Default)]
struct Entries {
    active: Vec<Fault>,
    healed: Vec<Fault>,
    next: u64,
    /// Links are shaped or measured: the backend must be told when none is any more.
    shaped: bool,
    /// Nodes are held: the backend must be told when none is any more.
    holding: bool,
    /// As told last.
    links: LinksEvidence,
    links_at: Option<Instant>,
    /// Counts what the backend was told: what is measured before does not speak of after.
    told: u64,
    /// What `told` was when `links` were measured.
    measured: u64,
}

#[derive(Debug)]
pub struct FaultTable {
    backend: Arc<dyn Backend>,
    book: LinkBook,
    /// The backend ends a fault this long after its last renewal.
    lease: Duration,
    /// Held across a change of the backend's state, so that changes apply in the order they were made.
    entries: Mutex<Entries>,
    seen: watch::Sender<Vec<Fault>>,
    /// What is wrong with links that no fault touches.
    base_problem: watch::Sender<Option<String>>,
}

impl FaultTable {
    pub fn new(backend: Arc<dyn Backend>, book: LinkBook, lease: Duration) -> Arc<Self> {
        let seen = watch::Sender::new(Vec::new());
        let base_problem = watch::Sender::new(None);
        Arc::new(Self { backend, book, lease, entries: Mutex::default(), seen, base_problem })
    }

    /// Gives the links their base quality. Before the nodes are used.
    pub async fn begin(&self) -> Result<()> {
        if self.book.has_base() {
            self.hand_over(&mut *self.entries.lock().await).await?;
        }
        Ok(())
    }

    /// Active and recently healed faults, renewed as evidence comes in.
    pub fn watch(&self) -> watch::Receiver<Vec<Fault>> {
        self.seen.subscribe()
    }

    /// A fault asked for by hand. Returns its id once its rules are in place.
    pub async fn add(&self, shape: Shape, lasts: Option<Duration>) -> Result<String> {
        let mut entries = self.entries.lock().await;
        if let Some(same) = entries.active.iter().find(|fault| fault.shape.as_ref() == Some(&shape)) {
            bail!("this fault is active already ({}): heal it first", same.id);
        }
        entries.next += 1;
        let wanted = Wanted {
            owner: USER.to_owned(),
            name: entries.next.to_string(),
            description: shape.to_string(),
            rects: shape.rects(),
            links: shape.links(),
            ramp: None,
            held: None,
            shape: Some(shape),
            lasts,
        };
        self.apply(&mut entries, wanted).await
    }

    /// A fault of an experiment. Safe to repeat.
    pub async fn ensure(&self, wanted: Wanted) -> Result<()> {
        let mut entries = self.entries.lock().await;
        let is_same = |fault: &Fault| fault.owner == wanted.owner && fault.name == wanted.name;
        if entries.active.iter().chain(&entries.healed).any(is_same) {
            return Ok(());
        }
        self.apply(&mut entries, wanted).await.map(drop)
    }

    /// Takes over, all at once, what another process began: hands over the active faults, and no other. One whose lease may
    /// have ended meanwhile is over. To be called before any other change, also with none: until then the backend leaves in
    /// force what is in force.
    pub async fn recall(&self, recalled: Vec<Recalled>) -> Result<()> {
        let mut entries = self.entries.lock().await;
        let now = unix_ms();
        for fault in recalled {
            let change = self.change(&fault.wanted)?;
            let mut fault = fault.take_over(change, self.lease, now);
            fault.grow(now);
            if fault.healed_at_ms.is_some() { entries.healed.push(fault) } else { entries.active.push(fault) }
        }
        // Also that no link is to be shaped and no node held: another process may have left some.
        (entries.shaped, entries.holding) = (true, true);
        self.hand_over(&mut entries).await?;
        let applied = Some(unix_ms());
        for fault in &mut entries.active {
            fault.applied_at_ms = fault.applied_at_ms.or(applied);
        }
        self.publish(&entries);
        Ok(())
    }

    async fn apply(&self, entries: &mut Entries, wanted: Wanted) -> Result<String> {
        if entries.active.len() >= MAX_ACTIVE {
            bail!("{MAX_ACTIVE} faults are active already: heal some first");
        }
        let change = self.change(&wanted)?;
        // Nobody has looked of late where no link was shaped.
        let is_known = entries.shaped && entries.links_at.is_some();
        let earlier_faults = is_known.then(|| entries.links.faults.clone());
        let mut fault = Fault { earlier_faults, ..Fault::new(wanted, change) };
        fault.grow(unix_ms());
        let id = fault.id.clone();
        entries.active.push(fault);
        let asked = Instant::now();
        if let Err(error) = self.hand_over(entries).await {
            entries.active.retain(|fault| fault.id != id);
            return Err(error);
        }
        if let Some(fault) = entries.active.last_mut() {
            fault.begin(asked.elapsed());
        }
        self.publish(entries);
        Ok(id)
    }

    fn change(&self, wanted: &Wanted) -> Result<Option<LinkFault>> {
        wanted.links.map(|links| self.book.fault(&wanted.rects, links)).transpose()
    }

    /// Ends those active faults for which `which` holds; gives them back as they were. Safe to repeat.
    pub async fn heal(&self, which: impl Fn(&Fault) -> bool) -> Result<Vec<Fault>> {
        let mut entries = self.entries.lock().await;
        self.remove(&mut entries, which).await
    }

    async fn remove(&self, entries: &mut Entries, which: impl Fn(&Fault) -> bool) -> Result<Vec<Fault>> {
        let (ended, kept): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut entries.active).into_iter().partition(which);
        entries.active = kept;
        if ended.is_empty() {
            return Ok(ended);
        }
        let now = unix_ms();
        let healed = entries.healed.len();
        entries.healed.extend(ended.iter().map(|fault| Fault { healed_at_ms: Some(now), ..fault.clone() }));
        if let Err(error) = self.hand_over(entries).await {
            entries.healed.truncate(healed);
            entries.active.extend(ended);
            return Err(error);
        }
        // That is when its last rule went.
        let now = unix_ms();
        entries.healed[healed..].iter_mut().for_each(|fault| fault.healed_at_ms = Some(now));
        let excess = entries.healed.len().saturating_sub(MAX_HEALED);
        entries.healed.drain(..excess);
        self.publish(entries);
        Ok(ended)
    }

    /// The faults of one experiment, for its state machine. Waits for nothing: a hung agent must not stop the clock of
    /// those who judge.
    pub fn observed(&self, owner: &str) -> Vec<FaultObserved> {
        self.seen.borrow().iter().filter(|fault| fault.owner == owner).map(Fault::observed).collect()
    }

    /// What is wrong with links that no fault touches, as one sentence.
    pub fn base_problem(&self) -> Option<String> {
        self.base_problem.borrow().clone()
    }

    /// Every directed link: what it is asked to be, and what was measured of it.
    pub async fn links(&self) -> Vec<SeenLink> {
        let entries = self.entries.lock().await;
        self.book.links(&changes(&entries.active), &entries.links)
    }

    /// The same without waiting: nothing while the backend is told of a change, or nobody has measured since.
    pub fn measured_links(&self) -> Option<Vec<SeenLink>> {
        let entries = self.entries.try_lock().ok()?;
        (entries.measured == entries.told).then(|| self.book.links(&changes(&entries.active), &entries.links))
    }

    /// Forgets an owner's healed faults: its next run may use their names again.
    pub async fn forget(&self, owner: &str) {
        let mut entries = self.entries.lock().await;
        entries.healed.retain(|fault| fault.owner != owner);
        // At once: who looks before the next change must not see them either.
        self.publish(&entries);
    }

    /// Ends due faults, renews leases and reads evidence, for as long as the testnet lives.
    pub async fn keep(self: Arc<Self>, observer: Arc<Observer>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        let mut measure_from = Instant::now();
        loop {
            tick.tick().await;
            let (active, shaped, holds, told) = {
                let mut entries = self.entries.lock().await;
                let is_calm = entries.active.is_empty() && entries.healed.iter().all(Fault::is_open);
                let is_due = || entries.links_at.is_none_or(|at| at.elapsed() >= CALM_TICK);
                if is_calm && !(entries.shaped && is_due()) {
                    continue;
                }
                let now = Instant::now();
                let due = |fault: &Fault| fault.until.is_some_and(|(at, _)| at <= now);
                if let Err(error) = self.remove(&mut entries, due).await {
                    tracing::error!(%error, "cannot end a fault that is due; its lease will");
                }
                let grown: Vec<bool> = entries.active.iter_mut().map(|fault| fault.grow(unix_ms())).collect();
                if grown.contains(&true)
                    && let Err(error) = self.hand_over(&mut entries).await
                {
                    tracing::error!(%error, "cannot go on with a ramp");
                }
                (!entries.active.is_empty(), entries.shaped, entries.holding, entries.told)
            };
            // The lock is free while the backend is asked: it may take its time.
            if active && renewed.elapsed() >= self.lease / RENEWALS {
                renewed = Instant::now();
                if let Err(error) = self.backend.renew().await {
                    tracing::error!(%error, "cannot renew the leases");
                }
            }
            match self.backend.evidence().await {
                Ok(all) => self.take_evidence(&mut *self.entries.lock().await, all).await,
                Err(error) => tracing::warn!(%error, "no evidence"),
            }
            if holds {
                match self.backend.nodes().await {
                    Ok(nodes) => {
                        self.take_nodes(&mut *self.entries.lock().await, told, &nodes, &observer.nodes())
                            .await;
                    }
                    Err(error) => tracing::warn!(%error, "no word of held nodes"),
                }
            }
            let asked_at = Instant::now();
            if shaped && asked_at >= measure_from {
                match self.backend.links().await {
                    Ok(seen) => {
                        let mut entries = self.entries.lock().await;
                        if entries.told == told {
                            self.take_measures(&mut entries, seen).await;
                        }
                    }
                    Err(error) => self.cannot_measure(&error),
                }
                measure_from = Instant::now() + asked_at.elapsed() * MEASURE_REST;
            }
        }
    }

    async fn hand_over(&self, entries: &mut Entries) -> Result<()> {
        entries.told += 1;
        let request = |fault: &Fault| CutRequest {
            id: fault.id.clone(),
            rects: fault.rects.clone(),
            lease: self.lease,
        };
        let cuts = entries.active.iter().filter(|fault| fault.is_cut()).map(request).collect();
        self.backend.set_cuts(cuts).await?;
        let healing: Vec<LinkFault> = entries
            .healed
            .iter()
            .filter(|fault| !fault.is_open())
            .filter_map(|fault| fault.change.clone())
            .collect();
        let active = changes(&entries.active);
        let shaped = self.book.has_base() || !active.is_empty() || !healing.is_empty();
        if shaped || entries.shaped {
            self.backend.set_links(self.book.request(&active, &healing, self.lease)).await?;
            entries.shaped = shaped;
        }
        let is_held = |fault: &&Fault| fault.held.is_some();
        if entries.holding || entries.active.iter().any(|fault| fault.held.is_some()) {
            self.backend.set_nodes(nodes::holds(&entries.active), self.lease).await?;
            // Healed ones are looked at until their nodes are seen to run.
            let healing = entries.healed.iter().filter(is_held).any(|fault| !fault.is_open());
            entries.holding = healing || entries.active.iter().any(|fault| fault.held.is_some());
        }
        Ok(())
    }

    fn publish(&self, entries: &Entries) {
        self.seen.send_replace(entries.active.iter().chain(&entries.healed).cloned().collect());
    }
}

fn changes(faults: &[Fault]) -> Vec<LinkFault> {
    faults.iter().filter_map(|fault| fault.change.clone()).collect()
}
