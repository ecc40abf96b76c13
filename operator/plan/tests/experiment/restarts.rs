//! Restarts of the caller at any step, and observations of any kind.

use crate::world::{EPOCH, Run, STEP, World, after, split_brain, split_brain_experiment};
use netsplit_plan::experiment::{Action, FaultObserved, FinalBlock, NodeObserved, Observed, start, step};
use proptest::prelude::*;

/// Worlds for the property below, by number.
fn some_world(kind: usize) -> World {
    let w = World::default;
    match kind {
        0 => w(),
        1 => World { ignores_cuts: true, ..w() },
        2 => World { recovers_after: None, ..w() },
        3 => World { applies: false, ..w() },
        4 => World { proves: Box::new(|_| false), ..w() },
        5 => World { violated: after(12_000), ..w() },
        6 => World { heals: false, ..w() },
        7 => World { forks_at: Some(15), ..w() },
        8 => World { dead: Box::new(|_| true), ..w() },
        _ => World { abort_at: Some(12_000), ..w() },
    }
}

const WORLDS: usize = 10;

/// The caller dies at one step, whichever it is: the end is the same.
#[test]
fn a_restart_at_any_step_changes_no_outcome() {
    for kind in 0..WORLDS {
        let expected = split_brain(&mut some_world(kind));
        let last = expected.ended_at / STEP;
        for crash in 1..=last {
            let mut world = World { thorough: false, ..some_world(kind) };
            let run = world.run(&split_brain_experiment(), &|tick| tick == crash);
            same(&expected, &run, &format!("world {kind}, crash at step {crash}"));
            assert_eq!(world.is_cut(), !world.heals, "world {kind}, crash at step {crash}");
        }
    }
}

fn same(expected: &Run, run: &Run, what: &str) {
    assert_eq!(run.verdict.phase, expected.verdict.phase, "{what}");
    let outcomes =
        |run: &Run| run.verdict.expectations.iter().map(|result| result.outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(run), outcomes(expected), "{what}");
    assert_eq!(run.phases, expected.phases, "{what}");
    assert_eq!(run.state.active_faults().count(), 0, "{what}");
    assert!(
        run.ended_at.abs_diff(expected.ended_at) <= 3 * STEP,
        "{what}: {} {}",
        run.ended_at,
        expected.ended_at
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The caller dies at many steps.
    #[test]
    fn restarts_at_many_steps_change_no_outcome(kind in 0..WORLDS, every in 3u64..40, offset in 0u64..40) {
        let expected = split_brain(&mut some_world(kind));
        let crashes = move |tick: u64| tick % every == offset % every;
        let run = World { thorough: false, ..some_world(kind) }.run(&split_brain_experiment(), &crashes);
        prop_assert_eq!(run.verdict.phase, expected.verdict.phase);
    }

    /// Whatever the observer says, no step panics, and every fault that was asked for is healed before the end.
    #[test]
    fn wild_observations_are_survived(seed in prop::collection::vec((0u64..4_000, 0usize..6, 0u64..40, any::<u8>()), 1..60)) {
        wild(&seed);
    }
}

fn wild(script: &[(u64, usize, u64, u8)]) {
    let mut state = start(&split_brain_experiment(), EPOCH);
    let (mut now, mut asked, mut healed) = (EPOCH, 0, 0);
    for _ in 0..40 {
        for (gap, node, height, bits) in script {
            // Time may stand still, or be set back.
            now = if bits & 64 > 0 { now.saturating_sub(*gap) } else { now + gap };
            let bit = |n: u8| bits & (1 << n) > 0;
            let mut nodes: Vec<NodeObserved> = (0..6)
                .map(|index| NodeObserved {
                    name: if index < 4 {
                        format!("validator-{index}")
                    } else {
                        format!("full-{}", index - 4)
                    },
                    up: !bit(0) || index != *node,
                    following: !bit(1) || index != *node,
                    ..NodeObserved::default()
                })
                .collect();
            let id = format!("{height}{}", if bit(2) && bit(3) && bit(4) { "x" } else { "" });
            nodes[*node].new_blocks =
                vec![FinalBlock { height: *height, id, at_ms: now.saturating_sub(*gap), state_root: None }];
            let faults = vec![FaultObserved {
                id: "split".to_owned(),
                applied_at_ms: bit(3).then_some(now),
                proven: bit(4),
                violations: Vec::new(),
                healed_at_ms: bit(5).then_some(now),
                confirmed_open: bit(5),
            }];
            let (next, actions) = step(&state, now, &Observed { nodes, faults, ..Observed::default() });
            state = next;
            for action in actions {
                match action {
                    Action::ApplyFault { .. } => asked += 1,
                    Action::HealFault { .. } => healed += 1,
                    Action::Finish(verdict) => {
                        assert!(verdict.phase.is_final());
                        assert!(asked == 0 || healed > 0, "{asked} {healed}");
                        return;
                    }
                    Action::Note(_) => {}
                }
            }
        }
    }
}
