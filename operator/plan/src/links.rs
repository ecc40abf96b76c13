//! The state of every directed link: the testnet's base, and what the active faults make of it.

use std::collections::BTreeMap;

use netsplit_spec::{Links, NodeIndex};

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

/// Every directed link between `nodes` nodes, by the base alone.
pub fn base_links(nodes: usize, base: Links) -> Vec<LinkRow> {
    let ends = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
    ends.filter(|(from, to)| from != to && !base.is_empty())
        .map(|(from, to)| LinkRow { from, to, links: settle(base) })
        .collect()
}

/// The links that some fault touches, each with its whole state. The order of `faults` never matters: of values given for
/// one link the worst counts, and the base where none is given.
pub fn faulted_links(base: Links, faults: &[LinkFault]) -> Vec<LinkRow> {
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
        .map(|((from, to), given)| LinkRow { from, to, links: settle(over(base, given)) })
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
