//! Nodes that an experiment kills, pauses and restarts.

use std::fs;

use netsplit_e2e::{Testnet, exit};

use super::Place;

/// An experiment with these faults, on a testnet of four validators that it brings along.
pub fn experiment(testnet: &str, faults: &[&str], expect: &[&str]) -> String {
    let list = |items: &[&str]| format!("    - {}\n", items.join("\n    - "));
    format!(
        "{}---\napiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: nodes}}\nspec:\n  \
         testnet: {testnet}\n  baseline: 2s\n  settle: 1s\n  faults:\n{}  expect:\n{}",
        Testnet::new(testnet).yaml(),
        list(faults),
        list(expect)
    )
}

/// Whether the kernel has stopped a process; `None` if there is none.
pub fn is_stopped(pid: i32) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.starts_with('T'))
}

pub fn one_validator_that_is_killed_paused_or_restarted_holds_up_nobody(place: &impl Place) {
    let lab = place.lab();
    let faults = [
        "{name: crash, at: 2s, for: 5s, kill: [validator-0]}",
        "{name: hang, at: 9s, for: 5s, pause: [validator-1]}",
        "{name: leave, at: 17s, for: 5s, restart: [validator-2]}",
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
    run.wait_for("crash proven", place.moment());
    assert!(place.find_process("nodes", "validator-0").is_none(), "by another witness");
    let ended = lab.run(&["restart", "validator-0"]);
    assert!(ended.code == Some(exit::FAILED) && ended.stderr.contains("a fault holds"), "{ended:#?}");
    run.wait_for("hang proven", place.moment());
    assert_eq!(is_stopped(place.process("nodes", "validator-1")), Some(true));
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
    place.nothing_left();
}
