//! Nodes that faults hold: killed, ended or paused, under a lease. When nobody renews it, every node runs again; when this
//! process hangs, the watchdog has those go on that are paused.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};
use tracing::{error, warn};

use super::{
    process::{Node, Nodes, settle},
    watchdog::{Watchdog, Watched},
    wire::Failure,
};
use crate::backend::NodeHold;

/// What needs longer goes on by itself; an orderly end may take its whole grace.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose nodes are held, and until when.
#[derive(Debug, Default)]
pub(super) struct Holds {
    lease: Mutex<Option<Lease>>,
    changed: Notify,
    /// Started when it is needed.
    watchdog: Mutex<Option<Watchdog>>,
}

#[derive(Debug, Clone)]
struct Lease {
    nodes: Vec<Arc<Node>>,
    lasts: Duration,
    ends: Instant,
    grace: Duration,
}

impl Holds {
    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        // Nothing panics while it holds the lock.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the whole desired state: what is not named runs. Gives back the nodes that [`Self::settle`] is to bring there.
    pub(super) fn take(
        &self,
        nodes: &Nodes,
        holds: Vec<NodeHold>,
        lasts: Duration,
        grace: Duration,
    ) -> Result<Vec<Arc<Node>>, Failure> {
        for NodeHold { node, .. } in &holds {
            let found = nodes.get(node)?;
            if !found.is_held() && !found.is_running() {
                return Err(Failure::Invalid(format!("{node} has no running process")));
            }
        }
        let wanted = NodeHold::strongest(holds);
        let is_news = |node: &&Arc<Node>| node.hold(wanted.get(node.name()).copied());
        let changed = nodes.iter().filter(is_news).cloned().collect();
        let held: Vec<_> = nodes.iter().filter(|node| wanted.contains_key(node.name())).cloned().collect();
        let ends = Instant::now() + lasts;
        *self.lease() = (!held.is_empty()).then_some(Lease { nodes: held, lasts, ends, grace });
        self.changed.notify_one();
        Ok(changed)
    }

    /// Brings nodes into the state that was taken. Whatever it pauses, the watchdog knows of before.
    pub(super) async fn settle(&self, nodes: Vec<Arc<Node>>, grace: Duration) -> Result<(), Failure> {
        self.watch()?;
        settle_all(nodes, grace).await?;
        // One that had been ended has another process now.
        self.watch()
    }

    /// Tells the watchdog who is paused and for how long.
    fn watch(&self) -> Result<(), Failure> {
        let watched = match &*self.lease() {
            Some(lease) => Watched {
                paused: lease.nodes.iter().filter_map(|node| node.paused_pid()).collect(),
                lease: lease.ends.saturating_duration_since(Instant::now()),
            },
            None => Watched { paused: Vec::new(), lease: Duration::ZERO },
        };
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        match &*watchdog {
            None if watched.paused.is_empty() => return Ok(()),
            Some(running) if running.tell(&watched).is_ok() => return Ok(()),
            // It is gone, or hangs: another one takes its place.
            None | Some(_) => {}
        }
        let failed = |error: std::io::Error| Failure::Failed(format!("cannot start the watchdog: {error}"));
        let started = Watchdog::start().map_err(failed)?;
        started.tell(&watched).map_err(failed)?;
        *watchdog = Some(started);
        Ok(())
    }

    /// Renews the lease, if it has not ended; there may be none.
    pub(super) fn renew(&self) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(lease) = self.lease().as_mut().filter(|lease| lease.ends > now) {
            lease.ends = now + lease.lasts;
        }
        self.watch()
    }

    /// Frees all nodes when their lease ends, for as long as it is polled.
    pub(super) async fn keep(&self) {
        loop {
            let ends = self.lease().as_ref().map(|lease| lease.ends);
            let Some(ends) = ends else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(ends.into()) => {}
                () = self.changed.notified() => continue,
            }
            // It may have been renewed meanwhile.
            let ended = self.lease().take_if(|lease| lease.ends <= Instant::now());
            let Some(ended) = ended else { continue };
            let names: Vec<&str> = ended.nodes.iter().map(|node| node.name()).collect();
            warn!(
                nodes = names.join(", "),
                "nobody renewed the lease of nodes that a fault held: they run again"
            );
            for node in &ended.nodes {
                node.hold(None);
            }
            if let Err(failure) = settle_all(ended.nodes, ended.grace).await {
                error!(?failure, "cannot free a node");
            }
        }
    }
}

/// All at the same time, each in a task of its own: a caller that gives up must not leave a node half-way.
async fn settle_all(nodes: Vec<Arc<Node>>, grace: Duration) -> Result<(), Failure> {
    let settled = nodes.into_iter().map(|node| tokio::spawn(async move { settle(&node, grace).await }));
    // They go on by themselves: whoever looks at the nodes sees what has become of them.
    let Ok(all) = timeout(PATIENCE, futures::future::join_all(settled)).await else { return Ok(()) };
    all.into_iter().try_for_each(|one| {
        one.unwrap_or_else(|error| Err(Failure::Failed(format!("a node could not be held: {error}"))))
    })
}
