//! All faults of a testnet: who asked for them, how long they last, what proves them.
//!
//! The table is the desired state. It is handed to the backend whole, so that faults compose and none overwrites
//! another. Leases are renewed from here alone: when this process dies or hangs, every fault ends by itself.

mod recall;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use netsplit_backend::{Backend, CutEvidence, CutRect, CutRequest, CutState, Proof};
use netsplit_plan::experiment::FaultObserved;
use tokio::sync::{Mutex, watch};

pub use self::recall::Recalled;
use super::clock::unix_ms;

/// Chances to renew before a lease ends.
const RENEWALS: u32 = 5;
/// How often due ends are looked for and evidence is read, while there are faults.
const TICK: Duration = Duration::from_millis(100);
/// Evidence that is older shows nothing about now: as long as an agent has to answer.
const FRESH: Duration = Duration::from_secs(2);
/// Healed faults whose evidence is still wanted, at most.
const MAX_HEALED: usize = 64;
/// Faults active at one time, at most.
const MAX_ACTIVE: usize = 256;

/// Owner of the faults made by hand.
pub const USER: &str = "user";

/// What makes a fault: the nodes on its sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No link between two sides works.
    Partition(Vec<Vec<String>>),
    /// Every link from the first to the second, and back unless one way.
    Cut { from: Vec<String>, to: Vec<String>, one_way: bool },
}

impl Shape {
    /// What `heal` compares: the sides, made by `split` or by `cut`, and whether only one way is cut.
    pub fn sides(&self) -> (Vec<Vec<String>>, bool) {
        match self {
            Self::Partition(sides) => (sides.clone(), false),
            Self::Cut { from, to, one_way: true } => (vec![from.clone(), to.clone()], true),
            Self::Cut { from, to, one_way: false } => {
                let mut sides = vec![from.clone(), to.clone()];
                sides.sort();
                (sides, false)
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(sides) => {
                let sides: Vec<String> = sides.iter().map(|side| side.join(",")).collect();
                f.write_str(&sides.join(" | "))
            }
            Self::Cut { from, to, one_way } => {
                let arrow = if *one_way { "->" } else { "<->" };
                write!(f, "{} {arrow} {}", from.join(","), to.join(","))
            }
        }
    }
}

/// One fault, active or healed.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Unique in the testnet.
    pub id: String,
    /// Unique among its owner's faults: what an experiment's state machine calls it.
    pub name: String,
    pub description: String,
    /// `user`, or the experiment's name.
    pub owner: String,
    pub shape: Option<Shape>,
    pub rects: Vec<CutRect>,
    pub since_ms: u64,
    /// Planned end; none: until healed.
    pub until: Option<(Instant, u64)>,
    pub applied_at_ms: Option<u64>,
    pub healed_at_ms: Option<u64>,
    /// What contradicts it, each once.
    pub violations: Vec<String>,
    pub evidence: Option<CutEvidence>,
    /// When the evidence came in.
    measured_at: Option<Instant>,
    /// It was proven at some time, and nothing has contradicted it since.
    pub was_proven: bool,
    /// The sentence that proved it, kept after its heal.
    proof: String,
    /// It was over before this process began: that its links are open is known by the agents' word alone, which hold no
    /// rule of it.
    recalled_open: bool,
}

impl Fault {
    pub fn links(&self) -> u64 {
        let pairs = |rect: &CutRect| {
            let both = rect.from.iter().filter(|name| rect.to.contains(name)).count();
            (rect.from.len() * rect.to.len() - both) as u64
        };
        self.rects.iter().map(pairs).sum()
    }

    /// Packets that its rules have dropped.
    pub fn dropped(&self) -> u64 {
        self.evidence.as_ref().map_or(0, |evidence| evidence.drops)
    }

    /// One word for people and scripts.
    pub fn state(&self) -> &'static str {
        if !self.violations.is_empty() {
            "violated"
        } else if self.is_open() {
            "open"
        } else if self.healed_at_ms.is_some() {
            "healing"
        } else if self.is_proven() {
            "proven"
        } else {
            "applying"
        }
    }

    /// The last measurement shows it, and that is fresh or was the last one before its heal.
    pub fn is_proven(&self) -> bool {
        self.violations.is_empty()
            && self.unmeasured().is_none()
            && self.evidence.as_ref().is_some_and(|evidence| evidence.proof.is_proven())
    }

    /// For how long nobody has measured it, if that is too long while it is active.
    fn unmeasured(&self) -> Option<Duration> {
        let age = self.measured_at?.elapsed();
        (self.healed_at_ms.is_none() && age > FRESH).then_some(age)
    }

    pub fn is_open(&self) -> bool {
        let seen_open = self.evidence.as_ref().is_some_and(|evidence| evidence.state == CutState::Open);
        self.healed_at_ms.is_some() && (seen_open || self.recalled_open)
    }

    /// What is known, as one sentence.
    pub fn evidence_text(&self) -> String {
        if let Some(violation) = self.violations.first() {
            return violation.clone();
        }
        let Some(evidence) = &self.evidence else { return "no evidence yet".to_owned() };
        if let Some(age) = self.unmeasured() {
            return format!("not measured for {:.1} s: the link agent does not answer", age.as_secs_f64());
        }
        match &evidence.proof {
            Proof::Unproven(what) | Proof::Violated(what) => what.clone(),
            Proof::Proven => {
                let sent: u64 = evidence.pairs.iter().map(|pair| pair.probes_sent).sum();
                let controls: u64 = evidence.pairs.iter().map(|pair| pair.controls_received).sum();
                format!(
                    "{} packets dropped, {sent} probes sent and none arrived, {controls} control probes arrived",
                    evidence.drops
                )
            }
        }
    }

    /// What proved it, or why nothing did.
    pub fn proof_text(&self) -> String {
        if self.was_proven { self.proof.clone() } else { self.evidence_text() }
    }

    fn take(&mut self, evidence: CutEvidence) {
        if let Proof::Violated(what) = &evidence.proof {
            self.violate(what.clone());
        }
        self.evidence = Some(evidence);
        self.measured_at = Some(Instant::now());
        if self.is_proven() {
            self.was_proven = true;
            self.proof = self.evidence_text();
        }
    }

    fn observed(&self) -> FaultObserved {
        FaultObserved {
            id: self.name.clone(),
            applied_at_ms: self.applied_at_ms,
            proven: self.is_proven(),
            violations: self.violations.clone(),
            healed_at_ms: self.healed_at_ms,
            confirmed_open: self.is_open(),
        }
    }

    fn violate(&mut self, what: String) {
        if !self.violations.contains(&what) {
            tracing::warn!(fault = %self.id, %what, "the fault is not what was asked for");
            self.violations.push(what);
            self.was_proven = false;
        }
    }
}

#[derive(Debug, Default)]
struct Entries {
    active: Vec<Fault>,
    healed: Vec<Fault>,
    next: u64,
}

#[derive(Debug)]
pub struct FaultTable {
    backend: Arc<dyn Backend>,
    /// The backend ends a cut this long after its last renewal.
    lease: Duration,
    /// Held across a change of the backend's state, so that changes apply in the order they were made.
    entries: Mutex<Entries>,
    seen: watch::Sender<Vec<Fault>>,
}

impl FaultTable {
    pub fn new(backend: Arc<dyn Backend>, lease: Duration) -> Arc<Self> {
        Arc::new(Self { backend, lease, entries: Mutex::default(), seen: watch::Sender::new(Vec::new()) })
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
        let name = format!("{}", entries.next);
        let rects = rects(&shape);
        self.apply(&mut entries, &name, USER, Some(shape), rects, lasts).await
    }

    /// A fault of an experiment. Safe to repeat.
    pub async fn ensure(
        &self,
        owner: &str,
        name: &str,
        description: String,
        rects: Vec<CutRect>,
        lasts: Duration,
    ) -> Result<()> {
        let mut entries = self.entries.lock().await;
        if entries
            .active
            .iter()
            .chain(&entries.healed)
            .any(|fault| fault.owner == owner && fault.name == name)
        {
            return Ok(());
        }
        let id = self.apply(&mut entries, name, owner, None, rects, Some(lasts)).await?;
        if let Some(fault) = entries.active.iter_mut().find(|fault| fault.id == id) {
            fault.description = description;
        }
        Ok(())
    }

    /// Takes over, all at once, what another process began: hands over the active faults, and no other. One whose lease may
    /// have ended meanwhile is over. To be called before any other change, also with none: until then the backend leaves in
    /// force what is in force.
    pub async fn recall(&self, recalled: Vec<Recalled>) -> Result<()> {
        let mut entries = self.entries.lock().await;
        let now = unix_ms();
        for fault in recalled {
            let fault = fault.take_over(self.lease, now);
            if fault.healed_at_ms.is_some() { entries.healed.push(fault) } else { entries.active.push(fault) }
        }
        self.hand_over(&entries).await?;
        let applied = Some(unix_ms());
        for fault in &mut entries.active {
            fault.applied_at_ms = fault.applied_at_ms.or(applied);
        }
        self.publish(&entries);
        Ok(())
    }

    async fn apply(
        &self,
        entries: &mut Entries,
        name: &str,
        owner: &str,
        shape: Option<Shape>,
        rects: Vec<CutRect>,
        lasts: Option<Duration>,
    ) -> Result<String> {
        let id = format!("{owner}/{name}");
        if entries.active.len() >= MAX_ACTIVE {
            bail!("{MAX_ACTIVE} faults are active already: heal some first");
        }
        let since_ms = unix_ms();
        let until = lasts.map(|lasts| (Instant::now() + lasts, since_ms + lasts.as_millis() as u64));
        entries.active.push(Fault {
            id: id.clone(),
            name: name.to_owned(),
            description: shape.as_ref().map_or_else(|| id.clone(), ToString::to_string),
            owner: owner.to_owned(),
            shape,
            rects,
            since_ms,
            until,
            applied_at_ms: None,
            healed_at_ms: None,
            violations: Vec::new(),
            evidence: None,
            measured_at: None,
            was_proven: false,
            proof: String::new(),
            recalled_open: false,
        });
        if let Err(error) = self.hand_over(entries).await {
            entries.active.retain(|fault| fault.id != id);
            return Err(error);
        }
        if let Some(fault) = entries.active.last_mut() {
            fault.applied_at_ms = Some(unix_ms());
        }
        self.publish(entries);
        Ok(id)
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
        if let Err(error) = self.hand_over(entries).await {
            entries.active.extend(ended);
            return Err(error);
        }
        let now = unix_ms();
        for fault in &ended {
            entries.healed.push(Fault { healed_at_ms: Some(now), ..fault.clone() });
        }
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

    /// Forgets an owner's healed faults: its next run may use their names again.
    pub async fn forget(&self, owner: &str) {
        let mut entries = self.entries.lock().await;
        entries.healed.retain(|fault| fault.owner != owner);
        // At once: who looks before the next change must not see them either.
        self.publish(&entries);
    }

    /// Ends due faults, renews leases and reads evidence, for as long as the testnet lives.
    pub async fn keep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            tick.tick().await;
            let active = {
                let mut entries = self.entries.lock().await;
                if entries.active.is_empty() && entries.healed.iter().all(Fault::is_open) {
                    continue;
                }
                let now = Instant::now();
                let due = |fault: &Fault| fault.until.is_some_and(|(at, _)| at <= now);
                if let Err(error) = self.remove(&mut entries, due).await {
                    tracing::error!(%error, "cannot end a fault that is due; its lease will");
                }
                !entries.active.is_empty()
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
        }
    }

    async fn take_evidence(&self, entries: &mut Entries, all: Vec<CutEvidence>) {
        let mut lapsed = Vec::new();
        for evidence in all {
            if let Some(fault) = entries.active.iter_mut().find(|fault| fault.id == evidence.id) {
                match evidence.state {
                    CutState::LeaseEnded => {
                        fault.violate(
                            "its lease ended before it was renewed: the links opened by themselves"
                                .to_owned(),
                        );
                        lapsed.push(fault.id.clone());
                    }
                    CutState::Active => {}
                    // Of an earlier fault with the same id.
                    CutState::Healing | CutState::Open => continue,
                }
                fault.take(evidence);
            } else if let Some(fault) = entries.healed.iter_mut().rev().find(|fault| fault.id == evidence.id)
                && matches!(evidence.state, CutState::Healing | CutState::Open)
            {
                fault.evidence = Some(evidence);
            }
        }
        // Handing a lapsed fault over again would start it anew in silence.
        if !lapsed.is_empty()
            && let Err(error) = self.remove(entries, |fault| lapsed.contains(&fault.id)).await
        {
            tracing::error!(%error, "cannot drop a fault whose lease has ended");
        }
        self.publish(entries);
    }

    async fn hand_over(&self, entries: &Entries) -> Result<()> {
        let request = |fault: &Fault| CutRequest {
            id: fault.id.clone(),
            rects: fault.rects.clone(),
            lease: self.lease,
        };
        self.backend.set_cuts(entries.active.iter().map(request).collect()).await?;
        Ok(())
    }

    fn publish(&self, entries: &Entries) {
        self.seen.send_replace(entries.active.iter().chain(&entries.healed).cloned().collect());
    }
}

/// The directed links of a shape: one rectangle a side.
fn rects(shape: &Shape) -> Vec<CutRect> {
    match shape {
        Shape::Partition(sides) => (0..sides.len())
            .map(|place| CutRect {
                from: sides[place].clone(),
                to: sides
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| *n != place)
                    .flat_map(|(_, side)| side.clone())
                    .collect(),
            })
            .collect(),
        Shape::Cut { from, to, one_way } => {
            let mut rects = vec![CutRect { from: from.clone(), to: to.clone() }];
            if !one_way {
                rects.push(CutRect { from: to.clone(), to: from.clone() });
            }
            rects
        }
    }
}
