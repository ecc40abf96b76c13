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
        expected.otherwise = Asked { latency: base.links.latency, loss: base.links.loss };
        if let Some(Matrix::Rows(rows)) = &base.matrix {
            for row in rows {
                let asked = Asked { latency: row.links.latency, loss: row.links.loss };
                expected.ask(&row.from, &row.to, asked);
            }
        }
        for line in base.regions.as_deref().and_then(wan::text).unwrap_or_default().lines() {
            let mut cells = line.split(',');
            if let (Some(from), Some(to), Some(round_trip)) = (cells.next(), cells.next(), cells.next())
                && let Ok(milliseconds) = round_trip.parse::<f64>()
            {
                let latency = Some(Duration::from_secs_f64(milliseconds / 2_000.0));
                expected.ask(from, to, Asked { latency, loss: None });
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
        Asked {
            latency: by_region.latency.or(self.otherwise.latency),
            loss: by_region.loss.or(self.otherwise.loss),
        }
    }

    /// One way, of the link between two nodes.
    pub fn latency(&self, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> Duration {
        let asked = touching(faults, from, to).filter_map(|links| links.latency).max();
        asked.or(self.base(from, to).latency).unwrap_or_default()
    }

    /// In millionths.
    pub fn loss(&self, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> u32 {
        let asked = touching(faults, from, to).filter_map(|links| links.loss).max();
        asked.or(self.base(from, to).loss).map_or(0, Share::as_millionths)
    }
}

fn touching(faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> impl Iterator<Item = &Links> {
    let touches = move |fault: &&LinkFault| {
        fault.rects.iter().any(|rect| rect.from.contains(&from) && rect.to.contains(&to))
    };
    faults.iter().filter(touches).map(|fault| &fault.links)
}

/// How far a measured latency may be off.
pub fn tolerance(latency: Duration) -> Duration {
    (latency / 20).max(Duration::from_millis(1))
}
