//! What a link must be measured as, from the spec and the faults themselves.
//!
//! A second way to the same answer, on purpose: it shares no code with the tables that agents are given, so that a
//! mistake in those is found by measuring. So a pack is read here as text, and a node's region is counted out anew.

use std::collections::BTreeMap;
use std::time::Duration;

use netsplit_spec::{Links, Matrix, NodeIndex, Share, Testnet, wan};

use crate::links::LinkFault;

/// What the spec asks of the links of one testnet.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// By node; empty for a node without one.
    regions: Vec<String>,
    /// By the region that packets come from, then by the one that they go to.
    asked: BTreeMap<String, BTreeMap<String, Asked>>,
    /// Where that says nothing.
    otherwise: Asked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    latency: Option<Duration>,
    loss: Option<Share>,
    duplicate: Option<Share>,
    reorder: Option<Share>,
    corrupt: Option<Share>,
    rate: Option<u64>,
}

impl From<&Links> for Asked {
    fn from(links: &Links) -> Self {
        let Links { latency, loss, duplicate, reorder, corrupt, rate, .. } = *links;
        Self { latency, loss, duplicate, reorder, corrupt, rate }
    }
}

/// What becomes of a link's probes, each a part of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Of those that are sent. A probe in which a bit is flipped is dropped by its receiver.
    pub lost: f64,
    /// Of those that come.
    pub duplicated: f64,
    /// Of those that come.
    pub reordered: f64,
}

impl Expected {
    /// Of a valid testnet.
    pub fn of(testnet: &Testnet) -> Self {
        let mut expected = Self::default();
        for group in &testnet.nodes {
            let mut regions = group.regions.iter().cycle();
            expected.regions.extend((0..group.count).map(|_| regions.next().cloned().unwrap_or_default()));
        }
        let Some(base) = &testnet.links else { return expected };
        expected.otherwise = Asked::from(&base.links);
        if let Some(Matrix::Rows(rows)) = &base.matrix {
            for row in rows {
                expected.ask(&row.from, &row.to, Asked::from(&row.links));
            }
        }
        for line in base.regions.as_deref().and_then(wan::text).unwrap_or_default().lines() {
            let mut cells = line.split(',');
            if let (Some(from), Some(to), Some(round_trip)) = (cells.next(), cells.next(), cells.next())
                && let Ok(milliseconds) = round_trip.parse::<f64>()
            {
                let latency = Some(Duration::from_secs_f64(milliseconds / 2_000.0));
                expected.ask(from, to, Asked { latency, ..Asked::default() });
            }
        }
        expected
    }

    fn ask(&mut self, from: &str, to: &str, asked: Asked) {
        self.asked.entry(from.to_owned()).or_default().insert(to.to_owned(), asked);
    }

    fn base(&self, from: NodeIndex, to: NodeIndex) -> Asked {
        let region = |node: NodeIndex| self.regions.get(node).map_or("", String::as_str);
        let by_region = self.asked.get(region(from)).and_then(|to_regions| to_regions.get(region(to)));
        let by_region = by_region.copied().unwrap_or_default();
        let otherwise = self.otherwise;
        Asked {
            latency: by_region.latency.or(otherwise.latency),
            loss: by_region.loss.or(otherwise.loss),
            duplicate: by_region.duplicate.or(otherwise.duplicate),
            reorder: by_region.reorder.or(otherwise.reorder),
            corrupt: by_region.corrupt.or(otherwise.corrupt),
            rate: by_region.rate.or(otherwise.rate),
        }
    }

    /// One way, of the link between two nodes.
    pub fn latency(&self, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> Duration {
        let asked = touching(faults, from, to).filter_map(|links| links.latency).max();
        asked.or(self.base(from, to).latency).unwrap_or_default()
    }

    /// In bits a second.
    pub fn rate(&self, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> Option<u64> {
        let asked = touching(faults, from, to).filter_map(|links| links.rate).min();
        asked.or(self.base(from, to).rate)
    }

    /// What becomes of the probes between two nodes.
    pub fn shares(&self, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> Shares {
        let base = self.base(from, to);
        let share = |of_fault: fn(&Links) -> Option<Share>, of_base: Option<Share>| {
            let asked = touching(faults, from, to).filter_map(of_fault).max().or(of_base);
            asked.map_or(0.0, |share| f64::from(share.as_millionths()) / 1e6)
        };
        let loss = share(|links| links.loss, base.loss);
        let duplicate = share(|links| links.duplicate, base.duplicate);
        let corrupt = share(|links| links.corrupt, base.corrupt);
        // The second one of two is whole.
        let comes = 1.0 - corrupt * (1.0 - duplicate);
        Shares {
            lost: 1.0 - (1.0 - loss) * comes,
            duplicated: if comes > 0.0 { duplicate * (1.0 - corrupt) / comes } else { 0.0 },
            reordered: share(|links| links.reorder, base.reorder),
        }
    }
}

fn touching(faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> impl Iterator<Item = &Links> {
    let touches = move |fault: &&LinkFault| {
        fault.rects.iter().any(|rect| rect.from.contains(&from) && rect.to.contains(&to))
    };
    faults.iter().filter(touches).map(|fault| &fault.links)
}

/// Whether it shows that a packet has not waited so long.
pub fn shows_order(latency: Duration) -> bool {
    latency >= Duration::from_millis(2)
}

/// The bounds of a measured rate.
pub fn rate_bounds(rate: u64) -> std::ops::RangeInclusive<u64> {
    rate - rate / 5..=rate + rate / 5
}

/// How far a measured latency may be off.
pub fn tolerance(latency: Duration) -> Duration {
    (latency / 20).max(Duration::from_millis(1))
}
