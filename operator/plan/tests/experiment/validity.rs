//! States that must be one: what nodes tell of them, and what becomes of the run.

use netsplit_plan::experiment::{Outcome, Phase, TimelineKind};

use crate::world::{Run, World, experiment};

fn run(world: &mut World) -> Run {
    let fields = "faults: [{name: split, at: 2s, for: 5s, \
                  partition: [[validator-0, validator-1, full-0], [validator-2, validator-3, full-1]]}]\n  \
                  expect: [{agreement: {}}, {validity: {}}]";
    world.run(&experiment(fields), &|_| false)
}

fn outcomes(run: &Run) -> Vec<Outcome> {
    run.verdict.expectations.iter().map(|result| result.outcome).collect()
}

#[test]
fn equal_states_pass() {
    let run = run(&mut World::default());
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
    let validity = &run.verdict.expectations[1];
    assert_eq!(validity.text, "validity");
    assert!(validity.detail.contains(" states compared, to height "), "{}", validity.detail);
}

/// As a fork, it ends the run at once; the blocks themselves are the same.
#[test]
fn one_node_with_another_state_fails_at_once_with_names_and_height() {
    let root =
        |node: usize, height| Some(format!("{}{height}", if node == 2 && height >= 13 { "x" } else { "r" }));
    let mut world = World { state_root: Box::new(root), ..World::default() };
    let run = run(&mut world);
    assert_eq!(run.verdict.phase, Phase::Failed, "{:#?}", run.verdict);
    assert_eq!(outcomes(&run), [Outcome::NotJudged, Outcome::Failed], "{:#?}", run.verdict);
    let said = "after height 13 the state of validator-0 is r13, and that of validator-2 is x13";
    assert_eq!(run.verdict.expectations[1].detail, said);
    assert_eq!(run.verdict.reasons, [format!("two states: {said}")]);
    assert!(run.state.timeline().iter().any(|event| event.kind == TimelineKind::Fork));
    // Block 13 is the third: half a second each.
    assert!(run.ended_at < 3_000, "{}", run.ended_at);
}

/// Whoever says nothing is not taken to be right.
#[test]
fn states_that_are_not_told_are_never_passed() {
    let silent = World { state_root: Box::new(|_, _| None), ..World::default() };
    let one = |node, height| (node != 4 || height != 14).then(|| format!("r{height}"));
    let one = World { state_root: Box::new(one), ..World::default() };
    for (mut world, part) in [(silent, "0 states were compared"), (one, "of 1 blocks no state was told")] {
        let run = run(&mut world);
        assert_eq!(run.verdict.phase, Phase::Invalid, "{:#?}", run.verdict);
        assert_eq!(outcomes(&run), [Outcome::Passed, Outcome::Invalid], "{:#?}", run.verdict);
        assert!(run.verdict.expectations[1].detail.contains(part), "{:#?}", run.verdict);
    }
}

/// Nobody asked: a chain that tells no state is judged by its blocks alone.
#[test]
fn states_count_only_where_they_are_expected() {
    let root = |node: usize, _| Some(node.to_string());
    let mut world = World { state_root: Box::new(root), ..World::default() };
    let run = crate::world::split_brain(&mut world);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
}

/// Different blocks lead to different states: the fork is what is told.
#[test]
fn a_fork_is_told_as_a_fork() {
    let root =
        |node: usize, height| Some(format!("{}{height}", if node == 5 && height >= 15 { "x" } else { "r" }));
    let mut world = World { forks_at: Some(15), state_root: Box::new(root), ..World::default() };
    let run = run(&mut world);
    assert_eq!(run.verdict.phase, Phase::Failed);
    assert_eq!(outcomes(&run), [Outcome::Failed, Outcome::Failed], "{:#?}", run.verdict);
    assert!(run.verdict.reasons[0].starts_with("fork: at height 15"), "{:#?}", run.verdict);
}
