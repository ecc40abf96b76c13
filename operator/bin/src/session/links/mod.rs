//! Shaped links: what the backend is asked for, and whether the links do what the spec and the faults ask.
//!
//! What is asked for comes from the tables ([`netsplit_plan::faulted_links`]); what must be measured comes from the spec and
//! the faults themselves ([`netsplit_plan::expected`]), so that a mistake in the tables is found.

mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use netsplit_backend::{
    CutRect, LinkEvidence, LinkRequest, LinkState, LinksEvidence, LinksRequest, Proof, Share,
};
use netsplit_plan::{Base, LinkFault, LinkRow, base_links, expected::Expected, faulted_links};
use netsplit_spec::{Links, NodeIndex, Testnet};

pub use self::judge::emulation_fault;

/// The links of one testnet.
#[derive(Debug)]
pub struct LinkBook {
    names: Vec<String>,
    indices: BTreeMap<String, NodeIndex>,
    base: Base,
    /// The links of which the base asks something, as the backend is told.
    base_rows: Arc<[LinkRequest]>,
    expected: Expected,
    seed: u64,
}

type Pair = (NodeIndex, NodeIndex);

/// One directed link, asked for and measured.
#[derive(Clone, Debug)]
pub struct SeenLink {
    pub from: String,
    pub to: String,
    pub asked: Links,
    /// By a fault that is in force.
    pub changed: bool,
    /// `None`: nobody measures it, since nothing is asked of it.
    pub measured: Option<LinkEvidence>,
    /// What shows that it is something else, or why nothing shows what it is.
    pub problem: Option<String>,
}

impl LinkBook {
    pub fn new(testnet: &Testnet) -> Self {
        let names = netsplit_spec::node_names(testnet);
        let indices = names.iter().cloned().enumerate().map(|(index, name)| (name, index)).collect();
        let (base, expected) = (Base::of(testnet), Expected::of(testnet));
        let base_rows = base_links(&base).into_iter().map(|row| entry(&names, row)).collect();
        Self { names, indices, base, base_rows, expected, seed: testnet.seed() }
    }

    /// Whether links do something without any fault.
    pub fn has_base(&self) -> bool {
        !self.base.is_empty()
    }

    /// A fault by node name as the tables have it.
    pub fn fault(&self, rects: &[CutRect], links: Links) -> Result<LinkFault> {
        let indices = |names: &[String]| -> Result<Vec<NodeIndex>> {
            let index = |name: &String| match self.indices.get(name) {
                Some(index) => Ok(*index),
                None => bail!("no node is called `{name}`"),
            };
            names.iter().map(index).collect()
        };
        let rect = |rect: &CutRect| {
            Ok(netsplit_plan::CutRect { from: indices(&rect.from)?, to: indices(&rect.to)? })
        };
        Ok(LinkFault { rects: rects.iter().map(rect).collect::<Result<_>>()?, links })
    }

    /// The links of cuts.
    pub fn cuts<'a>(&self, cuts: impl Iterator<Item = &'a [CutRect]>) -> Vec<LinkFault> {
        // Names that no node has cut nothing; whoever asked for them was told.
        cuts.filter_map(|rects| self.fault(rects, Links::default()).ok()).collect()
    }

    /// The whole desired state: the base, what the active faults make of it, and the links of `healing` ones, which are
    /// measured until they are seen at their base.
    pub fn request(&self, active: &[LinkFault], healing: &[LinkFault], lease: Duration) -> LinksRequest {
        let clear: BTreeSet<Pair> = healing
            .iter()
            .flat_map(pairs)
            .filter(|(from, to)| self.base.link(*from, *to).is_empty())
            .collect();
        let base = if clear.is_empty() {
            Arc::clone(&self.base_rows)
        } else {
            let rows = clear.into_iter().map(|(from, to)| LinkRow { from, to, links: Links::default() });
            self.base_rows.iter().cloned().chain(rows.map(|row| entry(&self.names, row))).collect()
        };
        let faulted = faulted_links(&self.base, active);
        let faulted = faulted.into_iter().map(|row| entry(&self.names, row)).collect();
        LinksRequest { seed: self.seed, base, faulted, lease }
    }

    /// Every directed link, as asked for by the tables, and as measured.
    pub fn links(&self, active: &[LinkFault], seen: &LinksEvidence) -> Vec<SeenLink> {
        let by_name = by_name(seen);
        let faulted: BTreeMap<Pair, Links> = faulted_links(&self.base, active)
            .into_iter()
            .map(|LinkRow { from, to, links }| ((from, to), links))
            .collect();
        let count = self.names.len();
        let ends = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        ends.filter(|(from, to)| from != to)
            .map(|(from, to)| {
                let (a, b) = (&self.names[from], &self.names[to]);
                let measured = by_name.get(&(a.as_str(), b.as_str())).copied();
                SeenLink {
                    from: a.clone(),
                    to: b.clone(),
                    asked: faulted.get(&(from, to)).copied().unwrap_or_else(|| self.base.link(from, to)),
                    changed: faulted.contains_key(&(from, to)),
                    problem: measured.and_then(|link| match self.judge_one((from, to), active, link) {
                        Proof::Proven => None,
                        Proof::Unproven(what) | Proof::Violated(what) => Some(what),
                    }),
                    measured: measured.cloned(),
                }
            })
            .collect()
    }
}

fn entry(names: &[String], LinkRow { from, to, links }: LinkRow) -> LinkRequest {
    LinkRequest {
        from: names[from].clone(),
        to: names[to].clone(),
        number: (from * names.len() + to) as u32,
        state: state(links),
    }
}

fn by_name(seen: &LinksEvidence) -> BTreeMap<(&str, &str), &LinkEvidence> {
    seen.links.iter().map(|link| ((link.from.as_str(), link.to.as_str()), link)).collect()
}

fn covers(cuts: &[LinkFault], (from, to): Pair) -> bool {
    cuts.iter().flat_map(|cut| &cut.rects).any(|rect| rect.from.contains(&from) && rect.to.contains(&to))
}

fn pairs(fault: &LinkFault) -> impl Iterator<Item = Pair> {
    let all = fault
        .rects
        .iter()
        .flat_map(|rect| rect.from.iter().flat_map(move |from| rect.to.iter().map(move |to| (*from, *to))));
    all.filter(|(from, to)| from != to)
}

fn state(links: Links) -> LinkState {
    let share = |share: Option<netsplit_spec::Share>| {
        share.map_or(Share::NONE, |share| Share::millionths(share.as_millionths()))
    };
    LinkState {
        latency: links.latency.unwrap_or_default(),
        jitter: links.jitter.unwrap_or_default(),
        loss: share(links.loss),
        rate: links.rate,
        duplicate: share(links.duplicate),
        reorder: share(links.reorder),
        corrupt: share(links.corrupt),
    }
}

#[cfg(test)]
mod tests;
