//! Timers by purpose. One purpose has one timer at most; setting it again replaces it.

use std::collections::BTreeMap;
use std::time::Duration;

use malachitebft_core_types::Timeout;
use netsplit_core::{Hash, Height};

use crate::io::{Output, TimerId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A timeout of the core, at this height.
    Core(Timeout),
    /// The block interval has passed: propose.
    Build(Height, u32),
    /// Tell neighbours where this node stands.
    Status,
    /// Parts of a block were pushed or asked for a while ago.
    Body(Height, Hash),
    /// A sync request has waited long enough.
    Sync,
    /// Go on with what one step left to the next.
    Continue,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    pending: BTreeMap<TimerId, Purpose>,
    last: u64,
}

impl Timers {
    pub fn set(&mut self, purpose: Purpose, after: Duration, outputs: &mut Vec<Output>) {
        self.cancel(purpose);
        self.last += 1;
        let id = TimerId(self.last);
        self.pending.insert(id, purpose);
        outputs.push(Output::SetTimer { id, after });
    }

    pub fn take(&mut self, id: TimerId) -> Option<Purpose> {
        self.pending.remove(&id)
    }

    pub fn cancel(&mut self, purpose: Purpose) -> bool {
        let before = self.pending.len();
        self.pending.retain(|_, pending| *pending != purpose);
        self.pending.len() < before
    }

    pub fn is_set(&self, purpose: Purpose) -> bool {
        self.pending.values().any(|pending| *pending == purpose)
    }

    pub fn retain(&mut self, keep: impl Fn(&Purpose) -> bool) {
        self.pending.retain(|_, pending| keep(pending));
    }
}
