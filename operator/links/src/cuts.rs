//! The desired cuts, and the transactions that make the kernel agree with them.
//!
//! A cut is, per rectangle, two sets of addresses with a timeout (its lease) and one rule over them. Every change is one
//! transaction. Renewing adds the same elements again with an explicit expiration, which newer kernels refresh in place;
//! older ones take the addition and refresh nothing, so which kind this is gets tried out first, and there a renewal puts
//! new sets and rules beside the old ones and removes those in the same transaction, carrying their counts over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    guard::{ActiveGuard, Guard},
    model::{Cut, PeerPorts, Rect},
    netlink::{Batch, NetlinkError, Socket},
    nft::{self, ListedRule, RuleKey},
};

/// Addresses in all cuts together: a transaction of this size still fits a rootless send buffer.
pub const MAX_ADDRESSES: usize = 4_000;
pub const MAX_CUTS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("cut {id:?}: {problem}")]
    Invalid { id: String, problem: String },
    #[error("cannot {what}")]
    Kernel {
        what: &'static str,
        #[source]
        source: NetlinkError,
    },
}

/// How leases are renewed on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Adding an element again refreshes it.
    InPlace,
    /// It does not: sets and rules are replaced.
    Replace,
}

/// What a change did beside what was asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Cuts that were not there before.
    pub started: Vec<String>,
    /// Cuts that are no longer wanted.
    pub ended: Vec<String>,
    /// Cuts that had run out before they were renewed, and for how long the links were open.
    pub lapsed: Vec<(String, Duration)>,
    /// The table had been removed by somebody else and was made anew.
    pub rebuilt: bool,
}

/// What the kernel holds of one cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub id: String,
    pub drops: u64,
    /// A rule of the cut, or one that all cuts need, is not in the kernel.
    pub rule_missing: bool,
    pub deadline: Instant,
}

#[derive(Debug, Clone)]
struct Active {
    cut: Cut,
    generation: u32,
    /// Counted by rules that a renewal has replaced.
    earlier_drops: u64,
    /// When the kernel ends the cut, taken before the transaction: never later than the kernel's own clock says.
    deadline: Instant,
}

/// The cuts of the network namespace that the calling thread is in.
#[derive(Debug)]
pub struct CutTable {
    socket: Socket,
    ports: PeerPorts,
    renewal: Renewal,
    active: Vec<Active>,
    guard: Option<ActiveGuard>,
    next_generation: u32,
    /// Whether the table in the kernel is ours: one left by an agent that died is replaced by the first transaction, which
    /// is also when its cuts are known again, so that a restart opens no link.
    installed: bool,
}

impl CutTable {
    /// Connects to nf_tables and finds out how leases are renewed; `renewal` overrides that. Changes no cut.
    pub fn open(ports: PeerPorts, renewal: Option<Renewal>) -> Result<Self, CutError> {
        let kernel = |what| move |source| CutError::Kernel { what, source };
        let mut socket = Socket::open().map_err(kernel("reach nf_tables"))?;
        let tried = try_renewal(&mut socket).map_err(kernel("try nf_tables sets with a timeout"))?;
        Ok(Self {
            socket,
            ports,
            renewal: renewal.unwrap_or(tried),
            active: Vec::new(),
            guard: None,
            next_generation: 1,
            installed: false,
        })
    }

    pub fn renewal(&self) -> Renewal {
        self.renewal
    }

    /// Makes exactly these cuts active, each for its lease from now on. One transaction; on an error nothing has changed.
    pub fn set(&mut self, cuts: &[Cut]) -> Result<Changed, CutError> {
        self.set_guarded(cuts, None)
    }

    /// As [`set`](Self::set), and makes exactly this guard active in the same transaction.
    pub fn set_guarded(&mut self, cuts: &[Cut], guard: Option<&Guard>) -> Result<Changed, CutError> {
        let wanted = normalize(cuts)?;
        let guard = guard.map(Guard::normalized);
        match self.try_set(&wanted, guard.as_ref()) {
            Err(error) if self.installed && error.errno() == Some(nix::libc::ENOENT) => {
                self.installed = false;
                self.try_set(&wanted, guard.as_ref()).map(|changed| Changed { rebuilt: true, ..changed })
            }
            result => result,
        }
        .map_err(|source| CutError::Kernel { what: "set the cuts", source })
    }

    fn try_set(&mut self, wanted: &[Cut], guard: Option<&Guard>) -> Result<Changed, NetlinkError> {
        let listed = if self.installed && (!self.active.is_empty() || self.guard.is_some()) {
            nft::list_rules(&mut self.socket, nft::TABLE)?
        } else {
            Vec::new()
        };
        let now = Instant::now();
        let mut batch = Batch::new();
        let mut changed = Changed::default();
        let mut next = Vec::with_capacity(wanted.len());
        let mut generation = self.next_generation;
        let in_place = self.installed && self.renewal == Renewal::InPlace;
        if !self.installed {
            nft::replace_table(&mut batch, nft::TABLE, self.ports);
        }
        for cut in wanted {
            let old = self.active.iter().find(|active| active.cut.id == cut.id);
            let old = old.filter(|active| active.cut.rects == cut.rects);
            if let Some(old) = old
                && now >= old.deadline
            {
                changed.lapsed.push((cut.id.clone(), now - old.deadline));
            }
            let deadline = now + cut.lease;
            if let Some(old) = old
                && in_place
            {
                put(&mut batch, cut, old.generation);
                next.push(Active { cut: cut.clone(), deadline, ..old.clone() });
            } else {
                if old.is_none() {
                    changed.started.push(cut.id.clone());
                }
                create(&mut batch, cut, generation);
                put(&mut batch, cut, generation);
                let earlier_drops = old.map_or(0, |old| old.earlier_drops + drops(&listed, old.generation));
                next.push(Active { cut: cut.clone(), generation, earlier_drops, deadline });
                generation += 1;
            }
        }
        let next_guard = guard.map(|guard| {
            if let Some(old) = self.guard.as_ref().filter(|old| in_place && old.is_renewed_by(guard)) {
                return old.renew(&mut batch, guard.lease);
            }
            generation += 1;
            ActiveGuard::create(&mut batch, guard.clone(), generation - 1)
        });
        if let Some(old) = &self.guard
            && self.installed
            && next_guard.as_ref().is_none_or(|next| next.generation != old.generation)
        {
            old.remove(&mut batch, &listed);
        }
        // New rules are added before old ones go, though nobody can see the difference: it is one transaction.
        for old in &self.active {
            if self.installed && !next.iter().any(|active| active.generation == old.generation) {
                remove(&mut batch, old, &listed);
            }
            if !wanted.iter().any(|cut| cut.id == old.cut.id && cut.rects == old.cut.rects) {
                changed.ended.push(old.cut.id.clone());
            }
        }
        self.socket.commit(batch)?;
        self.installed = true;
        self.next_generation = generation;
        self.active = next;
        self.guard = next_guard;
        Ok(changed)
    }

    /// Removes everything this crate has put into the namespace, leases or not.
    pub fn clear(&mut self) -> Result<(), CutError> {
        let mut batch = Batch::new();
        nft::clear_table(&mut batch, nft::TABLE);
        self.socket.commit(batch).map_err(|source| CutError::Kernel { what: "remove the table", source })?;
        self.active.clear();
        self.guard = None;
        self.installed = false;
        Ok(())
    }

    /// Reads the counters, and whether the rules are still there.
    pub fn observe(&mut self) -> Result<Vec<Observed>, CutError> {
        if self.active.is_empty() {
            return Ok(Vec::new());
        }
        let listed = nft::list_rules(&mut self.socket, nft::TABLE)
            .map_err(|source| CutError::Kernel { what: "list the cuts", source })?;
        let keys: BTreeSet<RuleKey> = listed.iter().map(|rule| rule.key).collect();
        let fixed = keys.iter().filter(|key| key.generation == RuleKey::FIXED).count();
        let unguarded = self.guard.as_ref().is_some_and(|guard| !keys.contains(&guard.rule_key()));
        Ok(self
            .active
            .iter()
            .map(|active| Observed {
                id: active.cut.id.clone(),
                drops: active.earlier_drops + drops(&listed, active.generation),
                rule_missing: unguarded
                    || fixed != nft::FIXED_RULES
                    || rule_keys(active).any(|key| !keys.contains(&key)),
                deadline: active.deadline,
            })
            .collect())
    }
}

fn rule_keys(active: &Active) -> impl Iterator<Item = RuleKey> {
    let generation = active.generation;
    (0..active.cut.rects.len()).map(move |index| RuleKey { generation, index: index as u32 })
}

fn drops(listed: &[ListedRule], generation: u32) -> u64 {
    listed.iter().filter(|rule| rule.key.generation == generation).map(|rule| rule.packets).sum()
}

pub(crate) fn set_names(generation: u32, index: usize) -> (String, String) {
    (format!("c{generation}.{index}.from"), format!("c{generation}.{index}.to"))
}

/// The number of a set in its transaction. Unique there: cuts and rectangles are far fewer than the room between two
/// generations.
pub(crate) fn set_id(generation: u32, place: usize) -> u32 {
    generation.wrapping_mul(MAX_ADDRESSES as u32).wrapping_add(place as u32)
}

fn create(batch: &mut Batch, cut: &Cut, generation: u32) {
    for index in 0..cut.rects.len() {
        let (from, to) = set_names(generation, index);
        nft::new_set(batch, nft::TABLE, &from, set_id(generation, 2 * index));
        nft::new_set(batch, nft::TABLE, &to, set_id(generation, 2 * index + 1));
        nft::cut_rule(batch, nft::TABLE, RuleKey { generation, index: index as u32 }, &from, &to);
    }
}

fn put(batch: &mut Batch, cut: &Cut, generation: u32) {
    for (index, rect) in cut.rects.iter().enumerate() {
        let (from, to) = set_names(generation, index);
        nft::put_elements(batch, nft::TABLE, &from, &rect.from, cut.lease);
        nft::put_elements(batch, nft::TABLE, &to, &rect.to, cut.lease);
    }
}

fn remove(batch: &mut Batch, old: &Active, listed: &[ListedRule]) {
    remove_generation(batch, old.generation, old.cut.rects.len(), listed);
}

/// Removes the rules of a generation and their sets, two each.
pub(crate) fn remove_generation(batch: &mut Batch, generation: u32, rules: usize, listed: &[ListedRule]) {
    // A rule that somebody else removed is not listed, and its sets are free to go.
    for rule in listed.iter().filter(|rule| rule.key.generation == generation) {
        nft::delete_rule(batch, nft::TABLE, rule.handle);
    }
    for index in 0..rules {
        let (from, to) = set_names(generation, index);
        nft::delete_set(batch, nft::TABLE, &from);
        nft::delete_set(batch, nft::TABLE, &to);
    }
}

/// Checks cuts and brings their addresses into one order, so that equal cuts compare equal.
fn normalize(cuts: &[Cut]) -> Result<Vec<Cut>, CutError> {
    let invalid = |id: &str, problem: String| CutError::Invalid { id: id.to_owned(), problem };
    let mut seen = BTreeMap::new();
    let mut addresses = 0;
    for cut in cuts {
        let problem = if cut.id.is_empty() || cut.id.len() > Cut::MAX_ID {
            Some(format!("its id must have 1 to {} bytes", Cut::MAX_ID))
        } else if cut.lease < Cut::MIN_LEASE || cut.lease > Cut::MAX_LEASE {
            Some(format!(
                "a lease of {:?} is not between {:?} and {:?}",
                cut.lease,
                Cut::MIN_LEASE,
                Cut::MAX_LEASE
            ))
        } else if cut.rects.is_empty()
            || cut.rects.iter().any(|rect| rect.from.is_empty() || rect.to.is_empty())
        {
            Some("it cuts nothing".to_owned())
        } else if seen.contains_key(&cut.id) {
            Some("two cuts have this id".to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(invalid(&cut.id, problem));
        }
        let rects: Vec<Rect> =
            cut.rects.iter().map(|rect| Rect { from: sorted(&rect.from), to: sorted(&rect.to) }).collect();
        addresses += rects.iter().map(|rect| rect.from.len() + rect.to.len()).sum::<usize>();
        if addresses > MAX_ADDRESSES {
            return Err(invalid(
                &cut.id,
                format!("with it, all cuts name more than {MAX_ADDRESSES} addresses"),
            ));
        }
        seen.insert(cut.id.clone(), Cut { rects, ..cut.clone() });
    }
    if seen.len() > MAX_CUTS {
        return Err(invalid(&cuts[0].id, format!("{} cuts at once, at most {MAX_CUTS} work", seen.len())));
    }
    Ok(seen.into_values().collect())
}

pub(crate) fn sorted(addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    addresses.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether adding an element again moves its end, tried on a table that nothing is hooked to.
fn try_renewal(socket: &mut Socket) -> Result<Renewal, NetlinkError> {
    const SCRATCH: &str = "netsplit-try";
    const SET: &str = "s";
    const SHORT: Duration = Duration::from_secs(30);
    const LONG: Duration = Duration::from_mins(1);
    let element = [Ipv4Addr::LOCALHOST];
    let mut batch = Batch::new();
    nft::scratch_table(&mut batch, SCRATCH, SET);
    nft::put_elements(&mut batch, SCRATCH, SET, &element, SHORT);
    socket.commit(batch)?;
    let mut batch = Batch::new();
    nft::put_elements(&mut batch, SCRATCH, SET, &element, LONG);
    let renewed = socket.commit(batch);
    let listed = nft::list_expirations(socket, SCRATCH, SET);
    let mut batch = Batch::new();
    nft::delete_table(&mut batch, SCRATCH);
    socket.commit(batch)?;
    let refreshed = renewed.is_ok() && listed?.iter().any(|left| *left > SHORT);
    Ok(if refreshed { Renewal::InPlace } else { Renewal::Replace })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(id: &str, from: &[u8], to: &[u8]) -> Cut {
        let addresses = |hosts: &[u8]| hosts.iter().map(|host| Ipv4Addr::new(10, 0, 0, *host)).collect();
        Cut {
            id: id.to_owned(),
            rects: vec![Rect { from: addresses(from), to: addresses(to) }],
            lease: Duration::from_secs(15),
        }
    }

    #[test]
    fn the_order_and_number_of_addresses_do_not_matter() {
        assert_eq!(
            normalize(&[cut("a", &[3, 1, 3], &[2])]).unwrap(),
            normalize(&[cut("a", &[1, 3], &[2, 2])]).unwrap()
        );
    }

    #[test]
    fn cuts_that_cannot_be_meant_are_refused() {
        let short = Cut { lease: Duration::from_millis(1), ..cut("a", &[1], &[2]) };
        let bare = Cut { rects: vec![], ..cut("a", &[1], &[2]) };
        let twice = [cut("a", &[1], &[2]), cut("a", &[2], &[1])];
        for cuts in [&[short][..], &[bare], &[cut("", &[1], &[2])], &[cut("a", &[], &[2])], &twice] {
            normalize(cuts).unwrap_err();
        }
    }
}
