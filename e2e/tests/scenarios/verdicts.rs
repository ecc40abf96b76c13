//! What passes, and above all what must not.

use std::{fs, path::Path, process::Command, time::Duration};

use netsplit_e2e::{Experiment, Kind, Lab, Testnet, exit, kill, until};
use nix::sys::signal::Signal;

use crate::{
    everywhere::{Place as _, by_hand, verdicts},
    here::Here,
};

const MOMENT: Duration = Duration::from_secs(15);

/// The first thing that a user does; its files are the ones in `examples/`.
#[test]
fn the_example_passes_and_leaves_nothing() {
    let lab = Lab::new();
    lab.ok(&["init"]);
    for file in ["quickstart.yaml", "split-brain.yaml"] {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
        let (written, example) = (fs::read(lab.work().join(file)).unwrap(), fs::read(example).unwrap());
        assert!(written == example, "`netsplit init` writes another {file} than examples/ holds");
    }
    let (code, outcome) = lab.decided("split-brain.yaml");
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    assert_eq!((outcome.experiment.as_str(), outcome.testnet.as_str()), ("split-brain", "quickstart"));
    let [fault] = outcome.faults.as_slice() else { panic!("one fault: {:?}", outcome.faults) };
    assert!(fault.proven && fault.dropped > 0, "{fault:?}");
    assert_eq!(fault.links, 18, "3 nodes on each side, both ways");
    assert_eq!(outcome.verdict.expectations.len(), 4, "{}", outcome.words());
    assert_eq!(outcome.nodes.len(), 6);
    lab.assert_nothing_left();
}

#[test]
fn who_expects_what_the_chain_does_not_do_fails() {
    let here = Here::new();
    by_hand::is_brought_up_once(&here);
    verdicts::a_split_brain_passes(&here);
    verdicts::a_stall_that_does_not_happen_fails(&here);
    verdicts::a_chain_that_does_not_recover_fails(&here);
    three_of_four_go_on(here.lab());
    by_hand::is_taken_down(&here);
}

fn three_of_four_go_on(lab: &Lab) {
    let mut experiment = Experiment::halves("hand").expect("progress: {within: 4s}");
    "partition: [[validator-0, validator-1, validator-2, full-0], [validator-3]]"
        .clone_into(&mut experiment.fault);
    let experiment = experiment.expect("recover: {within: 5s}").expect("agreement: {}");
    let file = lab.write("progress.yaml", &experiment.yaml());
    let (code, outcome) = lab.decided(&file);
    assert_eq!(code, exit::PASSED, "three of four have the votes: {}", outcome.words());
}

/// What was dead before the fault proves nothing by being dead after it.
#[test]
fn a_chain_that_was_dead_before_is_invalid() {
    let lab = Lab::new();
    let testnet = lab.write("dead.yaml", &Testnet::new("dead").yaml());
    lab.ok(&["up", "-f", &testnet, "--detach"]);
    for node in ["validator-2", "validator-3"] {
        kill(lab.status("dead").node(node).pid, Signal::SIGSTOP);
    }
    let file = lab.write("experiment.yaml", &Experiment::halves("dead").expect("stall: {within: 1s}").yaml());
    let (code, outcome) = lab.experiment(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    let words = outcome.words();
    assert!(
        words.contains("not making progress before the fault") || words.contains("never answered"),
        "{words}"
    );
    assert!(outcome.faults.is_empty(), "nothing was broken: {:?}", outcome.faults);
    assert!(lab.try_status("dead").is_some(), "a testnet that `run` did not start stays");
}

/// Faults name nodes and are made by address: with two nodes in each other's place they hit the wrong ones, and what is
/// measured by address would say that all is well. Their keys say who they are.
#[test]
fn two_nodes_in_each_others_place_make_the_run_invalid() {
    let lab = Lab::new();
    let testnet = lab.write("places.yaml", &Testnet { full: 2, ..Testnet::new("places") }.yaml());
    lab.ok(&["up", "-f", &testnet, "--detach"]);
    let key = |node: &str| lab.state().join("places/nodes").join(node).join("node.key");
    let aside = lab.work().join("node.key");
    for (from, to) in [(key("full-0"), aside.clone()), (key("full-1"), key("full-0")), (aside, key("full-1"))]
    {
        fs::rename(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    for node in ["full-0", "full-1"] {
        lab.ok(&["restart", node]);
    }
    let mut experiment = Experiment::halves("places").expect("progress: {within: 5s}");
    (experiment.fault, experiment.lasts) = ("cut: {from: [full-0], to: [validator-0]}".to_owned(), 8);
    let file = lab.write("experiment.yaml", &experiment.yaml());
    let (code, outcome) = lab.experiment(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(
        outcome.words().contains("in the place of full-0 answers full-1, by its key"),
        "{}",
        outcome.words()
    );
}

/// The agent makes and measures the fault; while it hangs, and each that takes its place, nobody can say that the fault
/// is there. The kernel's own cut goes on meanwhile, so the chain shows all that is expected of it.
#[test]
fn a_fault_that_nobody_can_measure_is_invalid() {
    let lab = Lab::new();
    let experiment = Experiment { lasts: 10, ..Experiment::halves("blind") }.expect_all();
    let file = lab.write("blind.yaml", &experiment.with(&Testnet::new("blind")));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("fault-proven", MOMENT);
    // 2 s until the last measurement is stale, 5 s in which the proof may come back, 5 s in which the heal may be seen.
    run.wait_for_while("verdict", Duration::from_secs(20), || {
        for agent in lab.processes_of(Kind::Agent) {
            kill(agent.pid, Signal::SIGSTOP);
        }
    });
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(outcome.words().contains("fault `split` was applied, but without proof"), "{}", outcome.words());
    lab.assert_nothing_left();
}

/// Somebody removes the rules while the fault is active: the halves speak again, and whatever the chain does then is not what was
/// asked about.
#[test]
fn a_fault_that_somebody_removed_is_invalid() {
    let lab = Lab::new();
    let experiment = Experiment { lasts: 10, ..Experiment::halves("flushed") }.expect_all();
    let file = lab.write("flushed.yaml", &experiment.with(&Testnet::new("flushed")));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("fault-proven", MOMENT);
    let agents = lab.processes_of(Kind::Agent);
    let [agent] = agents.as_slice() else { panic!("one link agent runs: {agents:?}") };
    let saboteur = env!("CARGO_BIN_EXE_netsplit-saboteur");
    let sabotage = Command::new(saboteur).arg(agent.pid.to_string()).status().unwrap();
    assert!(sabotage.success());
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(outcome.words().contains("`split`"), "it names the fault: {}", outcome.words());
    assert!(!outcome.faults[0].proven, "{:?}", outcome.faults);
    lab.assert_nothing_left();
}

/// A mistake is told with what would be right, and nothing starts.
#[test]
fn a_typo_is_a_usage_error_with_the_nearest_name() {
    let lab = Lab::new();
    let mut experiment = Experiment::halves("typo").expect("stall: {within: 1s}");
    experiment.fault = "partition: [[validator-0, validator-1], [validator-2, validatr-3]]".to_owned();
    let file = lab.write("typo.yaml", &experiment.with(&Testnet::new("typo")));
    let ended = lab.run(&["run", &file]);
    assert_eq!(ended.code, Some(exit::USAGE), "{ended:#?}");
    assert!(ended.stderr.contains("validatr-3") && ended.stderr.contains("validator-3"), "{ended:#?}");
    lab.assert_nothing_left();

    let text = Experiment::halves("typo").expect("stal: {within: 1s}").with(&Testnet::new("typo"));
    let file = lab.write("typo.yaml", &text.replace("topology", "topologi"));
    let ended = lab.run(&["run", &file]);
    assert_eq!(ended.code, Some(exit::USAGE), "{ended:#?}");
    for nearest in ["topology", "stall"] {
        assert!(ended.stderr.contains(nearest), "every mistake at once, {nearest} among them: {ended:#?}");
    }
    lab.assert_nothing_left();
}

/// Whoever ends a run gets no verdict, and no testnet that goes on alone.
#[test]
fn an_interrupted_run_is_aborted_and_cleaned_up() {
    let lab = Lab::new();
    let experiment = Experiment { lasts: 30, ..Experiment::halves("broken-off") }.expect_all();
    let file = lab.write("run.yaml", &experiment.with(&Testnet::new("broken-off")));
    let mut run = lab.start(&["run", &file]);
    run.wait_for("fault-proven", MOMENT);
    run.signal(Signal::SIGINT);
    let ended = run.wait(MOMENT);
    assert_eq!(ended.code, Some(exit::INVALID), "{ended:#?}");
    until("no testnet's directory is left", MOMENT, || fs::read_dir(lab.state()).unwrap().count() == 0);
    lab.assert_nothing_left();
}
