//! What a run would do, by the clock: each stretch of time in which nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use netsplit_spec::{NodeFault, NodeIndex, ValidExperiment};

use crate::fault::{FaultPlan, compile};
use crate::links::{Base, LinkFault, LinkRow, base_links, faulted_links};

/// One stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Milliseconds since the run's start, if the baseline takes no longer than asked and faults are applied at once.
    pub from_ms: u64,
    pub to_ms: u64,
    /// Ids of the faults that are in force, in the order of the spec.
    pub faults: Vec<String>,
    /// Directed links that carry nothing.
    pub cut: BTreeSet<(NodeIndex, NodeIndex)>,
    /// What the other links do, where that is anything, by their ends.
    pub links: Vec<LinkRow>,
    /// What is done to nodes, of several faults the one that leaves least.
    pub nodes: Vec<(NodeIndex, NodeFault)>,
}

/// The stretches of a run in order, from its start to the end of its settling. The first is the baseline, if there is one.
pub fn preview(experiment: &ValidExperiment, base: &Base) -> Vec<Stretch> {
    let plans: Vec<FaultPlan> = experiment.faults.iter().map(compile).collect();
    let heals = |plan: &FaultPlan| plan.at_ms.saturating_add(plan.lasts_ms);
    let baseline_ms = experiment.baseline.as_millis() as u64;
    let healed_ms = plans.iter().map(heals).max().unwrap_or(baseline_ms);
    let end_ms = healed_ms.saturating_add(experiment.settle.as_millis() as u64);
    let mut times: BTreeSet<u64> = plans.iter().flat_map(|plan| [plan.at_ms, heals(plan)]).collect();
    times.extend([0, baseline_ms, end_ms]);
    let times: Vec<u64> = times.into_iter().collect();
    times
        .windows(2)
        .map(|ends| {
            let (from_ms, to_ms) = (ends[0], ends[1]);
            let active: Vec<&FaultPlan> =
                plans.iter().filter(|plan| plan.at_ms <= from_ms && heals(plan) > from_ms).collect();
            stretch(experiment.nodes.len(), base, &active, (from_ms, to_ms))
        })
        .collect()
}

fn stretch(nodes: usize, base: &Base, active: &[&FaultPlan], (from_ms, to_ms): (u64, u64)) -> Stretch {
    let changes: Vec<LinkFault> = active
        .iter()
        .filter_map(|plan| Some(LinkFault { rects: plan.rects.clone(), links: plan.links? }))
        .collect();
    let cutting = active.iter().filter(|plan| plan.links.is_none()).flat_map(|plan| &plan.rects);
    let cut: BTreeSet<(NodeIndex, NodeIndex)> = cutting
        .flat_map(|rect| rect.from.iter().flat_map(|from| rect.to.iter().map(|to| (*from, *to))))
        .filter(|(from, to)| from != to)
        .collect();
    // A fault's row is the whole state of its link.
    let rows = base_links(base).into_iter().chain(faulted_links(base, &changes));
    let mut links: BTreeMap<(NodeIndex, NodeIndex), LinkRow> =
        rows.map(|row| ((row.from, row.to), row)).collect();
    links.retain(|ends, _| !cut.contains(ends));
    let held = |node: NodeIndex| {
        let held = active.iter().filter_map(|plan| plan.held.as_ref());
        held.filter(|held| held.nodes.contains(&node)).map(|held| held.what).max()
    };
    Stretch {
        from_ms,
        to_ms,
        faults: active.iter().map(|plan| plan.id.clone()).collect(),
        cut,
        links: links.into_values().collect(),
        nodes: (0..nodes).filter_map(|node| Some((node, held(node)?))).collect(),
    }
}
