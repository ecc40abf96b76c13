//! Verdicts on a testnet that runs: `hand`, of four validators and a full node.

use netsplit_e2e::{Experiment, exit, kill};
use nix::sys::signal::Signal;

use super::Place;

/// The full node stands with the first half.
fn halves(name: &str) -> Experiment {
    let fault = "partition: [[validator-0, validator-1, full-0], [validator-2, validator-3]]".to_owned();
    Experiment { name: name.to_owned(), fault, ..Experiment::halves("hand") }
}

pub fn a_split_brain_passes(place: &impl Place) {
    let lab = place.lab();
    let (code, outcome) = lab.decided(&lab.write("halves.yaml", &halves("halves").expect_all().yaml()));
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    assert_eq!((outcome.experiment.as_str(), outcome.testnet.as_str()), ("halves", "hand"));
    let [fault] = outcome.faults.as_slice() else { panic!("one fault: {:?}", outcome.faults) };
    assert!(fault.proven && fault.dropped > 0 && fault.links == 12, "{fault:?}");
    assert!(outcome.nodes.len() == 5 && outcome.nodes.iter().all(|node| node.final_height > 0));
}

/// Three of four have the votes, so blocks go on: who expects a stall is wrong. The deadline is so short that no busy moment of
/// the machine can excuse the miss. The experiment has the name of one that was run before.
pub fn a_stall_that_does_not_happen_fails(place: &impl Place) {
    let lab = place.lab();
    let mut experiment = halves("halves").expect("stall: {within: 100ms}");
    "partition: [[validator-0, validator-1, validator-2, full-0], [validator-3]]"
        .clone_into(&mut experiment.fault);
    let (code, outcome) = lab.decided(&lab.write("stall.yaml", &experiment.yaml()));
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::FAILED, "Failed"), "{}", outcome.words());
    assert!(outcome.words().contains("still made height"), "{}", outcome.words());
    assert!(outcome.faults[0].proven, "the fault was real: {:?}", outcome.faults);

    let typo = lab.write("typo.yaml", &experiment.yaml().replace("validator-3", "validator-9"));
    let ended = lab.run(&["run", &typo]);
    assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains("typo.yaml:"), "{ended:#?}");
}

/// Two validators hang while the network is split: the heal cannot bring finality back.
pub fn a_chain_that_does_not_recover_fails(place: &impl Place) {
    let lab = place.lab();
    let before = lab.status("hand").top();
    let file = lab.write("hung.yaml", &halves("hung").expect("recover: {within: 400ms}").yaml());
    let hung = ["validator-2", "validator-3"].map(|node| place.process("hand", node));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("fault-proven", place.moment());
    for process in hung {
        kill(process, Signal::SIGSTOP);
    }
    let (code, outcome) = run.verdict();
    for process in hung {
        kill(process, Signal::SIGCONT);
    }
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::FAILED, "Failed"), "{}", outcome.words());
    assert!(outcome.words().contains("no new final block"), "{}", outcome.words());
    lab.above("hand", before, place.moment());
}

/// To be asked while nothing is final: what was dead before the fault proves nothing by being dead after it.
pub fn what_was_dead_before_is_invalid(place: &impl Place) {
    let lab = place.lab();
    let file = lab.write("dead.yaml", &halves("dead").expect("stall: {within: 1s}").yaml());
    let (code, outcome) = lab.experiment(&file);
    let words = outcome.words();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{words}");
    assert!(words.contains("not making progress before the fault"), "{words}");
    assert!(outcome.faults.is_empty(), "nothing was broken: {:?}", outcome.faults);
    assert!(lab.try_status("hand").is_some(), "a testnet that `run` did not start stays");
}
