//! The table of all shaped links, and how one differs from the next.
//!
//! A hundred nodes have 9,900 links, of which a fault changes a few: what is told, and what is done about it, follows from
//! the difference. The base is shared, and the same as before when it is the very same one.

use std::{cmp::Ordering, iter::Peekable, net::Ipv4Addr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::state::LinkEntry;

pub type Pair = (Ipv4Addr, Ipv4Addr);

/// The whole desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkTable {
    seed: u64,
    /// By pair of addresses, each once; so is `faulted`.
    base: Arc<[LinkEntry]>,
    faulted: Vec<LinkEntry>,
    lease: Duration,
}

/// One link that another table asks something else of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkChange {
    pub before: Option<LinkEntry>,
    /// None: nothing is asked of it any more.
    pub after: Option<LinkEntry>,
}

impl LinkTable {
    /// `base` holds for as long as the agent lives; `faulted` in place of what `base` says of the same link, until `lease`
    /// after the table was set or renewed. Of two entries of one link the later one counts.
    pub fn new(seed: u64, base: Vec<LinkEntry>, faulted: Vec<LinkEntry>, lease: Duration) -> Self {
        Self::over(seed, in_order(base).into(), faulted, lease)
    }

    /// As [`new`](Self::new), over the base of an earlier table.
    pub fn over(seed: u64, base: Arc<[LinkEntry]>, faulted: Vec<LinkEntry>, lease: Duration) -> Self {
        Self { seed, base, faulted: in_order(faulted), lease }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn base(&self) -> &Arc<[LinkEntry]> {
        &self.base
    }

    pub fn faulted(&self) -> &[LinkEntry] {
        &self.faulted
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// With every link at its base.
    #[must_use]
    pub fn without_faults(&self) -> Self {
        Self { faulted: Vec::new(), ..self.clone() }
    }

    pub fn is_empty(&self) -> bool {
        self.base.is_empty() && self.faulted.is_empty()
    }

    /// Every link once, by pair: a fault's state is the whole state.
    pub fn effective(&self) -> impl Iterator<Item = LinkEntry> {
        let links = joined(self.base.iter().copied(), self.faulted.iter().copied());
        links.filter_map(|(base, faulted)| faulted.or(base))
    }

    fn find(&self, pair: Pair) -> Option<LinkEntry> {
        let among =
            |links: &[LinkEntry]| links.binary_search_by_key(&pair, LinkEntry::pair).ok().map(|at| links[at]);
        among(&self.faulted).or_else(|| among(&self.base))
    }

    /// The links that are not as they were in `before`, by pair. All of them are, under another seed.
    pub fn changes_since(&self, before: &Self) -> Vec<LinkChange> {
        let same_seed = self.seed == before.seed;
        let change = |before: Option<LinkEntry>, after: Option<LinkEntry>| {
            (before != after || !same_seed).then_some(LinkChange { before, after })
        };
        if same_seed && Arc::ptr_eq(&self.base, &before.base) {
            let touched = joined(before.faulted.iter().copied(), self.faulted.iter().copied());
            let pairs = touched.filter_map(|(before, after)| before.or(after)).map(|link| link.pair());
            return pairs.filter_map(|pair| change(before.find(pair), self.find(pair))).collect();
        }
        joined(before.effective(), self.effective())
            .filter_map(|(before, after)| change(before, after))
            .collect()
    }
}

/// A new desired state, as it is told: a base that stays is not told again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkUpdate {
    seed: u64,
    /// As before when absent; in order.
    base: Option<Arc<[LinkEntry]>>,
    faulted: Vec<LinkEntry>,
    lease: Duration,
}

impl LinkUpdate {
    /// Tells of a table; of its base only to who does not know it.
    pub fn of(table: LinkTable, knows_base: bool) -> Self {
        let LinkTable { seed, base, faulted, lease } = table;
        Self { seed, base: (!knows_base).then_some(base), faulted, lease }
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The table that it makes of the one in force.
    pub fn onto(self, before: &LinkTable) -> LinkTable {
        let Self { seed, base, faulted, lease } = self;
        LinkTable { seed, base: base.unwrap_or_else(|| Arc::clone(&before.base)), faulted, lease }
    }
}

fn in_order(mut links: Vec<LinkEntry>) -> Vec<LinkEntry> {
    // Stable, and of equal neighbours the first is kept: the later one, once the order is turned round.
    links.reverse();
    links.sort_by_key(LinkEntry::pair);
    links.dedup_by_key(|link| link.pair());
    links
}

/// Both sides' links of each pair, of two sides in order.
fn joined(
    left: impl Iterator<Item = LinkEntry>,
    right: impl Iterator<Item = LinkEntry>,
) -> impl Iterator<Item = (Option<LinkEntry>, Option<LinkEntry>)> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || {
        let (one, other) = (pair_of(&mut left), pair_of(&mut right));
        match (one, other) {
            (None, None) => None,
            (Some(_), None) => Some((left.next(), None)),
            (None, Some(_)) => Some((None, right.next())),
            (Some(one), Some(other)) => Some(match one.cmp(&other) {
                Ordering::Less => (left.next(), None),
                Ordering::Greater => (None, right.next()),
                Ordering::Equal => (left.next(), right.next()),
            }),
        }
    })
}

fn pair_of(links: &mut Peekable<impl Iterator<Item = LinkEntry>>) -> Option<Pair> {
    links.peek().map(LinkEntry::pair)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::shape::LinkState;

    fn links() -> impl Strategy<Value = Vec<LinkEntry>> {
        let link = (0..4u8, 0..4u8, 0..3u32, 0..3u64).prop_map(|(from, to, number, ms)| LinkEntry {
            from: Ipv4Addr::new(10, 0, 0, from),
            to: Ipv4Addr::new(10, 0, 0, to),
            number,
            state: LinkState { latency: Duration::from_millis(ms), ..LinkState::default() },
        });
        prop::collection::vec(link, 0..12)
    }

    /// What a table asks of each link, told without any order.
    fn plainly(base: &[LinkEntry], faulted: &[LinkEntry]) -> BTreeMap<Pair, LinkEntry> {
        base.iter().chain(faulted).map(|link| (link.pair(), *link)).collect()
    }

    proptest! {
        #[test]
        fn a_table_and_its_changes_make_the_next_one(
            base in links(), other in links(), one in links(), two in links(), seeds in (0..2u64, 0..2u64), same in any::<bool>()
        ) {
            let first = LinkTable::new(seeds.0, base.clone(), one.clone(), Duration::ZERO);
            let (second, base_of_second) = if same {
                (LinkTable::over(seeds.1, Arc::clone(first.base()), two.clone(), Duration::ZERO), base.clone())
            } else {
                (LinkTable::new(seeds.1, other.clone(), two.clone(), Duration::ZERO), other)
            };
            let (was, is) = (plainly(&base, &one), plainly(&base_of_second, &two));
            let effective: Vec<LinkEntry> = second.effective().collect();
            prop_assert_eq!(&effective, &is.values().copied().collect::<Vec<_>>());
            let mut made = was.clone();
            for change in second.changes_since(&first) {
                let pair = change.before.or(change.after).map(|link| link.pair()).unwrap();
                prop_assert_eq!(change.before, was.get(&pair).copied());
                prop_assert!(change.before != change.after || seeds.0 != seeds.1, "no change: {:?}", change);
                match change.after {
                    Some(link) => made.insert(pair, link),
                    None => made.remove(&pair),
                };
            }
            prop_assert_eq!(made, is);
        }

        #[test]
        fn what_is_told_makes_the_same_table(base in links(), one in links(), two in links()) {
            let first = LinkTable::new(1, base, one, Duration::ZERO);
            let second = LinkTable::over(2, Arc::clone(first.base()), two, Duration::from_secs(1));
            for knows in [false, true] {
                prop_assert_eq!(LinkUpdate::of(second.clone(), knows).onto(&first), second.clone());
            }
            prop_assert_eq!(second.without_faults().changes_since(&LinkTable::new(2, first.base().to_vec(), Vec::new(), Duration::ZERO)), []);
        }
    }
}
