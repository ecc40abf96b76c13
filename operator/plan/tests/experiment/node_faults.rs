//! Faults of nodes: what is asked of them is told apart from what they do by themselves.

use crate::world::{Run, STEP, World, after, experiment};
use netsplit_plan::NodeFault;
use netsplit_plan::experiment::{Action, Observed, Outcome, Phase, TimelineKind};

const KILL: &str = "faults: [{name: crash, at: 5s, for: 5s, kill: [validator-1]}]";
const EXPECT: &str = "expect: [{progress: {within: 3s}}, {recover: {within: 5s}}, {agreement: {}}]";

fn run(world: &mut World, faults: &str, expect: &str) -> Run {
    world.run(&experiment(&format!("{faults}\n  {expect}")), &|_| false)
}

fn outcomes(run: &Run) -> Vec<Outcome> {
    run.verdict.expectations.iter().map(|result| result.outcome).collect()
}

fn told(run: &Run) -> String {
    let texts: Vec<&str> = run.state.timeline().iter().map(|event| event.text.as_str()).collect();
    texts.join("\n")
}

#[test]
fn a_validator_that_is_killed_holds_up_nobody_and_comes_back() {
    let mut world = World::default();
    let run = run(&mut world, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:?}", run.verdict);
    assert!(run.verdict.reasons.is_empty(), "{:?}", run.verdict.reasons);
    let (_, id, rects) = &world.applied[0];
    assert_eq!((id.as_str(), rects.len()), ("crash", 0));
    let story = told(&run);
    for line in ["validator-1 is down, as a fault asks", "crash proven", "validator-1 runs again"] {
        assert!(story.contains(line), "{line}: {story}");
    }
    assert!(!story.contains("though no fault asked"), "{story}");
}

#[test]
fn what_is_asked_of_a_node_is_in_the_action() {
    let valid = experiment("faults: [{at: 0, for: 5s, pause: [full, full-1]}]");
    let state = netsplit_plan::experiment::start(&valid, 1_000);
    let (_, actions) = netsplit_plan::experiment::step(&state, 1_100, &Observed::default());
    let held = actions.iter().find_map(|action| match action {
        Action::ApplyFault { held, .. } => held.clone(),
        _ => None,
    });
    assert_eq!(held.map(|held| (held.what, held.nodes)), Some((NodeFault::Pause, vec![4, 5])));
}

#[test]
fn a_node_that_exits_by_itself_beside_one_that_is_killed_is_told() {
    let up = |node, now| node != 5 || now < 7_000;
    let run = run(&mut World { up: Box::new(up), ..World::default() }, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Failed, "{:?}", run.verdict);
    let reasons = run.verdict.reasons.join("\n");
    assert!(reasons.contains("full-1 exited during the run, though no fault asked for it"), "{reasons}");
    assert!(!reasons.contains("validator-1 exited"), "{reasons}");
}

#[test]
fn a_killed_node_that_makes_no_blocks_has_not_recovered() {
    let run = run(&mut World { lost_node: Some(1), ..World::default() }, KILL, EXPECT);
    assert_eq!(outcomes(&run), [Outcome::Passed, Outcome::Failed, Outcome::Passed], "{:?}", run.verdict);
    assert!(run.verdict.reasons[0].contains("validator-1"), "{:?}", run.verdict.reasons);
}

#[test]
fn a_node_that_does_not_run_after_the_heal_is_not_healed() {
    let up = |node, now| node != 1 || now < 9_000;
    let run = run(&mut World { up: Box::new(up), ..World::default() }, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Invalid, "{:?}", run.verdict);
    let reasons = run.verdict.reasons.join("\n");
    assert!(reasons.contains("its nodes were not seen running within"), "{reasons}");
}

/// Two words of one node: that its fault is over, and, a little later, that it runs.
#[test]
fn a_node_that_is_told_to_run_after_its_fault_was_told_to_be_over_did_not_exit() {
    let up = |node, now| node != 1 || !(5_300..10_600).contains(&now);
    let mut world = World { up: Box::new(up), confirms_after: 0, ..World::default() };
    let run = run(&mut world, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:?}", run.verdict);
    assert!(!told(&run).contains("though no fault asked"), "{}", told(&run));
}

/// Whoever holds the nodes keeps time too, and was a little earlier than the state machine.
#[test]
fn a_node_that_is_slow_to_run_after_its_fault_ended_by_itself_did_not_exit() {
    let up = |node, now| node != 1 || !(5_300..10_900).contains(&now);
    let mut world = World { up: Box::new(up), opens_at: Some(10_150), confirms_after: 0, ..World::default() };
    let run = run(&mut world, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:?}", run.verdict);
    assert!(!told(&run).contains("though no fault asked"), "{}", told(&run));
}

#[test]
fn half_the_validators_down_is_a_stall() {
    let faults = "faults: [{name: crash, at: 5s, for: 8s, kill: [validator-0, validator-1]}]";
    let expect = "expect: [{stall: {within: 2s}}, {recover: {within: 5s}}, {agreement: {}}]";
    let run = run(&mut World::default(), faults, expect);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:?}", run.verdict);
}

#[test]
fn a_stall_of_nobody_who_could_speak_proves_nothing() {
    let faults = "faults: [{name: crash, at: 5s, for: 8s, kill: [validator, full]}]";
    let run = run(&mut World::default(), faults, "expect: [{stall: {within: 2s}}]");
    assert_eq!(run.verdict.phase, Phase::Invalid, "{:?}", run.verdict);
    assert!(run.verdict.reasons[0].contains("held every node"), "{:?}", run.verdict.reasons);
}

/// Its stream is away since it hangs, which is no reason not to judge the others.
#[test]
fn a_paused_node_is_not_one_that_cannot_be_watched() {
    let faults = "faults: [{name: hang, at: 5s, for: 8s, pause: [validator-0, validator-1]}]";
    let run = run(&mut World::default(), faults, "expect: [{progress: {within: 3s}}]");
    assert_eq!(run.verdict.phase, Phase::Failed, "{:?}", run.verdict);
    assert!(run.verdict.reasons[0].contains("no block was final"), "{:?}", run.verdict.reasons);
}

/// A pause asks for no exit.
#[test]
fn a_node_that_exits_while_it_is_paused_does_so_by_itself() {
    let faults = "faults: [{name: hang, at: 5s, for: 8s, pause: [validator-0]}]";
    let up = |node, now| node != 0 || now < 8_000;
    let run = run(&mut World { up: Box::new(up), ..World::default() }, faults, EXPECT);
    let reasons = run.verdict.reasons.join("\n");
    assert!(reasons.contains("validator-0 exited during the run, though no fault asked"), "{reasons}");
}

#[test]
fn an_unproven_kill_is_invalid() {
    let run = run(&mut World { proves: Box::new(|_| false), ..World::default() }, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Invalid, "{:?}", run.verdict);
}

#[test]
fn nothing_is_expected_of_a_node_that_another_fault_holds() {
    let faults = "faults: [{name: away, at: 5s, for: 20s, kill: [full-1]}, {name: crash, at: 6s, for: 5s, kill: [validator-1]}]";
    let expect = "expect: [{recover: {within: 5s, after: crash}}, {recover: {within: 5s, after: away}}]";
    let run = run(&mut World::default(), faults, expect);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:?}", run.verdict);
    let detail = &run.verdict.expectations[0].detail;
    assert!(detail.starts_with("every node that no other fault held"), "{detail}");
}

#[test]
fn a_node_that_is_taken_down_again_before_it_was_back_proves_nothing() {
    let faults = "faults: [{name: one, at: 5s, for: 5s, kill: [validator-1]}, {name: two, at: 12s, for: 5s, kill: [validator-1]}]";
    let expect = "expect: [{recover: {within: 5s, after: one}}]";
    let run = run(&mut World { lost_node: Some(1), ..World::default() }, faults, expect);
    assert_eq!(outcomes(&run), [Outcome::Invalid], "{:?}", run.verdict);
    assert!(run.verdict.expectations[0].detail.contains("took validator-1 down"), "{:?}", run.verdict);
}

/// The caller dies at one step, whichever it is: the end is the same.
#[test]
fn a_restart_at_any_step_changes_no_outcome() {
    let valid = experiment(&format!("{KILL}\n  {EXPECT}"));
    let last = World::default().run(&valid, &|_| false).ended_at / STEP;
    for crash in 1..=last {
        let mut world = World { thorough: false, ..World::default() };
        let run = world.run(&valid, &|tick| tick == crash);
        assert_eq!(run.verdict.phase, Phase::Passed, "crash at step {crash}: {:?}", run.verdict);
        assert!(!run.state.timeline().iter().any(|event| event.kind == TimelineKind::Fork));
    }
}

#[test]
fn a_violated_kill_is_invalid() {
    let run = run(&mut World { violated: after(7_000), ..World::default() }, KILL, EXPECT);
    assert_eq!(run.verdict.phase, Phase::Invalid, "{:?}", run.verdict);
}
