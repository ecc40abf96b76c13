//! Every way in which a run can end.

use crate::world::{EPOCH, STEP, When, World, after, experiment, split_brain};
use netsplit_plan::CutRect;
use netsplit_plan::experiment::{ExitCode, HostPressure, Outcome, Phase, TimelineKind, limits};

fn between(from: u64, to: u64) -> When {
    Box::new(move |now| (from..to).contains(&now))
}

/// The phase, the outcomes in the order of `ALL`, and a part of the reasons or the details.
fn ends(name: &str, mut world: World, phase: Phase, outcomes: [Outcome; 3], part: &str) {
    let run = split_brain(&mut world);
    let verdict = &run.verdict;
    let said: Vec<&str> = verdict
        .reasons
        .iter()
        .map(String::as_str)
        .chain(verdict.expectations.iter().map(|result| result.detail.as_str()))
        .collect();
    assert_eq!(verdict.phase, phase, "{name}: {verdict:#?}");
    let seen: Vec<Outcome> = verdict.expectations.iter().map(|result| result.outcome).collect();
    assert_eq!(seen, outcomes, "{name}: {verdict:#?}");
    assert!(said.iter().any(|line| line.contains(part)), "{name}: {part} not in {said:#?}");
    assert!(verdict.phase == Phase::Passed || !verdict.reasons.is_empty(), "{name}");
    // Whatever the end: what was applied is healed.
    assert_eq!(world.is_cut(), !world.heals && !world.applied.is_empty(), "{name}");
    let unhealed = said.iter().any(|line| line.contains("could not be confirmed"));
    assert_eq!(unhealed, !world.heals && !world.applied.is_empty(), "{name}: {said:#?}");
    assert_eq!(run.state.timeline().last().map(|event| event.kind), Some(TimelineKind::Verdict), "{name}");
    assert_eq!(run.phases.last(), Some(&phase), "{name}");
}

/// A run must not take the fault of the run before it, which had the same name, for its own.
#[test]
fn the_fault_of_an_earlier_run_proves_nothing() {
    let mut world = World { tells_old_news: true, ..World::default() };
    let run = split_brain(&mut world);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
    assert_eq!(world.applied.len(), 1, "the fault was never made");
    let world = World { tells_old_news: true, applies: false, ..World::default() };
    ends("not applied", world, Phase::Invalid, [N, N, N], "not applied");
}

use Outcome::{Failed as F, Invalid as I, NotJudged as N, Passed as P};

#[test]
fn a_good_run_passes_with_its_measurements() {
    let mut world = World::default();
    let run = split_brain(&mut world);
    let verdict = &run.verdict;
    assert_eq!(verdict.phase, Phase::Passed, "{verdict:#?}");
    assert_eq!(
        run.phases,
        [Phase::Pending, Phase::Baseline, Phase::Running, Phase::Recovering, Phase::Passed]
    );
    assert_eq!(verdict.exit_code(), ExitCode::Passed);
    assert_eq!(verdict.reasons, Vec::<String>::new());
    // Pending takes the first step; 5 s of baseline, then the fault at once, for exactly 15 s after it was applied.
    let sides = [vec![0, 1, 4], vec![2, 3, 5]];
    let rects =
        [(0, 1), (1, 0)].map(|(from, to)| CutRect { from: sides[from].clone(), to: sides[to].clone() });
    assert_eq!(world.applied, [(5_100, "split".to_owned(), rects.to_vec())]);
    assert_eq!(world.healed, [(20_200, "split".to_owned())]);
    let measured: Vec<Option<u64>> = verdict.expectations.iter().map(|result| result.measured_ms).collect();
    // The heal was in place at 20,205; the first block after it came at 20,205 + 700, rounded up to a tick.
    assert_eq!(measured[1], Some(21_000 + 5 - 20_205), "{verdict:#?}");
    assert!(measured[0].is_some_and(|ms| ms <= world.in_flight), "{verdict:#?}");
    assert_eq!(measured[2], None);
    // Two seconds of settling after the heal.
    assert_eq!((run.ended_at, verdict.lasted_ms), (22_300, 22_200));
    let kinds: Vec<TimelineKind> = run.state.timeline().iter().map(|event| event.kind).collect();
    for kind in [
        TimelineKind::FaultApplied,
        TimelineKind::FaultProven,
        TimelineKind::FinalityStopped,
        TimelineKind::FaultHealed,
        TimelineKind::FinalityResumed,
        TimelineKind::Expectation,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} not in {kinds:?}");
    }
}

#[test]
fn a_chain_that_misbehaves_fails() {
    let w = World::default;
    ends("never stalls", World { ignores_cuts: true, ..w() }, Phase::Failed, [F, P, P], "still made height");
    ends("stalls too late", World { in_flight: 6_000, ..w() }, Phase::Failed, [F, P, P], "final 5.");
    ends(
        "never recovers",
        World { recovers_after: None, ..w() },
        Phase::Failed,
        [P, F, P],
        "no new final block 5.00s after the heal on validator-0",
    );
    ends(
        "recovers late",
        World { recovers_after: Some(5_500), ..w() },
        Phase::Failed,
        [P, F, P],
        "had a new final block only 5.",
    );
    ends(
        "one node lost",
        World { lost_node: Some(4), ..w() },
        Phase::Failed,
        [P, F, P],
        "after the heal on full-0",
    );
    ends(
        "a fork",
        World { forks_at: Some(15), ..w() },
        Phase::Failed,
        [N, N, F],
        "at height 15 validator-0 made a0015 final, and full-1 made b0015 final",
    );
    ends(
        "a fork after the heal",
        World { forks_at: Some(22), ..w() },
        Phase::Failed,
        [P, P, F],
        "fork: at height 22",
    );
}

#[test]
fn a_run_that_proves_nothing_is_invalid() {
    let w = World::default;
    ends(
        "dead before",
        World { dead: Box::new(|_| true), ..w() },
        Phase::Invalid,
        [N; 3],
        "was not making progress before the fault",
    );
    ends(
        "dies in the baseline",
        World { dead: after(2_000), ..w() },
        Phase::Invalid,
        [N; 3],
        "was not making progress before the fault",
    );
    ends(
        "one node is dead before",
        World { up: Box::new(|node, _| node != 3), ..w() },
        Phase::Invalid,
        [N; 3],
        "validator-3 never ran within 60.0s",
    );
    ends(
        "never applied",
        World { applies: false, ..w() },
        Phase::Invalid,
        [N; 3],
        "asked for but not applied within 5.00s",
    );
    ends(
        "never proven",
        World { proves: Box::new(|_| false), ..w() },
        Phase::Invalid,
        [N; 3],
        "applied, but without proof for 5.00s",
    );
    ends(
        "proof lapses",
        World { proves: Box::new(|now| now < 9_000), ..w() },
        Phase::Invalid,
        [N; 3],
        "without proof for 5.00s",
    );
    ends(
        "a probe crosses",
        World { violated: after(12_000), ..w() },
        Phase::Invalid,
        [N; 3],
        "12 probes crossed from full-0 to full-1",
    );
    ends(
        "never healed",
        World { heals: false, ..w() },
        Phase::Invalid,
        [P, N, N],
        "could not be healed within 5.00s",
    );
    ends(
        "never open",
        World { confirms: false, ..w() },
        Phase::Invalid,
        [P, N, N],
        "its links were not seen open",
    );
    ends(
        "blocks lost",
        World { loses_blocks: 3, ..w() },
        Phase::Invalid,
        [P, P, I],
        "18 blocks could not be compared",
    );
}

/// The caller has a timer of its own for a fault's end, and may be first by a moment.
#[test]
fn a_fault_that_ends_a_moment_early_is_judged_to_its_real_end() {
    let early = |opens_at| World { opens_at: Some(opens_at), recovers_after: Some(10), ..World::default() };
    // Links open at 20,000 and the next block is final right after, before the state machine's own time.
    let run = split_brain(&mut early(20_000));
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
    assert!(run.verdict.expectations[1].measured_ms.is_some_and(|ms| ms < 200), "{:#?}", run.verdict);
    // The same, learned a step late: the block came before that step, but after the links had opened.
    let mut late = World { asleep: Box::new(|now| now == 20_000), ..early(19_950) };
    assert_eq!(split_brain(&mut late).verdict.phase, Phase::Passed);
    ends("ended from outside", early(12_000), Phase::Invalid, [N; 3], "was ended from outside after 6.8");
}

/// Between the two its links were open, however short that was.
#[test]
fn a_fault_that_was_applied_twice_proves_nothing() {
    let twice = World { applied_anew_at: Some(12_000), ..World::default() };
    ends("applied twice", twice, Phase::Invalid, [N; 3], "it was applied anew after 6.");
}

#[test]
fn an_overloaded_host_excuses_a_miss_and_only_a_miss() {
    let w = World::default;
    let lag = |from: u64, to: u64| -> Box<dyn Fn(u64) -> HostPressure> {
        Box::new(move |now| HostPressure {
            lag_p99_ms: if (from..to).contains(&now) { 400.0 } else { 1.0 },
            ..HostPressure::default()
        })
    };
    let cpu = |share: f64| -> Box<dyn Fn(u64) -> HostPressure> {
        Box::new(move |_| HostPressure { cpu_pressure: Some(share), ..HostPressure::default() })
    };
    ends("passes all the same", World { host: cpu(1.0), ..w() }, Phase::Passed, [P; 3], "compared");
    ends(
        "late and overloaded",
        World { recovers_after: Some(5_500), host: lag(23_000, 24_000), ..w() },
        Phase::Invalid,
        [P, I, P],
        "host overloaded: scheduling lag of 400 ms",
    );
    ends(
        "late, overloaded before",
        World { recovers_after: Some(5_500), host: lag(1_000, 4_000), ..w() },
        Phase::Failed,
        [P, F, P],
        "only 5.",
    );
    ends(
        "late under busy loops",
        World { recovers_after: None, host: cpu(0.97), ..w() },
        Phase::Invalid,
        [P, I, P],
        "tasks waited for a CPU 97 %",
    );
    ends(
        "late under normal load",
        World { recovers_after: None, host: cpu(0.7), ..w() },
        Phase::Failed,
        [P, F, P],
        "no new final block",
    );
    let steal: Box<dyn Fn(u64) -> HostPressure> =
        Box::new(|_| HostPressure { steal: Some(0.5), ..HostPressure::default() });
    ends(
        "steal",
        World { recovers_after: None, host: steal, ..w() },
        Phase::Invalid,
        [P, I, P],
        "50 % of the CPU time was stolen",
    );
    ends(
        "stall missed",
        World { ignores_cuts: true, host: cpu(0.97), ..w() },
        Phase::Invalid,
        [I, P, P],
        "host overloaded",
    );
    ends(
        "the observer slept",
        World { recovers_after: Some(5_500), asleep: between(22_000, 24_000), ..w() },
        Phase::Invalid,
        [P, I, P],
        "the observer could not look for 2100 ms",
    );
    ends(
        "a fork is never excused",
        World { forks_at: Some(15), host: cpu(1.0), ..w() },
        Phase::Failed,
        [N, N, F],
        "fork",
    );
    ends(
        "dead before",
        World { dead: Box::new(|_| true), host: cpu(1.0), ..w() },
        Phase::Invalid,
        [N; 3],
        "host overloaded: tasks waited",
    );
}

#[test]
fn nodes_that_exit_are_told_and_judged_with_care() {
    let w = World::default;
    let exits = |node: usize, from: u64, to: u64| -> Box<dyn Fn(usize, u64) -> bool> {
        Box::new(move |index, now| index != node || !(from..to).contains(&now))
    };
    let told = "exited during the run, though no fault asked for it";
    ends(
        "in the fault",
        World { up: exits(1, 12_000, 15_000), ..w() },
        Phase::Invalid,
        [I, P, P],
        "validator-1 exited, so that the silence may be its doing",
    );
    ends("and stays away", World { up: exits(1, 12_000, u64::MAX), ..w() }, Phase::Failed, [I, F, P], told);
}

#[test]
fn a_node_that_exits_after_the_heal_fails_the_recovery() {
    let mut world = World { up: Box::new(|index, now| index != 1 || now < 20_300), ..World::default() };
    let run = split_brain(&mut world);
    assert_eq!(run.verdict.phase, Phase::Failed, "{:#?}", run.verdict);
    assert!(run.verdict.expectations[1].detail.contains("validator-1 (not running)"), "{:#?}", run.verdict);
}

#[test]
fn silence_of_a_node_that_is_not_watched_proves_nothing() {
    let away = |node: usize, from: u64, to: u64| -> Box<dyn Fn(usize, u64) -> bool> {
        Box::new(move |index, now| index != node || !(from..to).contains(&now))
    };
    let w = World::default;
    // The stream comes back and tells what was missed: nothing is lost.
    ends(
        "for a while",
        World { following: away(2, 12_000, 19_000), ..w() },
        Phase::Passed,
        [P; 3],
        "compared",
    );
    ends(
        "over the heal",
        World { following: away(2, 12_000, 23_000), ..w() },
        Phase::Passed,
        [P; 3],
        "compared",
    );
    ends(
        "for good",
        World { following: away(2, 12_000, u64::MAX), ..w() },
        Phase::Invalid,
        [I, I, P],
        "validator-2 could not be watched",
    );
    ends(
        "never there",
        World { following: away(2, 0, u64::MAX), ..w() },
        Phase::Invalid,
        [N; 3],
        "validator-2 never answered within 60.0s",
    );
    // A block that was final in the stall is held against it, however late it is told.
    let mut late = World { ignores_cuts: true, following: away(0, 6_000, 23_000), ..w() };
    late.up = Box::new(|_, _| true);
    ends("told late", late, Phase::Failed, [F, P, P], "still made height");
}

#[test]
fn the_baseline_waits_for_a_slow_chain_and_faults_move_with_it() {
    let mut world = World { dead: between(0, 20_000), ..World::default() };
    let run = split_brain(&mut world);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
    assert_eq!(world.applied[0].0, 20_000);
    assert_eq!(run.state.zero_ms(), Some(EPOCH + 15_000));
}

#[test]
fn an_aborted_run_heals_first() {
    for at in [50, 3_000, 5_100, 5_200, 12_000, 20_250] {
        let mut world = World { abort_at: Some(at), ..World::default() };
        let run = split_brain(&mut world);
        assert_eq!(run.verdict.phase, Phase::Aborted, "at {at}");
        assert_eq!(run.verdict.exit_code(), ExitCode::Invalid);
        assert_eq!(run.verdict.reasons, ["interrupted by the user"], "at {at}");
        assert!(!world.is_cut(), "at {at}");
        assert!(run.ended_at <= at + 3 * STEP, "at {at}: ended at {}", run.ended_at);
    }
    let mut world = World { abort_at: Some(12_000), heals: false, ..World::default() };
    let run = split_brain(&mut world);
    assert_eq!(
        run.verdict.reasons[1],
        "the heal of `split` could not be confirmed: its lease ends it by itself"
    );
    assert!(world.healed.len() >= 4, "the heal is asked for again: {:?}", world.healed);
    assert!(run.ended_at <= 12_000 + limits::PROOF_MS + 2 * STEP);
}

#[test]
fn progress_allows_no_long_pause() {
    let expect = "expect: [{progress: {within: 3s}}, agreement]";
    let fault = "faults: [{at: 5s, for: 5s, cut: {from: [validator-0], to: [full-0]}}]";
    let run = |mut world: World| {
        world.ignores_cuts = true;
        world.run(&experiment(&format!("{fault}\n  {expect}")), &|_| false).verdict
    };
    let passed = run(World::default());
    assert_eq!(passed.phase, Phase::Passed, "{passed:#?}");
    assert!(passed.expectations[0].measured_ms.is_some_and(|ms| (500..600).contains(&ms)), "{passed:#?}");
    let short = run(World { dead: between(6_000, 8_300), ..World::default() });
    assert_eq!(short.phase, Phase::Passed, "{short:#?}");
    assert!(short.expectations[0].measured_ms.is_some_and(|ms| (2_400..3_000).contains(&ms)), "{short:#?}");
    let pause = run(World { dead: between(6_000, 9_600), ..World::default() });
    assert_eq!(pause.phase, Phase::Failed, "{pause:#?}");
    let for_good = run(World { dead: after(7_000), ..World::default() });
    assert_eq!(for_good.phase, Phase::Failed, "{for_good:#?}");
    assert!(for_good.expectations[0].detail.starts_with("no block was final for 4."), "{for_good:#?}");
    let no_faults = World::default().run(&experiment("expect: [progress, agreement]"), &|_| false).verdict;
    assert_eq!(no_faults.phase, Phase::Passed, "{no_faults:#?}");
    assert_eq!(no_faults.lasted_ms, 7_000);
}

#[test]
fn a_plain_fault_waits_for_nothing_and_ends_with_its_heal() {
    let plain = experiment("faults: [{at: 0s, for: 2s, partition: [[validator], [full]]}]");
    let mut world = World { dead: Box::new(|_| true), up: Box::new(|node, _| node != 0), ..World::default() };
    let run = world.run(&plain, &|_| false);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
    assert_eq!(world.applied[0].0, STEP);
    assert_eq!(world.healed[0].0, 2_200);
    let run = World { applies: false, ..World::default() }.run(&plain, &|_| false);
    assert_eq!(run.verdict.phase, Phase::Invalid, "{:#?}", run.verdict);
}

#[test]
fn several_faults_each_have_their_time() {
    let two = "faults: [
    {name: one, at: 5s, for: 10s, partition: [[validator-0, validator-1, full-0], [validator-2, validator-3, full-1]]},
    {name: two, at: 8s, for: 12s, cut: {from: [full-0], to: [full-1], oneWay: true}}]";
    let mut world = World::default();
    let expect = "expect: [{stall: {within: 5s, after: one}}, {recover: {within: 5s}}, agreement]";
    let run = world.run(&experiment(&format!("{two}\n  {expect}")), &|_| false);
    assert_eq!(run.verdict.phase, Phase::Passed, "{:#?}", run.verdict);
    let order: Vec<(u64, &str)> = world.applied.iter().map(|(at, id, _)| (*at, id.as_str())).collect();
    assert_eq!(order, [(5_100, "one"), (8_100, "two")]);
    let order: Vec<(u64, &str)> = world.healed.iter().map(|(at, id)| (*at, id.as_str())).collect();
    assert_eq!(order, [(15_200, "one"), (20_200, "two")]);
    assert_eq!(run.state.active_faults().count(), 0);
}

#[test]
fn the_verdict_is_given_again_by_every_later_step() {
    let mut world = World::default();
    let run = split_brain(&mut world);
    let observed = netsplit_plan::experiment::Observed::default();
    let (state, actions) = netsplit_plan::experiment::step(&run.state, EPOCH + 99_000, &observed);
    assert_eq!(state, run.state);
    assert_eq!(actions, [netsplit_plan::experiment::Action::Finish(run.verdict)]);
}

#[test]
fn who_was_picked_by_lot_is_noted_once() {
    let experiment = experiment(
        "faults: [{name: lot, at: 5s, for: 15s, cut: {from: [full-0, 'full/random:1'], to: [validator]}}]",
    );
    let mut state = netsplit_plan::experiment::start(&experiment, EPOCH);
    for step in 0..3 {
        let now = EPOCH + step * STEP;
        (state, _) =
            netsplit_plan::experiment::step(&state, now, &netsplit_plan::experiment::Observed::default());
    }
    let notes = state.timeline().iter().filter(|event| event.kind == TimelineKind::Note);
    let notes: Vec<&str> = notes.map(|event| event.text.as_str()).collect();
    assert_eq!(notes, ["`full/random:1` of lot is full-1"]);
}

#[test]
fn a_run_that_nobody_wants_to_watch_any_longer_is_aborted_and_healed() {
    let split = "faults: [{name: split, at: 5s, for: 60s, partition: [[validator-0, validator-1, full-0], \
                 [validator-2, validator-3, full-1]]}]\n  expect: [{agreement: {}}]";
    let mut world = World::default();
    let run = world.run(&experiment(&format!("{split}\n  abort: {{silent: 8s}}")), &|_| false);
    assert_eq!(run.verdict.phase, Phase::Aborted, "{:?}", run.verdict);
    assert!(run.verdict.reasons[0].starts_with("no block was final for 9.1"), "{:?}", run.verdict.reasons);
    assert!(!world.is_cut(), "what it did is undone");
}

#[test]
fn what_is_expected_of_the_load_is_judged_from_the_baseline_on() {
    let crash = "faults: [{name: crash, at: 5s, for: 5s, kill: [full-0]}]";
    let run = |load_latency_ms, limits: &str| {
        let mut world = World { load_latency_ms, ..World::default() };
        let run = world.run(&experiment(&format!("{crash}\n  expect: [{limits}]")), &|_| false);
        (run.verdict.phase, run.verdict.expectations[0].detail.clone())
    };
    // Ten transfers a block, two blocks a second.
    let (phase, detail) = run(Some(300), "throughput: {atLeast: 15/s}");
    assert_eq!(phase, Phase::Passed, "{detail}");
    let (phase, detail) = run(Some(300), "throughput: {atLeast: 25/s}");
    assert_eq!(phase, Phase::Failed, "{detail}");
    let (phase, detail) = run(Some(300), "latency: {p50: 310ms, p99: 310ms}");
    assert_eq!(phase, Phase::Passed, "{detail}");
    assert!(detail.starts_with("p50 was 30") && detail.ends_with(" transfers"), "{detail}");
    let (phase, detail) = run(Some(300), "latency: {p50: 310ms, p99: 290ms}");
    assert_eq!(phase, Phase::Failed, "{detail}");
    let (phase, detail) = run(None, "latency: {p99: 1s}");
    assert_eq!((phase, detail.as_str()), (Phase::Invalid, "no load was seen"));
}
