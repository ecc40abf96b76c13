//! What keeps strangers out while links are cut.
//!
//! A cut names addresses. A node that comes back at another address is the same node, and would cross the cut until its new
//! address is known: so while there is a cut, whoever is not known may not reach the peer ports at all. The guard ends with
//! its lease as cuts do.

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    cuts::{remove_generation, set_id, set_names, sorted},
    netlink::Batch,
    nft::{self, ListedRule, RuleKey},
};

/// Drops peer traffic from everybody but `known`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub known: Vec<Ipv4Addr>,
    /// The addresses that are guarded.
    pub to: Vec<Ipv4Addr>,
    pub lease: Duration,
}

impl Guard {
    /// In one order, so that equal guards compare equal.
    pub(crate) fn normalized(&self) -> Self {
        Self { known: sorted(&self.known), to: sorted(&self.to), lease: self.lease }
    }
}

/// A guard in the kernel.
#[derive(Debug)]
pub(crate) struct ActiveGuard {
    guard: Guard,
    pub(crate) generation: u32,
}

impl ActiveGuard {
    pub(crate) fn create(batch: &mut Batch, guard: Guard, generation: u32) -> Self {
        let active = Self { guard, generation };
        let (known, to) = set_names(generation, 0);
        nft::lasting_set(batch, nft::TABLE, &known, set_id(generation, 0), &active.guard.known);
        nft::new_set(batch, nft::TABLE, &to, set_id(generation, 1));
        nft::guard_rule(batch, nft::TABLE, active.rule_key(), &known, &to);
        active.renew(batch, active.guard.lease)
    }

    /// Whether only the lease differs.
    pub(crate) fn is_renewed_by(&self, guard: &Guard) -> bool {
        self.guard.known == guard.known && self.guard.to == guard.to
    }

    pub(crate) fn renew(&self, batch: &mut Batch, lease: Duration) -> Self {
        let (_, to) = set_names(self.generation, 0);
        nft::put_elements(batch, nft::TABLE, &to, &self.guard.to, lease);
        Self { guard: Guard { lease, ..self.guard.clone() }, generation: self.generation }
    }

    pub(crate) fn remove(&self, batch: &mut Batch, listed: &[ListedRule]) {
        remove_generation(batch, self.generation, 1, listed);
    }

    pub(crate) fn rule_key(&self) -> RuleKey {
        RuleKey { generation: self.generation, index: 0 }
    }
}
