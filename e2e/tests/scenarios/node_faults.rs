//! Nodes that an experiment kills, pauses and restarts, and what it is told of them.

use std::{fs, path::Path, time::Duration};

use netsplit_e2e::{Kind, Lab, Process, Testnet, exit, kill, until, until_some};
use nix::sys::signal::Signal;

const MOMENT: Duration = Duration::from_secs(15);
/// The lease of a fault on one machine, and a moment.
const LEASE: Duration = Duration::from_secs(20);

/// An experiment with these faults, on a testnet of four validators.
fn experiment(testnet: &str, faults: &[&str], expect: &[&str]) -> String {
    let list = |items: &[&str]| format!("    - {}\n", items.join("\n    - "));
    format!(
        "{}---\napiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: nodes}}\nspec:\n  \
         testnet: {testnet}\n  baseline: 2s\n  settle: 1s\n  faults:\n{}  expect:\n{}",
        Testnet::new(testnet).yaml(),
        list(faults),
        list(expect)
    )
}

fn process_of(lab: &Lab, node: &str) -> Option<Process> {
    lab.processes_of(Kind::Node).into_iter().find(|process| process.node.as_deref() == Some(node))
}

/// Whether the kernel has stopped it; `None` if there is no process.
fn is_stopped(lab: &Lab, node: &str) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process_of(lab, node)?.pid)).ok()?;
    Some(stat.rsplit_once(") ")?.1.starts_with('T'))
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
    let lab = Lab::new();
    let faults = [
        "{name: crash, at: 2s, for: 3s, kill: [validator-0]}",
        "{name: hang, at: 7s, for: 3s, pause: [validator-1]}",
        "{name: leave, at: 13s, for: 3s, restart: [validator-2]}",
    ];
    let expect = [
        "progress: {within: 5s}",
        "recover: {within: 5s, after: crash}",
        "recover: {within: 5s, after: hang}",
        "recover: {within: 5s, after: leave}",
        "agreement: {}",
    ];
    let file = lab.write("nodes.yaml", &experiment("nodes", &faults, &expect));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("crash proven", MOMENT);
    assert!(process_of(&lab, "validator-0").is_none(), "by another witness");
    let ended = lab.run(&["restart", "validator-0"]);
    assert!(ended.code == Some(exit::FAILED) && ended.stderr.contains("a fault holds"), "{ended:#?}");
    run.wait_for("hang proven", MOMENT);
    assert_eq!(is_stopped(&lab, "validator-1"), Some(true));
    assert_eq!(lab.status("nodes").node("validator-1").state, "paused");
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let evidence: Vec<&str> = outcome.faults.iter().map(|fault| fault.evidence.as_str()).collect();
    let expected = [
        "validator-0: no process, no stream of blocks, and no answer",
        "validator-1: stopped by the kernel's word, and no answer",
        "validator-2: no process, no stream of blocks, and no answer",
    ];
    assert_eq!(evidence, expected);
    assert!(outcome.faults.iter().all(|fault| fault.proven && fault.links == 0), "{:?}", outcome.faults);
    assert!(outcome.verdict.reasons.is_empty(), "no exit is held against a node: {}", outcome.words());
    lab.assert_nothing_left();
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
    let lab = Lab::new();
    let faults = ["{name: hang, at: 2s, for: 10s, pause: [validator-1]}"];
    let file = lab.write("freed.yaml", &experiment("freed", &faults, &["agreement: {}"]));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("hang proven", MOMENT);
    let pid = process_of(&lab, "validator-1").expect("a paused node has a process").pid;
    kill(pid, Signal::SIGCONT);
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(outcome.words().contains("the process of validator-1 is not stopped"), "{}", outcome.words());
    lab.assert_nothing_left();
}

/// Nobody renews while the supervisor hangs: what it has done to nodes is undone without it.
#[test]
fn nodes_run_again_when_the_supervisor_hangs() {
    let lab = Lab::new();
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
        is_stopped(&lab, "validator-0") == Some(false) && is_stopped(&lab, "validator-1") == Some(false)
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
    let lab = Lab::new();
    for kind in [Kind::Outer, Kind::Inner] {
        let faults = ["{name: hang, at: 2s, for: 60s, pause: [validator-0]}"];
        let file = lab.write("gone.yaml", &experiment("gone", &faults, &["agreement: {}"]));
        let mut run = lab.start(&["run", &file, "--json"]);
        run.wait_for("hang proven", MOMENT);
        let paused = until_some("the paused node", MOMENT, || process_of(&lab, "validator-0")).pid;
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
