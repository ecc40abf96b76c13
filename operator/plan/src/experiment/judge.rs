//! Each expectation, judged on what was seen.

use netsplit_spec::{LatencyLimits, NodeIndex, ValidExpectation, units::format_duration};
use serde::{Deserialize, Serialize};

use super::agreement::{Agreement, Conflict};
use super::faults::FaultState;
use super::limits::{REPORT_GRACE_MS, UNWATCHED_MS};
use super::load::LoadSeen;
use super::log::seconds;
use super::nodes::{Fresh, Nodes};
use super::pressure::Pressure;
use super::validity::Validity;
use super::verdict::{ExpectationResult, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judge {
    text: String,
    rule: Rule,
    pub result: Option<ExpectationResult>,
}

/// Times are milliseconds; `fault` is a place in the list of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Rule {
    Stall {
        within_ms: u64,
        fault: usize,
        /// The first block that should not have been: node, height, when.
        offence: Option<(usize, u64, u64)>,
        /// The last block before the stall.
        last_ms: Option<u64>,
    },
    Recover {
        within_ms: u64,
        fault: usize,
        /// Highest final height when the heal was asked for.
        target: Option<u64>,
        /// By node: when it first went above the target.
        back_ms: Vec<Option<u64>>,
        /// Nodes that other faults held when this one was healed: nothing is expected of them. `None` before.
        #[serde(default)]
        excused: Option<Vec<NodeIndex>>,
        /// A node that another fault took down later, before it was back.
        #[serde(default)]
        taken: Option<NodeIndex>,
    },
    Progress {
        within_ms: u64,
        /// The longest pause that has ended, and when it did.
        longest: (u64, u64),
    },
    Agreement,
    Validity,
    Latency(LatencyLimits),
    Throughput {
        at_least: u32,
    },
}

/// What the rules look at.
pub(crate) struct View<'a> {
    pub now_ms: u64,
    pub nodes: &'a Nodes,
    pub faults: &'a [FaultState],
    pub pressure: &'a Pressure,
    pub agreement: &'a Agreement,
    pub validity: Option<&'a Validity>,
    pub load: &'a LoadSeen,
    /// When the run's clock was zero.
    pub zero_ms: u64,
    /// Nothing more will be watched: judge now.
    pub at_end: bool,
}

impl View<'_> {
    fn is_held(&self, node: NodeIndex) -> bool {
        self.faults.iter().any(|fault| fault.holds(node))
    }
}

/// A judgement without its expectation's text.
struct Ruling {
    outcome: Outcome,
    detail: String,
    measured_ms: Option<u64>,
}

impl Ruling {
    fn passed(detail: impl Into<String>, measured_ms: Option<u64>) -> Self {
        Self { outcome: Outcome::Passed, detail: detail.into(), measured_ms }
    }

    fn invalid(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Invalid, detail: detail.into(), measured_ms: None }
    }

    /// Failed, unless the host was too busy between the two moments for a miss to count.
    fn missed(view: &View<'_>, window: (u64, u64), detail: String, measured_ms: Option<u64>) -> Self {
        match view.pressure.excuse(window.0, window.1) {
            Some(excuse) => {
                Self { outcome: Outcome::Invalid, detail: format!("{excuse}; {detail}"), measured_ms }
            }
            None => Self { outcome: Outcome::Failed, detail, measured_ms },
        }
    }
}

impl Judge {
    pub fn new(expectation: &ValidExpectation, fault_ids: &[String], nodes: usize) -> Self {
        let ms = |duration: std::time::Duration| duration.as_millis() as u64;
        let (text, rule) = match expectation {
            ValidExpectation::Stall { within, fault } => (
                format!("stall within {} of `{}`", format_duration(*within), fault_ids[*fault]),
                Rule::Stall { within_ms: ms(*within), fault: *fault, offence: None, last_ms: None },
            ),
            ValidExpectation::Recover { within, fault } => (
                format!("recover within {} of the heal of `{}`", format_duration(*within), fault_ids[*fault]),
                Rule::Recover {
                    within_ms: ms(*within),
                    fault: *fault,
                    target: None,
                    back_ms: vec![None; nodes],
                    excused: None,
                    taken: None,
                },
            ),
            ValidExpectation::Progress { within } => (
                format!("progress every {}", format_duration(*within)),
                Rule::Progress { within_ms: ms(*within), longest: (0, 0) },
            ),
            ValidExpectation::Agreement => ("agreement".to_owned(), Rule::Agreement),
            ValidExpectation::Validity => ("validity".to_owned(), Rule::Validity),
            ValidExpectation::Latency(limits) => {
                let one = |(name, _, limit)| format!("{name} {}", format_duration(limit));
                let given: Vec<String> = limits.given().map(one).collect();
                (format!("latency {}", given.join(", ")), Rule::Latency(*limits))
            }
            ValidExpectation::Throughput { at_least } => {
                (format!("throughput of at least {at_least}/s"), Rule::Throughput { at_least: *at_least })
            }
        };
        Self { text, rule, result: None }
    }

    /// For the end of a run that was cut short.
    pub fn result(&self) -> ExpectationResult {
        self.result.clone().unwrap_or_else(|| ExpectationResult {
            text: self.text.clone(),
            outcome: Outcome::NotJudged,
            detail: "the run ended before".to_owned(),
            measured_ms: None,
        })
    }

    /// Before this step's blocks are looked at: `height` is the highest final one until now.
    pub fn heal_asked(&mut self, healed: usize, height: u64) {
        if let Rule::Recover { fault, target, .. } = &mut self.rule
            && *fault == healed
            && target.is_none()
        {
            *target = Some(height);
        }
    }

    /// Blocks of a node that are above all it had before.
    pub fn see(&mut self, fresh: &[Fresh], faults: &[FaultState]) {
        self.see_held(faults);
        for block in fresh {
            match &mut self.rule {
                Rule::Stall { within_ms, fault, offence, last_ms } => {
                    let fault = &faults[*fault];
                    let Some(applied_ms) = fault.applied_at_ms else { continue };
                    if fault.heal_asked_at_ms.is_some_and(|heal| block.at_ms >= heal)
                        || block.at_ms < applied_ms
                    {
                        continue;
                    }
                    if block.at_ms > applied_ms.saturating_add(*within_ms) {
                        let earlier = offence.is_some_and(|(_, _, at)| at <= block.at_ms);
                        if !earlier {
                            *offence = Some((block.node, block.height, block.at_ms));
                        }
                    } else {
                        *last_ms = (*last_ms).max(Some(block.at_ms));
                    }
                }
                Rule::Recover { fault, target: Some(target), back_ms, .. } => {
                    let since = faults[*fault].heal_asked_at_ms.unwrap_or(u64::MAX);
                    if block.height > *target && block.at_ms >= since {
                        back_ms[block.node].get_or_insert(block.at_ms);
                    }
                }
                _ => {}
            }
        }
    }

    /// Of whom a recovery can be expected.
    fn see_held(&mut self, faults: &[FaultState]) {
        let Rule::Recover { fault, target: Some(_), back_ms, excused, taken, .. } = &mut self.rule else {
            return;
        };
        let by_another =
            |node: &NodeIndex| faults.iter().enumerate().any(|(n, other)| n != *fault && other.holds(*node));
        let mut held = (0..back_ms.len()).filter(by_another);
        match excused {
            None => *excused = Some(held.collect()),
            Some(excused) => {
                let is_lost = |node: &NodeIndex| back_ms[*node].is_none() && !excused.contains(node);
                *taken = taken.or_else(|| held.find(is_lost));
            }
        }
    }

    /// The chain's highest final height rose, `pause_ms` after it did the last time.
    pub fn advanced(&mut self, pause_ms: u64, at_ms: u64) {
        if let Rule::Progress { longest, .. } = &mut self.rule
            && pause_ms > longest.0
        {
            *longest = (pause_ms, at_ms);
        }
    }

    /// Whether this call has decided it.
    pub fn judge(&mut self, view: &View<'_>) -> bool {
        if self.result.is_some() {
            return false;
        }
        let ruling = match &self.rule {
            Rule::Stall { fault, offence, last_ms, .. } => {
                stall(view, &view.faults[*fault], *offence, *last_ms)
            }
            Rule::Recover { within_ms, fault, back_ms, excused, taken, .. } => {
                let excused = excused.as_deref().unwrap_or_default();
                recover(
                    view,
                    *within_ms,
                    &view.faults[*fault],
                    &Back { by_node: back_ms, excused, taken: *taken },
                )
            }
            Rule::Progress { within_ms, longest } => progress(view, *within_ms, *longest),
            Rule::Agreement => agreement(view),
            Rule::Validity => view.validity.and_then(|seen| validity(view, seen)),
            Rule::Latency(limits) => latency(view, limits),
            Rule::Throughput { at_least } => throughput(view, *at_least),
        };
        self.result = ruling.map(|ruling| ExpectationResult {
            text: self.text.clone(),
            outcome: ruling.outcome,
            detail: ruling.detail,
            measured_ms: ruling.measured_ms,
        });
        self.result.is_some()
    }

    /// What it forbids may never happen, at whatever time and for whatever reason.
    pub fn is_of_safety(&self) -> bool {
        matches!(self.rule, Rule::Agreement | Rule::Validity)
    }

    /// Its judgement ends no sooner than the end of the run.
    pub fn waits_for_end(&self) -> bool {
        !matches!(self.rule, Rule::Stall { .. } | Rule::Recover { .. })
    }
}

fn stall(
    view: &View<'_>,
    fault: &FaultState,
    offence: Option<(usize, u64, u64)>,
    last_ms: Option<u64>,
) -> Option<Ruling> {
    let applied_ms = fault.applied_at_ms?;
    if let Some((node, height, at_ms)) = offence {
        let after_ms = at_ms.saturating_sub(applied_ms);
        let node = view.nodes.name(node);
        let detail =
            format!("{node} still made height {height} final {} after the fault's start", seconds(after_ms));
        return Some(Ruling::missed(view, (applied_ms, at_ms), detail, Some(after_ms)));
    }
    let heal_ms = fault.heal_asked_at_ms?;
    if view.now_ms < heal_ms.saturating_add(REPORT_GRACE_MS) {
        return None;
    }
    // Silence proves a stall only on nodes that could have spoken, and only if the fault is its one cause.
    if fault.holds_all(view.nodes.list.len()) {
        return Some(Ruling::invalid("the fault held every node, so that the silence says nothing"));
    }
    let held = |node| view.is_held(node);
    if let Some(node) = view.nodes.exited_since(view.zero_ms, held) {
        return Some(Ruling::invalid(format!("{} exited, so that the silence may be its doing", node.name)));
    }
    if let Some(node) = view.nodes.unwatched(held) {
        let given_up = view.now_ms >= heal_ms.saturating_add(UNWATCHED_MS) || view.at_end;
        return given_up.then(|| Ruling::invalid(format!("{} could not be watched", node.name)));
    }
    let stopped_ms = last_ms.map_or(0, |last| last.saturating_sub(applied_ms));
    let silent_ms = heal_ms.saturating_sub(last_ms.unwrap_or(applied_ms));
    let detail = format!(
        "the last block was final {} after the fault's start, then none for {}",
        seconds(stopped_ms),
        seconds(silent_ms)
    );
    Some(Ruling::passed(detail, Some(stopped_ms)))
}

/// When nodes were back.
struct Back<'a> {
    by_node: &'a [Option<u64>],
    excused: &'a [NodeIndex],
    taken: Option<NodeIndex>,
}

impl Back<'_> {
    /// Those of whom it is expected.
    fn wanted(&self) -> impl Iterator<Item = (NodeIndex, Option<u64>)> {
        self.by_node.iter().copied().enumerate().filter(|(node, _)| !self.excused.contains(node))
    }
}

fn recover(view: &View<'_>, within_ms: u64, fault: &FaultState, back: &Back<'_>) -> Option<Ruling> {
    let healed_ms = fault.healed_at_ms?;
    let deadline_ms = healed_ms.saturating_add(within_ms);
    if back.wanted().next().is_none() {
        return Some(Ruling::invalid("other faults held every node, so that none could recover"));
    }
    if back.wanted().all(|(_, at)| at.is_some_and(|at| at <= deadline_ms)) {
        // Counted as met only once the links are known to be open: else it is not the heal that is judged.
        fault.open_at_ms?;
        let slowest_ms =
            back.wanted().filter_map(|(_, at)| at).max().map_or(0, |at| at.saturating_sub(healed_ms));
        let who = if back.excused.is_empty() { "every node" } else { "every node that no other fault held" };
        return Some(Ruling::passed(
            format!("{who} had a new final block {} after the heal", seconds(slowest_ms)),
            Some(slowest_ms),
        ));
    }
    let window = (healed_ms, deadline_ms);
    let late = back.wanted().filter_map(|(node, at)| at.filter(|at| *at > deadline_ms).map(|at| (node, at)));
    if let Some((node, at_ms)) = late.max_by_key(|(_, at)| *at) {
        let after_ms = at_ms.saturating_sub(healed_ms);
        let detail = format!(
            "{} had a new final block only {} after the heal",
            view.nodes.name(node),
            seconds(after_ms)
        );
        return Some(Ruling::missed(view, window, detail, Some(after_ms)));
    }
    if let Some(node) = back.taken {
        let node = view.nodes.name(node);
        return Some(Ruling::invalid(format!("another fault took {node} down before it was back")));
    }
    if view.now_ms < deadline_ms.saturating_add(REPORT_GRACE_MS) {
        return None;
    }
    let missing: Vec<usize> = back.wanted().filter(|(_, at)| at.is_none()).map(|(node, _)| node).collect();
    let states = || missing.iter().map(|node| &view.nodes.list[*node]);
    if states().all(|node| node.up && !node.following) {
        let names: Vec<&str> = states().map(|node| node.name.as_str()).collect();
        let given_up = view.now_ms >= deadline_ms.saturating_add(UNWATCHED_MS) || view.at_end;
        return given_up.then(|| Ruling::invalid(format!("{} could not be watched", names.join(", "))));
    }
    let names: Vec<String> = states()
        .map(|node| if node.up { node.name.clone() } else { format!("{} (not running)", node.name) })
        .collect();
    let detail = format!("no new final block {} after the heal on {}", seconds(within_ms), names.join(", "));
    Some(Ruling::missed(view, window, detail, None))
}

fn progress(view: &View<'_>, within_ms: u64, longest: (u64, u64)) -> Option<Ruling> {
    let (pause_ms, ended_ms) = longest;
    if pause_ms > within_ms {
        let detail = format!("no block was final for {}", seconds(pause_ms));
        return Some(Ruling::missed(
            view,
            (ended_ms.saturating_sub(pause_ms), ended_ms),
            detail,
            Some(pause_ms),
        ));
    }
    let last_ms = view.nodes.advanced_at_ms.unwrap_or(view.zero_ms).max(view.zero_ms);
    let silent_ms = view.now_ms.saturating_sub(last_ms);
    if silent_ms > within_ms.saturating_add(REPORT_GRACE_MS) {
        if let Some(node) = view.nodes.unheard(|node| view.is_held(node)) {
            let given_up = silent_ms > within_ms.saturating_add(UNWATCHED_MS) || view.at_end;
            return given_up.then(|| Ruling::invalid(format!("{} could not be watched", node.name)));
        }
        let detail = format!("no block was final for {}", seconds(silent_ms));
        return Some(Ruling::missed(view, (last_ms, view.now_ms), detail, Some(silent_ms)));
    }
    // A pause that is still open may yet become too long, or have ended with a block that is still to be reported.
    let pause_ms = pause_ms.max(silent_ms.min(within_ms));
    view.at_end
        .then(|| Ruling::passed(format!("the longest pause was {}", seconds(pause_ms)), Some(pause_ms)))
}

fn agreement(view: &View<'_>) -> Option<Ruling> {
    if let Some(conflict) = view.agreement.conflict() {
        let detail = fork_text(conflict, view.nodes);
        return Some(Ruling { outcome: Outcome::Failed, detail, measured_ms: None });
    }
    if !view.at_end {
        return None;
    }
    let uncompared = view.agreement.uncompared();
    if uncompared > 0 {
        return Some(Ruling::invalid(format!("{uncompared} blocks could not be compared")));
    }
    let detail = format!("{} blocks compared, to height {}", view.agreement.compared(), view.nodes.height);
    Some(Ruling::passed(detail, None))
}

fn validity(view: &View<'_>, seen: &Validity) -> Option<Ruling> {
    if let Some(conflict) = seen.conflict() {
        let detail = states_text(conflict, view.nodes);
        return Some(Ruling { outcome: Outcome::Failed, detail, measured_ms: None });
    }
    view.at_end.then(|| match seen.compared() {
        Ok(compared) => {
            let detail = format!("{compared} states compared, to height {}", view.nodes.height);
            Ruling::passed(detail, None)
        }
        Err(why) => Ruling::invalid(why),
    })
}

fn latency(view: &View<'_>, limits: &LatencyLimits) -> Option<Ruling> {
    if !view.at_end {
        return None;
    }
    let window = match view.load.window() {
        Ok(window) => window,
        Err(why) => return Some(Ruling::invalid(why)),
    };
    let mut seen = Vec::new();
    let mut missed = false;
    for (name, share, limit) in limits.given() {
        let Some(ms) = window.latency_ms(share) else {
            let detail = "no transfer of the load became final".to_owned();
            return Some(Ruling::missed(view, (window.from_ms, window.to_ms), detail, None));
        };
        missed |= ms > limit.as_secs_f64() * 1_000.0;
        seen.push(format!("{name} was {ms:.0} ms"));
    }
    let detail = format!("{} of {} transfers", seen.join(", "), window.committed);
    Some(if missed {
        Ruling::missed(view, (window.from_ms, window.to_ms), detail, None)
    } else {
        Ruling::passed(detail, None)
    })
}

fn throughput(view: &View<'_>, at_least: u32) -> Option<Ruling> {
    if !view.at_end {
        return None;
    }
    let window = match view.load.window() {
        Ok(window) => window,
        Err(why) => return Some(Ruling::invalid(why)),
    };
    let lasted = seconds(window.to_ms.saturating_sub(window.from_ms));
    let detail = format!("{:.1}/s, {} transfers final in {lasted}", window.per_second(), window.committed);
    Some(if window.per_second() < f64::from(at_least) {
        Ruling::missed(view, (window.from_ms, window.to_ms), detail, None)
    } else {
        Ruling::passed(detail, None)
    })
}

/// What a conflict of blocks is.
pub(crate) fn fork_text(conflict: &Conflict, nodes: &Nodes) -> String {
    let Sides { first, second, one, other } = Sides::of(conflict, nodes);
    format!("at height {} {first} made {one} final, and {second} made {other} final", conflict.height)
}

/// What a conflict of states is.
pub(crate) fn states_text(conflict: &Conflict, nodes: &Nodes) -> String {
    let Sides { first, second, one, other } = Sides::of(conflict, nodes);
    format!("after height {} the state of {first} is {one}, and that of {second} is {other}", conflict.height)
}

/// Two nodes and their words.
struct Sides<'a> {
    first: &'a str,
    second: &'a str,
    one: String,
    other: String,
}

impl<'a> Sides<'a> {
    fn of(conflict: &Conflict, nodes: &'a Nodes) -> Self {
        let ((first, second), (one, other)) = (conflict.nodes, &conflict.told);
        Self { first: nodes.name(first), second: nodes.name(second), one: short(one), other: short(other) }
    }
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::FaultPlan;

    /// A node that was cut off from a chain that went on must catch up before it counts as recovered.
    #[test]
    fn only_heights_above_all_before_the_heal_count_as_recovery() {
        let plan = FaultPlan {
            id: "f".to_owned(),
            at_ms: 0,
            lasts_ms: 1_000,
            rects: Vec::new(),
            links: None,
            ramp: None,
            held: None,
        };
        let mut fault = FaultState::new(plan);
        fault.asked_at_ms = Some(1_000);
        fault.applied_at_ms = Some(1_000);
        fault.heal(2_000);
        let faults = [fault];
        let within = Duration::from_secs(5);
        let mut judge = Judge::new(&ValidExpectation::Recover { within, fault: 0 }, &["f".to_owned()], 1);
        judge.heal_asked(0, 20);
        let back = |judge: &Judge| match &judge.rule {
            Rule::Recover { back_ms, .. } => back_ms[0],
            other => panic!("{other:?}"),
        };
        judge.see(&[Fresh { node: 0, height: 20, at_ms: 2_100 }], &faults);
        assert_eq!(back(&judge), None, "catching up is not progress");
        judge.see(&[Fresh { node: 0, height: 21, at_ms: 1_900 }], &faults);
        assert_eq!(back(&judge), None, "what was final before the heal proves nothing");
        judge.see(&[Fresh { node: 0, height: 22, at_ms: 2_200 }], &faults);
        judge.see(&[Fresh { node: 0, height: 23, at_ms: 2_300 }], &faults);
        assert_eq!(back(&judge), Some(2_200), "the first one counts");
    }
}
