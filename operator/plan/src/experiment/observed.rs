//! What the state machine is told at each step.

use serde::{Deserialize, Serialize};

use super::load::Spread;

/// Everything seen since the last step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// One for each node of the testnet, in any order; a node that is left out counts as not running.
    pub nodes: Vec<NodeObserved>,
    /// One for each fault that was asked for, from `ApplyFault` until the run's end.
    pub faults: Vec<FaultObserved>,
    /// A link that no fault touches is measured to be something else than the testnet asks for. One sentence.
    #[serde(default)]
    pub link_problem: Option<String>,
    /// The testnet's own load since it started, if there is one.
    #[serde(default)]
    pub load: Option<LoadObserved>,
    pub host: HostPressure,
    /// Set when the run must end: the user asked, the testnet is gone. Says why.
    pub abort: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeObserved {
    pub name: String,
    /// Its process runs, by the backend's word.
    pub up: bool,
    /// Times the backend or a person has started it again.
    pub restarts: u32,
    /// Its block stream is connected, so that silence means silence.
    pub following: bool,
    /// Highest final height it reported, ever.
    pub final_height: u64,
    /// Newly final blocks since the last step, ascending. A block may be reported again.
    pub new_blocks: Vec<FinalBlock>,
    /// Blocks that were final but could not be reported here (a bounded buffer overflowed), since the last step.
    pub lost_blocks: u64,
    /// Connected neighbours.
    pub peers: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalBlock {
    pub height: u64,
    /// The chain's own text for the block's id.
    pub id: String,
    /// When this node finalised it.
    pub at_ms: u64,
    /// The chain's own text for the state after it, as this node computed it; none where the node does not tell.
    #[serde(default)]
    pub state_root: Option<String>,
}

/// Counts of a load since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadObserved {
    /// Transfers that are final.
    pub committed: u64,
    /// From handing them over to their finality.
    pub latencies: Spread,
}

/// What the links report about a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultObserved {
    pub id: String,
    /// When its last rule was in place.
    pub applied_at_ms: Option<u64>,
    /// By drop counters, silence and control probes: it does what was asked, so far.
    pub proven: bool,
    /// Each way in which it did not, while it should have: a probe crossed, a rule vanished. One sentence each.
    pub violations: Vec<String>,
    /// When its rules were gone.
    pub healed_at_ms: Option<u64>,
    /// By probes: the links are open again (those that no other fault cuts).
    pub confirmed_open: bool,
}

/// How busy the observer's host was since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPressure {
    /// How late a thread woke that slept for 10 ms: 99th percentile and worst.
    pub lag_p99_ms: f64,
    pub lag_max_ms: f64,
    /// Share of the time, 0 to 1, in which some task waited for a CPU; `None` where the kernel does not tell.
    pub cpu_pressure: Option<f64>,
    /// Share of the CPUs' time, 0 to 1, that the hypervisor gave to others.
    pub steal: Option<f64>,
}
