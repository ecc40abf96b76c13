//! What is done to a testnet, and what must be seen.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::links::LinkChange;
use crate::problem::Origin;
use crate::units::{self, Share};

/// Faults on a clock, and what the chain must do meanwhile. Without `expect` it is a plain fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Experiment {
    pub name: String,
    /// The testnet's name.
    pub testnet: String,
    #[serde(default)]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// How long the chain is watched before the first fault; see [`Experiment::baseline`].
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Duration>,
    /// How long it is watched after the last heal, at least.
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub settle: Option<Duration>,
    /// What ends the run before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Where it was read, for later problems. Not part of its value.
    #[serde(skip)]
    pub origin: Origin,
}

/// What nobody wants to go on watching: the faults are healed, and the run is Aborted. A fork ends every run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// No block was final on any node for longer.
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub silent: Option<Duration>,
}

impl Experiment {
    /// Nobody watches for longer.
    pub const LONGEST_FAULT: Duration = Duration::from_hours(24);
    pub const DEFAULT_BASELINE: Duration = Duration::from_secs(5);
    pub const DEFAULT_SETTLE: Duration = Duration::from_secs(2);

    /// The baseline in force: as given, else 5 s, or less if the first fault starts sooner; none for a plain fault.
    pub fn baseline(&self) -> Duration {
        if let Some(given) = self.baseline {
            return given;
        }
        if self.expect.is_empty() {
            return Duration::ZERO;
        }
        let first = self.faults.iter().map(|fault| fault.at).min();
        first.map_or(Self::DEFAULT_BASELINE, |at| at.min(Self::DEFAULT_BASELINE))
    }

    pub fn settle(&self) -> Duration {
        match self.settle {
            Some(given) => given,
            None if self.expect.is_empty() => Duration::ZERO,
            None => Self::DEFAULT_SETTLE,
        }
    }
}

/// One fault: what, when and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// How `after` names it; `fault-N` (N = its place, from 0) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From the start of the run, of which the baseline is the first part.
    #[serde(with = "units::serde_duration")]
    pub at: Duration,
    #[serde(rename = "for", with = "units::serde_duration")]
    pub lasts: Duration,
    /// From one start to the next, with `repeat`.
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// How often it comes in all; its occurrences are called `name/1`, `name/2`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
    /// Of a `link`: how it grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// Latency and loss of a `link` go from these to what the link says, in equal steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    #[serde(with = "units::serde_duration")]
    pub over: Duration,
    /// None means zero.
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// None means zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Share>,
}

/// What a fault does. Nodes are given by selectors: a group (`validator`: all of it), one node (`validator-0`),
/// `role:validator`, `region:NAME`, and random picks: `random:2` of all nodes, `validator/random:2` of what stands before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FaultKind {
    Partition {
        /// The sides: no link between two of them works.
        partition: Vec<Vec<String>>,
        /// Where nodes that no side names stand. Without it every node must be named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rest: Option<Rest>,
    },
    Cut {
        cut: Cut,
    },
    Link {
        link: LinkChange,
    },
    Kill {
        /// They end as by a crash, and are started again with their data when the fault is over.
        kill: Vec<String>,
    },
    Pause {
        /// They hang, and go on when the fault is over.
        pause: Vec<String>,
    },
    Restart {
        /// They end in order, and are started again with their data when the fault is over.
        restart: Vec<String>,
    },
}

impl FaultKind {
    /// What is done to nodes themselves, and how they are named.
    pub fn of_nodes(&self) -> Option<(NodeFault, &[String])> {
        match self {
            Self::Kill { kill } => Some((NodeFault::Kill, kill)),
            Self::Pause { pause } => Some((NodeFault::Pause, pause)),
            Self::Restart { restart } => Some((NodeFault::Restart, restart)),
            Self::Partition { .. } | Self::Cut { .. } | Self::Link { .. } => None,
        }
    }
}

/// What is done to the process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeFault {
    /// It is stopped where it is (SIGSTOP).
    Pause,
    /// It is ended in order (SIGTERM).
    Restart,
    /// It is ended at once (SIGKILL).
    Kill,
}

impl NodeFault {
    /// As the spec has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Kill => "kill",
        }
    }
}

/// Links from one set of nodes to another, both ways unless `one_way`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    pub from: Vec<String>,
    pub to: Vec<String>,
    /// Only packets from `from` to `to` are lost.
    #[serde(default)]
    pub one_way: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", untagged)]
pub enum Rest {
    /// The side with this place, from 0.
    Side(usize),
    /// `bridge`: they reach every side, so they may carry messages across. `isolate`: each stands alone. Else a
    /// group or node name: they join the side on which all of it stands.
    Word(String),
}

/// What must be seen, else the run fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Expectation {
    /// Finality stops on every node `within` the fault's start and stays stopped until its heal.
    #[serde(rename_all = "camelCase")]
    Stall {
        #[serde(with = "units::serde_duration")]
        within: Duration,
        /// The fault's name; the last to start when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Every node finalises a height above all that were final before the heal, `within` the fault's heal.
    #[serde(rename_all = "camelCase")]
    Recover {
        #[serde(with = "units::serde_duration")]
        within: Duration,
        /// The fault's name; the last to heal when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// The chain's highest final height never stands still for longer than `within`.
    Progress {
        #[serde(default = "Expectation::default_progress", with = "units::serde_duration")]
        within: Duration,
    },
    /// No two nodes finalise different blocks at one height, ever.
    Agreement {},
    /// No two nodes come to different states by one block, ever.
    Validity {},
    /// From the baseline's end to the run's, so many of the load's transfers that became final took no longer.
    Latency(LatencyLimits),
    /// From the baseline's end to the run's, so many of the load's transfers became final a second.
    #[serde(rename_all = "camelCase")]
    Throughput { at_least: u32 },
}

/// Longest times from handing a transfer over to its finality, of a half, of nine in ten, of 99 in a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyLimits {
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub p50: Option<Duration>,
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub p90: Option<Duration>,
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub p99: Option<Duration>,
}

impl LatencyLimits {
    /// Those that are given: name, share of the transfers, limit.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, f64, Duration)> {
        [("p50", 0.5, self.p50), ("p90", 0.9, self.p90), ("p99", 0.99, self.p99)]
            .into_iter()
            .filter_map(|(name, share, limit)| Some((name, share, limit?)))
    }
}

impl Expectation {
    pub const DEFAULT_PROGRESS: Duration = Duration::from_secs(5);

    fn default_progress() -> Duration {
        Self::DEFAULT_PROGRESS
    }
}
