//! Faults compiled to directed links, and to nodes.

use std::time::Duration;

use netsplit_spec::{Links, NodeFault, NodeIndex, Ramp, Share, ValidFault, ValidFaultKind};
use serde::{Deserialize, Serialize};

/// Every directed link from a node in `from` to another node in `to` is cut. Sorted, without duplicates.
///
/// A rectangle instead of pairs keeps a half/half cut of 100 nodes at two sets of 50 instead of 5,000 entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CutRect {
    pub from: Vec<NodeIndex>,
    pub to: Vec<NodeIndex>,
}

/// Nodes whose processes are held in a state. Sorted, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldNodes {
    pub what: NodeFault,
    pub nodes: Vec<NodeIndex>,
}

/// A fault as links and nodes see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    pub id: String,
    /// On the run's clock.
    pub at_ms: u64,
    pub lasts_ms: u64,
    /// The union of these links is cut, or changed. Faults compose by union, so their order never matters.
    pub rects: Vec<CutRect>,
    /// How the links are changed; `None`: they are cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Links>,
    /// How `links` are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// What is done to nodes; then it has no `rects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldNodes>,
}

/// From one step of a ramp to the next.
const RAMP_STEP_MS: u64 = 500;

/// What links are changed to that go to `goal` by a ramp, so long after they began to; from then on, what they stay at.
/// The first step is taken at once, so that the last one leaves the most time.
pub fn ramped(ramp: &Ramp, goal: Links, since_ms: u64) -> Links {
    let steps = (ramp.over.as_millis() as u64).div_ceil(RAMP_STEP_MS).max(1);
    let step = (since_ms / RAMP_STEP_MS + 1).min(steps);
    let between = |from: u64, to: u64| {
        let moved = u128::from(from.abs_diff(to)) * u128::from(step) / u128::from(steps);
        if from < to { from + moved as u64 } else { from - moved as u64 }
    };
    let micros = |latency: Duration| latency.as_micros() as u64;
    let millionths = |loss: Share| u64::from(loss.as_millionths());
    let latency = goal
        .latency
        .map(|to| between(micros(ramp.latency.unwrap_or_default()), micros(to)))
        .map(Duration::from_micros);
    let loss = goal.loss.map(|to| between(millionths(ramp.loss.unwrap_or_default()), millionths(to)));
    Links { latency, loss: loss.map(|loss| Share::millionths(loss as u32)), ..goal }
}

/// The links and nodes of one fault, in a fixed order.
pub fn compile(fault: &ValidFault) -> FaultPlan {
    let rects = match &fault.kind {
        ValidFaultKind::Partition { sides } => partition(sides),
        ValidFaultKind::Cut { from, to, one_way } | ValidFaultKind::Link { from, to, one_way, .. } => {
            let there = rect(from, to);
            if *one_way { vec![there] } else { vec![there, rect(to, from)] }
        }
        ValidFaultKind::Nodes { .. } => Vec::new(),
    };
    let links = match &fault.kind {
        ValidFaultKind::Link { links, .. } => Some(*links),
        _ => None,
    };
    let held = match &fault.kind {
        ValidFaultKind::Nodes { what, nodes } => Some(HeldNodes { what: *what, nodes: nodes.clone() }),
        _ => None,
    };
    FaultPlan {
        id: fault.id.clone(),
        at_ms: fault.at.as_millis() as u64,
        lasts_ms: fault.lasts.as_millis() as u64,
        rects,
        links,
        ramp: fault.ramp,
        held,
    }
}

/// One rectangle a side: from it to all other sides together. n sides need n rectangles, not n * (n - 1).
fn partition(sides: &[Vec<NodeIndex>]) -> Vec<CutRect> {
    let others = |place: usize| -> Vec<NodeIndex> {
        let mut nodes: Vec<NodeIndex> = sides
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != place)
            .flat_map(|(_, side)| side)
            .copied()
            .collect();
        nodes.sort_unstable();
        nodes
    };
    sides
        .iter()
        .enumerate()
        .map(|(place, side)| rect(side, &others(place)))
        .filter(|rect| !rect.to.is_empty())
        .collect()
}

fn rect(from: &[NodeIndex], to: &[NodeIndex]) -> CutRect {
    CutRect { from: from.to_vec(), to: to.to_vec() }
}
