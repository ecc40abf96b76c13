//! Scenarios on a real Kubernetes.

mod blocked;
mod changes;
mod chart;
mod command_line;
mod edits;
#[path = "../everywhere/mod.rs"]
mod everywhere;
mod evicted;
mod experiments;
mod images;
mod installed;
mod links;
mod node_faults;
mod succession;
mod test_cluster;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Scenarios run one after another: what a busy machine does to their clocks is not what they are about.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A scenario that failed has cleaned up behind itself.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
