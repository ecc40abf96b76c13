//! An experiment whose every name has been found in its testnet: planning it cannot fail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::experiment::{Abort, LatencyLimits, NodeFault, Ramp};
use crate::links::Links;
use crate::units;

/// A node's place in the testnet: groups in the order of the spec, ordinals in order within each.
pub type NodeIndex = usize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidExperiment {
    pub name: String,
    pub testnet: String,
    /// All nodes of the testnet, by index.
    pub nodes: Vec<String>,
    /// The testnet's pause between blocks: says how long a silence means something.
    #[serde(with = "units::serde_duration")]
    pub block_time: Duration,
    #[serde(with = "units::serde_duration")]
    pub baseline: Duration,
    #[serde(with = "units::serde_duration")]
    pub settle: Duration,
    pub faults: Vec<ValidFault>,
    /// What random selectors have picked, in the order of the spec.
    #[serde(default)]
    pub picks: Vec<Pick>,
    pub expect: Vec<ValidExpectation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A random selector of a fault, and its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// The fault's id.
    pub fault: String,
    /// `validator/random:2`.
    pub selector: String,
    /// Ascending.
    pub nodes: Vec<NodeIndex>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidFault {
    /// Unique in its experiment: its name, else `fault-N`; of one that comes again, with `/1`, `/2`, ... behind it.
    pub id: String,
    #[serde(with = "units::serde_duration")]
    pub at: Duration,
    #[serde(with = "units::serde_duration")]
    pub lasts: Duration,
    /// Of a `link` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    pub kind: ValidFaultKind,
}

impl ValidFault {
    /// When it heals, on the run's clock.
    pub fn heals_at(&self) -> Duration {
        self.at.saturating_add(self.lasts)
    }
}

/// Node lists are sorted and without duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValidFaultKind {
    /// No link between two sides works. A node on no side is a bridge: all its links work.
    Partition { sides: Vec<Vec<NodeIndex>> },
    /// Every link from a node in `from` to a node in `to`; both ways unless `one_way`.
    Cut { from: Vec<NodeIndex>, to: Vec<NodeIndex>, one_way: bool },
    /// Every such link is of this quality, as far as it is given.
    Link { from: Vec<NodeIndex>, to: Vec<NodeIndex>, one_way: bool, links: Links },
    /// It is done to these nodes themselves.
    Nodes { what: NodeFault, nodes: Vec<NodeIndex> },
}

/// `fault` is a place in [`ValidExperiment::faults`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValidExpectation {
    Stall {
        #[serde(with = "units::serde_duration")]
        within: Duration,
        fault: usize,
    },
    Recover {
        #[serde(with = "units::serde_duration")]
        within: Duration,
        fault: usize,
    },
    Progress {
        #[serde(with = "units::serde_duration")]
        within: Duration,
    },
    Agreement,
    Validity,
    Latency(LatencyLimits),
    /// Transfers a second.
    Throughput {
        at_least: u32,
    },
}
