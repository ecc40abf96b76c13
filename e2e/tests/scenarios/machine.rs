//! Machines that are busy, and users without rights.

use std::process::{Child, Command, Stdio};

use netsplit_e2e::{Experiment, Lab, Testnet, exit};

/// Two processes that never rest, at the priority of everyone else. Dropping it ends them.
struct BusyLoops([Child; 2]);

impl BusyLoops {
    fn start() -> Self {
        let spin = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().expect("a machine has a shell")
        };
        Self([spin(), spin()])
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("a busy loop does not end by itself");
            child.wait().expect("a child can be waited for");
        }
    }
}

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
        let (code, outcome) = lab.experiment(&file);
        match code {
            exit::PASSED => assert!(outcome.faults[0].proven, "run {run}"),
            exit::INVALID => assert!(outcome.blames_host(), "run {run} says why: {}", outcome.words()),
            _ => panic!("run {run}: {code}\n{}", outcome.words()),
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
