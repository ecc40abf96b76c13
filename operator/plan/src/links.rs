//! The state of every directed link: the testnet's base, and what the active faults make of it.

use std::collections::{BTreeMap, BTreeSet};

use netsplit_spec::{Links, NodeIndex, Testnet};

use crate::fault::CutRect;

/// An active fault that changes links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFault {
    pub rects: Vec<CutRect>,
    pub links: Links,
}

/// What one directed link does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRow {
    pub from: NodeIndex,
    pub to: NodeIndex,
    pub links: Links,
}

/// What every directed link of a testnet does without a fault. It follows from where its ends are.
#[derive(Clone, Debug)]
pub struct Base {
    /// By node, a place in `table`.
    regions: Vec<usize>,
    /// From each region to each, row by row.
    table: Vec<Links>,
    width: usize,
}

impl Base {
    /// Of a valid testnet.
    pub fn of(testnet: &Testnet) -> Self {
        let Some(base) = &testnet.links else {
            return Self::uniform(netsplit_spec::node_names(testnet).len(), Links::default());
        };
        let nodes =
            testnet.nodes.iter().flat_map(|group| (0..group.count).map(|ordinal| group.region(ordinal)));
        let nodes: Vec<Option<&str>> = nodes.collect();
        let rows = base.rows();
        if rows.is_empty() {
            return Self::uniform(nodes.len(), base.links);
        }
        let distinct: BTreeSet<Option<&str>> = nodes.iter().copied().collect();
        let places: BTreeMap<Option<&str>, usize> = distinct.into_iter().zip(0..).collect();
        let width = places.len();
        let mut table = vec![base.links; width * width];
        for row in &rows {
            let place = |name: &str| places.get(&Some(name)).copied();
            if let (Some(from), Some(to)) = (place(&row.from), place(&row.to)) {
                table[from * width + to] = over(base.links, row.links);
            }
        }
        Self { regions: nodes.iter().map(|region| places[region]).collect(), table, width }
    }

    /// The same for all links.
    pub fn uniform(nodes: usize, links: Links) -> Self {
        Self { regions: vec![0; nodes], table: vec![links], width: 1 }
    }

    /// Nothing is asked of any link.
    pub fn is_empty(&self) -> bool {
        self.table.iter().all(Links::is_empty)
    }

    /// What it asks of every link, if that is the same of all.
    pub fn all_alike(&self) -> Option<Links> {
        let first = *self.table.first()?;
        self.table.iter().all(|links| *links == first).then(|| settle(first))
    }

    /// Without its faults.
    pub fn link(&self, from: NodeIndex, to: NodeIndex) -> Links {
        settle(self.given(from, to))
    }

    fn given(&self, from: NodeIndex, to: NodeIndex) -> Links {
        self.table[self.regions[from] * self.width + self.regions[to]]
    }
}

/// Every directed link of which the base asks something.
pub fn base_links(base: &Base) -> Vec<LinkRow> {
    let nodes = base.regions.len();
    let ends = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
    ends.filter(|(from, to)| from != to)
        .map(|(from, to)| LinkRow { from, to, links: base.link(from, to) })
        .filter(|row| !row.links.is_empty())
        .collect()
}

/// The links that some fault touches, each with its whole state. The order of `faults` never matters: of values given for
/// one link the worst counts, and the base where none is given.
pub fn faulted_links(base: &Base, faults: &[LinkFault]) -> Vec<LinkRow> {
    let mut changed: BTreeMap<(NodeIndex, NodeIndex), Links> = BTreeMap::new();
    for fault in faults {
        for rect in &fault.rects {
            for from in &rect.from {
                for to in rect.to.iter().filter(|to| *to != from) {
                    let links = changed.entry((*from, *to)).or_default();
                    *links = worst(*links, fault.links);
                }
            }
        }
    }
    changed
        .into_iter()
        .map(|((from, to), given)| LinkRow { from, to, links: settle(over(base.given(from, to), given)) })
        .collect()
}

/// Commutative, associative, and the same twice is the same once.
fn worst(a: Links, b: Links) -> Links {
    Links {
        latency: a.latency.max(b.latency),
        jitter: a.jitter.max(b.jitter),
        loss: a.loss.max(b.loss),
        // `None` is less than any rate, and means none is given.
        rate: a.rate.into_iter().chain(b.rate).min(),
        duplicate: a.duplicate.max(b.duplicate),
        reorder: a.reorder.max(b.reorder),
        corrupt: a.corrupt.max(b.corrupt),
    }
}

fn over(base: Links, given: Links) -> Links {
    Links {
        latency: given.latency.or(base.latency),
        jitter: given.jitter.or(base.jitter),
        loss: given.loss.or(base.loss),
        rate: given.rate.or(base.rate),
        duplicate: given.duplicate.or(base.duplicate),
        reorder: given.reorder.or(base.reorder),
        corrupt: given.corrupt.or(base.corrupt),
    }
}

/// A fault that makes a link faster leaves no jitter larger than the latency.
fn settle(links: Links) -> Links {
    Links { jitter: links.jitter.map(|jitter| jitter.min(links.latency.unwrap_or_default())), ..links }
}
