//! Nodes that an experiment kills, pauses and restarts, and what it is told of them.

use std::{fs, path::Path, time::Duration};

use netsplit_e2e::{Kind, Lab, exit, kill, until, until_some};
use nix::sys::signal::Signal;

use crate::{
    everywhere::{
        Place as _,
        node_faults::{self, experiment},
    },
    here::Here,
};

const MOMENT: Duration = Duration::from_secs(15);
/// The lease of a fault on one machine, and a moment.
const LEASE: Duration = Duration::from_secs(20);

/// Whether the kernel has stopped it; `None` if there is no process.
fn is_stopped(here: &Here, testnet: &str, node: &str) -> Option<bool> {
    node_faults::is_stopped(here.find_process(testnet, node)?)
}

/// The file that a user is shown.
#[test]
fn the_example_with_crashes_passes() {
    let lab = Lab::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/crashes.yaml");
    let file = lab.write("crashes.yaml", &fs::read_to_string(example).unwrap());
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let ids: Vec<&str> = outcome.faults.iter().map(|fault| fault.id.as_str()).collect();
    assert_eq!(ids, ["crashes/crash/1", "crashes/crash/2", "crashes/crash/3"]);
    assert_eq!(outcome.verdict.expectations.len(), 5, "each recovery is judged: {}", outcome.words());
    lab.assert_nothing_left();
}

#[test]
fn one_validator_that_is_killed_paused_or_restarted_holds_up_nobody() {
    node_faults::one_validator_that_is_killed_paused_or_restarted_holds_up_nobody(&Here::new());
}

/// Two of four validators have no quorum.
#[test]
fn half_the_validators_paused_stall_the_chain_until_they_go_on() {
    let lab = Lab::new();
    let faults = ["{name: hang, at: 2s, for: 5s, pause: [validator-0, validator-1]}"];
    let expect = ["stall: {within: 2s}", "recover: {within: 5s}", "agreement: {}"];
    let file = lab.write("half.yaml", &experiment("half", &faults, &expect));
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
}

#[test]
fn a_node_that_somebody_else_lets_go_on_makes_the_run_invalid() {
    let here = Here::new();
    let lab = here.lab();
    let faults = ["{name: hang, at: 2s, for: 10s, pause: [validator-1]}"];
    let file = lab.write("freed.yaml", &experiment("freed", &faults, &["agreement: {}"]));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("hang proven", MOMENT);
    kill(here.process("freed", "validator-1"), Signal::SIGCONT);
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(outcome.words().contains("the process of validator-1 is not stopped"), "{}", outcome.words());
    lab.assert_nothing_left();
}

/// Nobody renews while the supervisor hangs: what it has done to nodes is undone without it.
#[test]
fn nodes_run_again_when_the_supervisor_hangs() {
    let here = Here::new();
    let lab = here.lab();
    let faults = [
        "{name: hang, at: 2s, for: 60s, pause: [validator-0]}",
        "{name: crash, at: 2s, for: 60s, kill: [validator-1]}",
    ];
    let file = lab.write("hung.yaml", &experiment("hung", &faults, &["agreement: {}"]));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("hang proven", MOMENT);
    run.wait_for("crash proven", MOMENT);
    let outer = lab.processes_of(Kind::Outer)[0].pid;
    kill(outer, Signal::SIGSTOP);
    until("the nodes run again", LEASE, || {
        ["validator-0", "validator-1"].iter().all(|node| is_stopped(&here, "hung", node) == Some(false))
    });
    kill(outer, Signal::SIGCONT);
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(outcome.words().contains("its lease ended"), "{}", outcome.words());
    lab.assert_nothing_left();
}

/// A stopped process takes no signal but the one that cannot be held back.
#[test]
fn killing_everything_leaves_no_paused_node() {
    let here = Here::new();
    let lab = here.lab();
    for kind in [Kind::Outer, Kind::Inner] {
        let faults = ["{name: hang, at: 2s, for: 60s, pause: [validator-0]}"];
        let file = lab.write("gone.yaml", &experiment("gone", &faults, &["agreement: {}"]));
        let mut run = lab.start(&["run", &file, "--json"]);
        run.wait_for("hang proven", MOMENT);
        let paused = until_some("the paused node", MOMENT, || here.find_process("gone", "validator-0"));
        for process in lab.processes_of(kind) {
            kill(process.pid, Signal::SIGKILL);
        }
        until("the paused node is gone", MOMENT, || {
            lab.processes().iter().all(|process| process.pid != paused)
        });
        drop(run);
        lab.run(&["down", "-t", "gone"]);
        lab.wait_until_empty(MOMENT);
    }
}
