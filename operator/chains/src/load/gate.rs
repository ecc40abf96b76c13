//! Credit, from the pacer to one lane.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

/// Between the pacer and one lane.
pub(super) struct Gate {
    credit: AtomicU64,
    closed: AtomicBool,
    wake: Notify,
    ready: watch::Sender<bool>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            credit: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            wake: Notify::new(),
            ready: watch::Sender::new(false),
        }
    }
}

impl Gate {
    pub fn give(&self, credit: u64) {
        if credit > 0 {
            self.credit.fetch_add(credit, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// How many transfers may be sent now. Only the lane uses it up, so it never shrinks behind the lane's back.
    pub fn credit(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    /// Uses up credit; at most what [`credit`](Self::credit) gave.
    pub fn spend(&self, credit: u64) {
        self.credit.fetch_sub(credit, Ordering::Relaxed);
    }

    /// What was never used, once the lane has ended.
    pub fn take_credit(&self) -> u64 {
        self.credit.swap(0, Ordering::Relaxed)
    }

    /// No more credit will come: the lane ends when what it has is used.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Turns when credit comes or the gate closes.
    pub fn turns(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// The lane knows the nonces of all its accounts.
    pub fn set_ready(&self) {
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Waits until the lane knows the nonces of all its accounts.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        if ready.wait_for(|ready| *ready).await.is_err() {
            unreachable!("the sender lives as long as self");
        }
    }
}
