//! The experiment's state machine: `step(state, now, observed) -> (state, actions)`.
//!
//! Phases: Pending (until every node runs and is followed), Baseline, Running, Recovering, then Passed, Failed,
//! Invalid or Aborted. How each case ends:
//! - A fork is Failed, whatever else happened, and ends the run at once. So does one block that leads two nodes to
//!   different states, where `validity` is expected.
//! - A fault that was not applied, not proven or not healed within [`limits::PROOF_MS`], that was violated or ended
//!   from outside is Invalid, at once; so is a chain that made no progress before the first fault.
//! - An expectation missed while the host was overloaded ([`limits`]) is Invalid, otherwise Failed.
//! - A node that a fault takes down is not expected to do anything until the fault is healed and it runs again.
//! - A node that exits on its own is always noted. It makes `stall` undecidable (Invalid): the silence may be its
//!   doing. For `recover` it counts as a node that did not come back (Failed).
//! - A node whose block stream is away is not judged by its silence (Invalid).
//! - One Failed expectation outweighs Invalid ones: it was missed under good conditions.
//!
//! Whatever the end, every fault that was asked for is healed first; if that cannot be confirmed, the verdict says so.
//!
//! All times ending in `_ms` are on one clock, the caller's: milliseconds since any instant that outlives a restart
//! of the caller and that the nodes' times of finality share (Unix time on one machine).
//!
//! The caller persists the state before it acts on the actions. Actions are given again until their effect is
//! observed, so each must be safe to repeat. After a restart, [`resume`] makes the next step repeat what was in
//! flight.

mod agreement;
mod faults;
mod judge;
pub mod limits;
mod load;
mod log;
mod nodes;
mod observed;
mod pressure;
mod validity;
mod verdict;

pub use faults::FaultStands;
pub use load::Spread;
pub use observed::{FaultObserved, FinalBlock, HostPressure, LoadObserved, NodeObserved, Observed};
pub use verdict::{ExitCode, ExpectationResult, Outcome, Phase, TimelineEvent, TimelineKind, Verdict};

use netsplit_spec::{Abort, Links, Pick, Ramp, ValidExpectation, ValidExperiment};
use serde::{Deserialize, Serialize};

use crate::fault::{CutRect, FaultPlan, HeldNodes, compile};
use agreement::Agreement;
use faults::FaultState;
use judge::{Judge, View};
use limits::{BASELINE_WAIT_MS, FRESH_MS, PENDING_MS, PROOF_MS, REPORT_GRACE_MS};
use load::LoadSeen;
use log::{Log, Timeline, seconds};
use nodes::{Fresh, Nodes};
use pressure::Pressure;
use validity::Validity;

/// Where a run stands. Opaque: persist it (serde), hand it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    phase: Phase,
    started_ms: u64,
    last_step_ms: u64,
    /// When the run's clock was zero, from which faults are timed; known once the baseline has begun, and moved on
    /// while the baseline waits for progress.
    zero_ms: Option<u64>,
    /// Each node's height when the baseline began.
    baseline_heights: Vec<u64>,
    baseline_ms: u64,
    settle_ms: u64,
    block_time_ms: u64,
    nodes: Nodes,
    faults: Vec<FaultState>,
    expect: Vec<Judge>,
    agreement: Agreement,
    /// Only where it is expected.
    #[serde(default)]
    validity: Option<Validity>,
    pressure: Pressure,
    /// Since when some link is not what the testnet asks for.
    #[serde(default)]
    links_off_since_ms: Option<u64>,
    /// No new block for a while, which was noted.
    silent: bool,
    /// For the reader, from the first step.
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    load: LoadSeen,
    #[serde(default)]
    abort: Option<Abort>,
    ending: Option<Ending>,
    verdict: Option<Verdict>,
    timeline: Timeline,
}

/// The outcome is known; faults are still being healed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ending {
    phase: Phase,
    reasons: Vec<String>,
    at_ms: u64,
}

/// What the caller is to do. Each is safe to repeat.
#[must_use]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Cut these links, or change them if `links` says how, by a `ramp` if there is one, or do to the nodes what `held` says, under a lease that is
    /// renewed until `HealFault`, which comes `lasts_ms` after [`FaultObserved::applied_at_ms`]. Repeated until that is
    /// set.
    ApplyFault {
        id: String,
        rects: Vec<CutRect>,
        links: Option<Links>,
        ramp: Option<Ramp>,
        held: Option<HeldNodes>,
        lasts_ms: u64,
    },
    /// Undo it. Repeated until [`FaultObserved::healed_at_ms`] is set. May come for a fault that was never applied.
    HealFault { id: String },
    /// Something for the reader; also in [`State::timeline`].
    Note(TimelineEvent),
    /// The end. Given again by every later step.
    Finish(Verdict),
}

/// The first state of a run.
pub fn start(experiment: &ValidExperiment, now_ms: u64) -> State {
    let ids: Vec<String> = experiment.faults.iter().map(|fault| fault.id.clone()).collect();
    let nodes = experiment.nodes.len();
    State {
        phase: Phase::Pending,
        started_ms: now_ms,
        last_step_ms: now_ms,
        zero_ms: None,
        baseline_heights: Vec::new(),
        baseline_ms: experiment.baseline.as_millis() as u64,
        settle_ms: experiment.settle.as_millis() as u64,
        block_time_ms: experiment.block_time.as_millis() as u64,
        nodes: Nodes::new(&experiment.nodes),
        faults: experiment.faults.iter().map(|fault| FaultState::new(compile(fault))).collect(),
        expect: experiment.expect.iter().map(|expected| Judge::new(expected, &ids, nodes)).collect(),
        agreement: Agreement::default(),
        validity: experiment.expect.contains(&ValidExpectation::Validity).then(Validity::default),
        pressure: Pressure::default(),
        links_off_since_ms: None,
        silent: false,
        notes: experiment.picks.iter().map(|pick| picked(pick, &experiment.nodes)).collect(),
        load: LoadSeen::default(),
        abort: experiment.abort,
        ending: None,
        verdict: None,
        timeline: Timeline::default(),
    }
}

/// Who was picked by lot.
fn picked(pick: &Pick, names: &[String]) -> String {
    let nodes: Vec<&str> = pick.nodes.iter().map(|node| names[*node].as_str()).collect();
    format!("`{}` of {} is {}", pick.selector, pick.fault, nodes.join(", "))
}

/// To be called on a state that was read back after a restart of the caller: the next step repeats every action
/// that may have been lost, and `ApplyFault` of every active fault, so that its lease is renewed again.
#[must_use]
pub fn resume(mut state: State) -> State {
    state.faults.iter_mut().for_each(FaultState::resume);
    state
}

/// One step. Call it several times a second: gaps above [`limits::STEP_GAP_MS`] count as an overloaded host.
pub fn step(state: &State, now_ms: u64, observed: &Observed) -> (State, Vec<Action>) {
    let mut next = state.clone();
    if let Some(verdict) = &next.verdict {
        let actions = vec![Action::Finish(verdict.clone())];
        return (next, actions);
    }
    let mut timeline = std::mem::take(&mut next.timeline);
    // A clock that was set back must not make time negative.
    let now_ms = now_ms.max(next.last_step_ms);
    let mut log = Log::new(now_ms, &mut timeline);
    let finish = next.advance(&mut log, observed);
    let mut actions = log.actions;
    actions.extend(finish.map(Action::Finish));
    next.timeline = timeline;
    next.last_step_ms = now_ms;
    (next, actions)
}

impl State {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When the run began.
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// When the run was last looked at: a caller that reads a kept state back knows of nothing later.
    pub fn last_step_ms(&self) -> u64 {
        self.last_step_ms
    }

    /// Where each fault stands that was asked for.
    pub fn faults(&self) -> impl Iterator<Item = FaultStands<'_>> {
        self.faults.iter().filter_map(FaultState::stands)
    }

    /// What happened so far, in the order in which it was learned; bounded.
    pub fn timeline(&self) -> &[TimelineEvent] {
        &self.timeline.events
    }

    /// When the run's clock was zero, once the baseline has begun. It may still move until the baseline is over.
    pub fn zero_ms(&self) -> Option<u64> {
        self.zero_ms
    }

    /// Faults that are asked for and not being healed: their leases are to be renewed.
    pub fn active_faults(&self) -> impl Iterator<Item = &FaultPlan> {
        self.faults.iter().filter(|fault| fault.is_active()).map(|fault| &fault.plan)
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// A plain fault expects nothing, so it waits for nothing and proves nothing about the chain.
    fn is_plain(&self) -> bool {
        self.expect.is_empty()
    }

    fn advance(&mut self, log: &mut Log<'_>, observed: &Observed) -> Option<Verdict> {
        for text in std::mem::take(&mut self.notes) {
            log.note(TimelineKind::Note, text);
        }
        if let Some(text) = self.pressure.record(self.last_step_ms, log.now_ms, &observed.host) {
            log.note(TimelineKind::HostOverloaded, format!("host overloaded: {text}"));
        }
        let mut invalid = Vec::new();
        // As of before this step: in the step that shows a node back, its restart is still the fault's.
        let ended = |node| self.faults.iter().any(|fault| fault.ends(node));
        let ended: Vec<bool> = (0..self.nodes.list.len()).map(ended).collect();
        for n in 0..self.faults.len() {
            let up = self.seen_up(observed, n);
            let fault = &mut self.faults[n];
            let healing = fault.heal_asked_at_ms.is_some();
            invalid.extend(fault.see(log, observed, &up));
            if !healing && fault.heal_asked_at_ms.is_some() {
                self.expect.iter_mut().for_each(|judge| judge.heal_asked(n, self.nodes.height));
            }
        }
        invalid.extend(self.see_links(log.now_ms, observed));
        let fresh = self.nodes.see(log, observed, &ended, &mut self.agreement, self.validity.as_mut());
        for judge in &mut self.expect {
            judge.see(&fresh, &self.faults);
        }
        self.note_finality(log, &fresh);
        if matches!(self.phase, Phase::Running | Phase::Recovering) {
            self.load.see(log.now_ms, observed.load.as_ref());
        }
        let abort = observed.abort.clone().or_else(|| self.given_up(log.now_ms));
        self.decide(log, invalid, abort.as_ref());
        if self.ending.is_none() {
            self.move_on(log);
        }
        if self.ending.is_some() {
            self.faults.iter_mut().for_each(|fault| fault.heal(log.now_ms));
        }
        for fault in &mut self.faults {
            fault.act(log);
        }
        self.finish(log)
    }

    /// By node, whether it runs, for a fault that asks for it: `None` for one that another fault is done to. Empty where nobody
    /// asks.
    fn seen_up(&self, observed: &Observed, fault: usize) -> Vec<Option<bool>> {
        if !self.faults[fault].waits_for_nodes() {
            return Vec::new();
        }
        let runs = |name: &str| observed.nodes.iter().any(|seen| seen.name == name && seen.up);
        let others = || self.faults.iter().enumerate().filter(|(other, _)| *other != fault);
        let nodes = self.nodes.list.iter().enumerate();
        nodes.map(|(n, node)| (!others().any(|(_, other)| other.has(n))).then(|| runs(&node.name))).collect()
    }

    /// Why the run proves nothing, if a link is not what the testnet asks for, and stays so.
    fn see_links(&mut self, now_ms: u64, observed: &Observed) -> Option<String> {
        let Some(problem) = &observed.link_problem else {
            self.links_off_since_ms = None;
            return None;
        };
        let since_ms = *self.links_off_since_ms.get_or_insert(now_ms);
        (now_ms.saturating_sub(since_ms) > PROOF_MS).then(|| {
            format!("a link was not what the testnet asks for: {problem}, for {}", seconds(PROOF_MS))
        })
    }

    /// What the experiment does not want to go on watching, once its baseline is over.
    fn given_up(&self, now_ms: u64) -> Option<String> {
        let abort = self.abort.filter(|_| matches!(self.phase, Phase::Running | Phase::Recovering))?;
        let last_ms = self.nodes.advanced_at_ms.max(self.zero_ms)?;
        let silent_ms = now_ms.saturating_sub(last_ms);
        let most_ms = abort.silent.map(|silent| silent.as_millis() as u64);
        most_ms
            .is_some_and(|most_ms| silent_ms > most_ms.saturating_add(REPORT_GRACE_MS))
            .then(|| format!("no block was final for {}: `abort` wants no more of it", seconds(silent_ms)))
    }

    /// Ends that do not wait for the plan.
    fn decide(&mut self, log: &mut Log<'_>, invalid: Vec<String>, abort: Option<&String>) {
        let forked = matches!(&self.ending, Some(ending) if ending.phase == Phase::Failed);
        if let Some(parted) = self.parted().filter(|_| !forked) {
            let mut judges = std::mem::take(&mut self.expect);
            let view = self.view(log.now_ms, false);
            for judge in judges.iter_mut().filter(|judge| judge.is_of_safety()) {
                judge.judge(&view);
            }
            self.expect = judges;
            log.note(TimelineKind::Fork, parted.clone());
            self.end(log, Phase::Failed, vec![parted]);
        } else if self.ending.is_none() {
            if let Some(why) = abort {
                self.end(log, Phase::Aborted, vec![why.clone()]);
            } else if !invalid.is_empty() {
                self.end(log, Phase::Invalid, invalid);
            }
        }
    }

    /// How nodes have come to differ, if they have.
    fn parted(&self) -> Option<String> {
        let validity = self.validity.as_ref().and_then(Validity::conflict);
        let fork =
            self.agreement.conflict().map(|fork| format!("fork: {}", judge::fork_text(fork, &self.nodes)));
        fork.or_else(|| {
            validity.map(|conflict| format!("two states: {}", judge::states_text(conflict, &self.nodes)))
        })
    }

    fn end(&mut self, log: &Log<'_>, phase: Phase, reasons: Vec<String>) {
        self.ending = Some(Ending { phase, reasons, at_ms: log.now_ms });
    }

    fn enter(&mut self, log: &mut Log<'_>, phase: Phase, text: &str) {
        self.phase = phase;
        log.note(TimelineKind::Phase, format!("{phase}: {text}"));
    }

    /// The plan itself. Several phases may pass in one step.
    fn move_on(&mut self, log: &mut Log<'_>) {
        if self.phase == Phase::Pending {
            self.pending(log);
        }
        if self.phase == Phase::Baseline {
            self.baseline(log);
        }
        if matches!(self.phase, Phase::Running | Phase::Recovering)
            && let Some(zero_ms) = self.zero_ms
        {
            self.run(log, zero_ms);
        }
    }

    fn pending(&mut self, log: &mut Log<'_>) {
        let now_ms = log.now_ms;
        if self.is_plain() {
            self.zero_ms = Some(now_ms);
            self.enter(log, Phase::Running, "a plain fault, nothing is expected");
        } else if let Some(node) = self.nodes.unwatched(|_| false) {
            if now_ms.saturating_sub(self.started_ms) > PENDING_MS {
                let what = if node.up { "answered" } else { "ran" };
                let why = format!("{} never {what} within {}", node.name, seconds(PENDING_MS));
                self.end(log, Phase::Invalid, vec![why]);
            }
        } else {
            self.zero_ms = Some(now_ms);
            self.baseline_heights = self.nodes.list.iter().map(|node| node.height).collect();
            self.enter(log, Phase::Baseline, "every node runs; is the chain alive?");
        }
    }

    fn baseline(&mut self, log: &mut Log<'_>) {
        let now_ms = log.now_ms;
        let began_ms = self.zero_ms.unwrap_or(now_ms);
        let waited_ms = now_ms.saturating_sub(began_ms);
        if waited_ms < self.baseline_ms {
            return;
        }
        let fresh_ms = FRESH_MS.max(4 * self.block_time_ms);
        let dead = self.nodes.list.iter().zip(&self.baseline_heights).find(|(node, height)| {
            let is_fresh = node.last_final_at_ms.is_some_and(|at| now_ms.saturating_sub(at) <= fresh_ms);
            node.up && (node.height <= **height || !is_fresh)
        });
        let none_runs = !self.nodes.list.iter().any(|node| node.up);
        if dead.is_none() && !none_runs {
            // Faults are timed from the baseline's end, however long it took.
            self.zero_ms = Some(now_ms - self.baseline_ms);
            self.enter(log, Phase::Running, "the chain makes progress on every node");
            return;
        }
        let most_ms = BASELINE_WAIT_MS.max(20 * self.block_time_ms);
        if waited_ms > self.baseline_ms.saturating_add(most_ms) {
            let node = dead.map_or("no node runs".to_owned(), |(node, _)| {
                format!("no new final block on {}", node.name)
            });
            let why = format!(
                "the chain was not making progress before the fault, so this proves nothing: {node} after {}",
                seconds(waited_ms)
            );
            let why = match self.pressure.excuse(began_ms, now_ms) {
                Some(excuse) => format!("{excuse}; {why}"),
                None => why,
            };
            self.end(log, Phase::Invalid, vec![why]);
        }
    }

    fn run(&mut self, log: &mut Log<'_>, zero_ms: u64) {
        for (n, fault) in self.faults.iter_mut().enumerate() {
            let healing = fault.heal_asked_at_ms.is_some();
            fault.drive(log, zero_ms);
            if !healing && fault.heal_asked_at_ms.is_some() {
                self.expect.iter_mut().for_each(|judge| judge.heal_asked(n, self.nodes.height));
            }
        }
        if self.phase == Phase::Running && self.faults.iter().all(|fault| fault.heal_asked_at_ms.is_some()) {
            self.enter(log, Phase::Recovering, "every fault is over");
        }
        let over = self.faults.iter().all(FaultState::is_over);
        let healed_ms = self.faults.iter().filter_map(|fault| fault.healed_at_ms).max();
        let from_ms = healed_ms.unwrap_or(zero_ms + self.baseline_ms);
        let settled = over && log.now_ms >= from_ms.saturating_add(self.settle_ms);
        self.judge(log, false);
        let decided = self.expect.iter().all(|judge| judge.waits_for_end() || judge.result.is_some());
        if settled && decided {
            self.judge(log, true);
            self.conclude(log);
        }
    }

    fn judge(&mut self, log: &mut Log<'_>, at_end: bool) {
        let mut judges = std::mem::take(&mut self.expect);
        let view = self.view(log.now_ms, at_end);
        for judge in &mut judges {
            if judge.judge(&view) {
                let result = judge.result();
                log.note(
                    TimelineKind::Expectation,
                    format!("{}: {}, {}", result.text, result.outcome, result.detail),
                );
            }
        }
        self.expect = judges;
    }

    fn view(&self, now_ms: u64, at_end: bool) -> View<'_> {
        View {
            now_ms,
            nodes: &self.nodes,
            faults: &self.faults,
            pressure: &self.pressure,
            agreement: &self.agreement,
            validity: self.validity.as_ref(),
            load: &self.load,
            zero_ms: self.zero_ms.unwrap_or(now_ms),
            at_end,
        }
    }

    /// All is judged.
    fn conclude(&mut self, log: &Log<'_>) {
        let results: Vec<ExpectationResult> = self.expect.iter().map(Judge::result).collect();
        let of = |outcome: Outcome| {
            let found = results.iter().filter(move |result| result.outcome == outcome);
            found.map(|result| format!("{}: {}", result.text, result.detail)).collect::<Vec<_>>()
        };
        let (failed, invalid) = (of(Outcome::Failed), of(Outcome::Invalid));
        let phase = if !failed.is_empty() {
            Phase::Failed
        } else if invalid.is_empty() {
            Phase::Passed
        } else {
            Phase::Invalid
        };
        self.end(log, phase, failed.into_iter().chain(invalid).collect());
    }

    /// The verdict, once every fault is healed or has been given time enough.
    fn finish(&mut self, log: &mut Log<'_>) -> Option<Verdict> {
        let ending = self.ending.as_ref()?;
        let out: Vec<&str> =
            self.faults.iter().filter(|fault| fault.is_out()).map(|fault| fault.plan.id.as_str()).collect();
        if !out.is_empty() && log.now_ms.saturating_sub(ending.at_ms) <= PROOF_MS {
            return None;
        }
        let mut reasons = ending.reasons.clone();
        for id in out {
            reasons.push(format!("the heal of `{id}` could not be confirmed: its lease ends it by itself"));
        }
        for node in self.nodes.list.iter().filter(|node| node.exited_at_ms.is_some()) {
            reasons.push(format!("{} exited during the run, though no fault asked for it", node.name));
        }
        let zero_ms = self.zero_ms.unwrap_or(self.started_ms);
        let verdict = Verdict {
            phase: ending.phase,
            expectations: self.expect.iter().map(Judge::result).collect(),
            reasons,
            lasted_ms: log.now_ms.saturating_sub(zero_ms),
        };
        self.phase = verdict.phase;
        log.note(TimelineKind::Verdict, verdict.phase.as_str());
        self.verdict = Some(verdict.clone());
        Some(verdict)
    }

    /// Follows the chain's highest final height.
    fn note_finality(&mut self, log: &mut Log<'_>, fresh: &[Fresh]) {
        let mut blocks: Vec<&Fresh> = fresh.iter().collect();
        blocks.sort_by_key(|block| (block.height, block.at_ms));
        for block in blocks {
            if block.height <= self.nodes.height {
                continue;
            }
            self.nodes.height = block.height;
            let before_ms = self.nodes.advanced_at_ms.max(self.zero_ms).unwrap_or(block.at_ms);
            // Blocks of one moment may be reported in any order; time does not go back.
            let at_ms = block.at_ms.max(self.nodes.advanced_at_ms.unwrap_or(0));
            self.nodes.advanced_at_ms = Some(at_ms);
            if matches!(self.phase, Phase::Running | Phase::Recovering) {
                let pause_ms = at_ms.saturating_sub(before_ms);
                self.expect.iter_mut().for_each(|judge| judge.advanced(pause_ms, at_ms));
            }
            if std::mem::take(&mut self.silent) {
                log.note_at(
                    at_ms,
                    TimelineKind::FinalityResumed,
                    format!("finality goes on at height {}", block.height),
                );
            }
        }
        let quiet_ms = FRESH_MS.max(4 * self.block_time_ms) + REPORT_GRACE_MS / 2;
        let last_ms = self.nodes.advanced_at_ms.unwrap_or(u64::MAX);
        if !self.silent && log.now_ms.saturating_sub(last_ms) > quiet_ms {
            self.silent = true;
            log.note_at(
                last_ms,
                TimelineKind::FinalityStopped,
                format!("no block was final after height {}", self.nodes.height),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wall clock may be set back; the run's time then stands still.
    #[test]
    fn time_does_not_go_back() {
        let experiment = ValidExperiment {
            name: "e".to_owned(),
            testnet: "t".to_owned(),
            nodes: vec!["a-0".to_owned()],
            block_time: std::time::Duration::from_millis(500),
            baseline: std::time::Duration::ZERO,
            settle: std::time::Duration::ZERO,
            faults: Vec::new(),
            picks: Vec::new(),
            expect: Vec::new(),
            abort: None,
        };
        let (state, _) = step(&start(&experiment, 10_000), 4_000, &Observed::default());
        assert_eq!((state.last_step_ms, state.zero_ms()), (10_000, Some(10_000)));
    }
}
