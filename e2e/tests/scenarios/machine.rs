//! Machines that are busy, and users without rights.

use netsplit_e2e::{Busy, BusyLoops, Experiment, Lab, Testnet, busy_run, exit};

/// A busy machine is not a failing chain.
#[test]
fn a_busy_machine_is_never_a_failing_chain() {
    const RUNS: usize = 5;
    let lab = Lab::new();
    let file = lab.write("busy.yaml", &Testnet::new("busy").yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    let file = lab.write("experiment.yaml", &Experiment::halves("busy").expect_all().yaml());
    let busy = BusyLoops::start();
    for run in 0..RUNS {
        if let Busy::Wrong(why) = busy_run(&lab, &file) {
            panic!("run {run}: {why}");
        }
    }
    drop(busy);
}

/// All of it works for a user who may do nothing but make user namespaces.
#[test]
fn an_ordinary_user_gets_the_same_verdict() {
    let lab = Lab::unprivileged();
    let testnet = Testnet { full: 1, ..Testnet::new("rootless") };
    let mut experiment = Experiment::halves("rootless").expect_all();
    experiment.fault =
        "partition: [[validator-0, validator-1, full-0], [validator-2, validator-3]]".to_owned();
    // The working directory is the user's, the file is this test's: readable is enough.
    let file = lab.write("rootless.yaml", &experiment.with(&testnet));
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    assert!(outcome.faults[0].proven && outcome.faults[0].links == 12, "{:?}", outcome.faults);
    lab.assert_nothing_left();
}
