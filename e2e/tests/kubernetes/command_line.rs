//! The command line's verbs over a cluster: they say and return what they say and return on one machine.

use std::time::Duration;

use netsplit_e2e::{Claim, Experiment, Lab, Testnet, exit, until};
use nix::sys::signal::Signal;

use crate::installed::Installed;

/// Far above what it takes on a machine that does nothing else.
const MOMENT: Duration = Duration::from_mins(1);

fn nothing_is_there(here: &Installed<'_>) {
    until("nothing is left", MOMENT, || {
        let kinds = "testnets,experiments,statefulsets,pods,persistentvolumeclaims";
        let ours = "--selector=app.kubernetes.io/name!=netsplit";
        here.namespace.ok(&["get", kinds, ours, "--output=name"]).is_empty()
    });
}

#[test]
fn a_testnet_by_hand() {
    let here = Installed::new("verbs");
    let lab = Lab::on(here.cluster, &here.namespace.name);
    let doctor = lab.ok(&["doctor"]);
    assert!(doctor.contains("leads") && doctor.contains("every command works"), "{doctor}");
    let ended = lab.run(&["status"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("start one with `netsplit up"), "{ended:#?}");
    let testnet = Testnet { full: 1, ..Testnet::new("hand") }.yaml();
    let _volumes = ["validator-0", "validator-1", "validator-2", "validator-3", "full-0"].map(|node| {
        let (namespace, name) = (here.namespace.name.as_str(), format!("data-hand-{node}"));
        here.cluster.volume(&Claim { namespace, name: &name, class: "standard", size: "64Mi" })
    });
    let file = lab.write("testnet.yaml", &testnet.replace("  topology:", "  storage: 64Mi\n  topology:"));
    let up = lab.ok(&["up", "-f", &file, "--detach"]);
    assert!(up.contains("hand is up: first block final after"), "{up}");
    let again = lab.run(&["up", "-f", &file, "--detach"]);
    assert!(again.code == Some(1) && again.stderr.contains("runs already"), "{again:#?}");
    let status = lab.above("hand", 2, MOMENT);
    assert_eq!((status.state.as_str(), status.nodes.len()), ("running", 5), "{status:#?}");
    assert!(status.nodes.iter().all(|node| node.state == "running" && node.peers == 4), "{status:#?}");

    // A fault by hand: proven, seen, not made twice, healed.
    let sides = ["validator-0,validator-1,full-0", "validator-2,validator-3"];
    let split = lab.ok(&["split", sides[0], sides[1]]);
    assert!(split.contains("12 directed links cut, proven"), "{split}");
    let status = lab.status("hand");
    let [fault] = status.faults.as_slice() else { panic!("one fault: {status:#?}") };
    assert_eq!((fault.state.as_str(), fault.links), ("proven", 12), "{fault:?}");
    let twice = lab.run(&["split", sides[1], sides[0]]);
    assert!(twice.code == Some(1) && twice.stderr.contains("active already"), "{twice:#?}");
    let typo = lab.run(&["split", "validatr-0", sides[1]]);
    assert!(
        typo.code == Some(exit::USAGE) && typo.stderr.contains("did you mean `validator-0`"),
        "{typo:#?}"
    );
    // Who begins while the chain stands still proves nothing.
    let dead = Experiment { name: "dead".to_owned(), ..Experiment::halves("hand") };
    let file = lab.write("dead.yaml", &full(dead.expect("stall: {within: 1s}")).yaml());
    let (code, outcome) = lab.experiment(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    let stalled = lab.status("hand").top();
    let healed = lab.ok(&["heal", sides[1], sides[0]]);
    assert!(healed.starts_with("healed split-"), "{healed}");
    lab.above("hand", stalled, MOMENT);
    assert!(lab.status("hand").faults.is_empty());
    assert_eq!(lab.ok(&["heal"]), "no fault was active\n");

    // The same experiment twice: the second makes the first one's object its own.
    let file = lab.write("halves.yaml", &full(Experiment::halves("hand").expect_all()).yaml());
    for _ in 0..2 {
        let (code, outcome) = lab.decided(&file);
        assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
        assert_eq!((outcome.experiment.as_str(), outcome.testnet.as_str()), ("halves", "hand"));
        let [fault] = outcome.faults.as_slice() else { panic!("one fault: {:?}", outcome.faults) };
        assert!(fault.proven && fault.dropped > 0 && fault.links == 12, "{fault:?}");
        assert!(outcome.nodes.len() == 5 && outcome.nodes.iter().all(|node| node.final_height > 0));
    }
    // Three of four have the votes: who expects a stall is wrong.
    let mut wrong = Experiment { name: "wrong".to_owned(), ..Experiment::halves("hand") }
        .expect("stall: {within: 100ms}");
    wrong.fault = "partition: [[validator-0, validator-1, validator-2, full-0], [validator-3]]".to_owned();
    let (code, outcome) = lab.decided(&lab.write("wrong.yaml", &wrong.yaml()));
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::FAILED, "Failed"), "{}", outcome.words());
    let typo = lab.write("typo.yaml", &wrong.yaml().replace("validator-3", "validator-9"));
    let ended = lab.run(&["run", &typo]);
    assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains("typo.yaml:"), "{ended:#?}");

    // Three of four go on; the fourth comes back in another pod, with its data.
    let before = lab.status("hand");
    assert_eq!(lab.ok(&["restart", "validator-3", "--kill"]), "validator-3 was started again\n");
    let status = lab.above("hand", before.top(), MOMENT);
    assert_ne!(status.node("validator-3").address, before.node("validator-3").address);
    let log = lab.ok(&["logs", "validator-3"]);
    let starts = log.lines().find(|line| line.contains("node starts")).unwrap_or_else(|| panic!("{log}"));
    let height = starts.split("height=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    assert!(height.parse::<u64>().unwrap() > 0, "it began anew: {starts}");

    assert_eq!(lab.ok(&["logs", "validator-0", "-n", "3"]).lines().count(), 3);
    let ended = lab.run(&["logs", "validatr-0"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("did you mean `validator-0`"), "{ended:#?}");
    assert_eq!(lab.ok(&["down"]), "hand is down\n");
    assert!(lab.try_status("hand").is_none());
    nothing_is_there(&here);
}

/// The full node stands with the first half.
fn full(experiment: Experiment) -> Experiment {
    let fault = "partition: [[validator-0, validator-1, full-0], [validator-2, validator-3]]".to_owned();
    Experiment { fault, ..experiment }
}

#[test]
fn a_run_brings_its_testnet_and_takes_it_away() {
    let here = Installed::new("run");
    let lab = Lab::on(here.cluster, &here.namespace.name);
    let experiment = Experiment { lasts: 60, ..Experiment::halves("brought").expect_all() };
    let file = lab.write("long.yaml", &experiment.with(&Testnet::new("brought")));
    let mut run = lab.start(&["run", &file]);
    run.wait_for("fault-proven", MOMENT);
    run.signal(Signal::SIGINT);
    let ended = run.wait(MOMENT);
    assert_eq!(ended.code, Some(exit::INVALID), "{ended:#?}");
    nothing_is_there(&here);

    let testnet = lab.write("testnet.yaml", &Testnet::new("brought").yaml());
    let mut up = lab.start(&["up", "-f", &testnet]);
    up.wait_for("Ctrl-C takes it down", MOMENT);
    // Its data would go with its pod.
    let ended = lab.run(&["restart", "validator-0"]);
    assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains("`storage: 1Gi`"), "{ended:#?}");
    up.signal(Signal::SIGINT);
    let ended = up.wait(MOMENT);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    nothing_is_there(&here);

    let file =
        lab.write("short.yaml", &Experiment::halves("brought").expect_all().with(&Testnet::new("brought")));
    let ended = lab.run(&["run", &file]);
    assert_eq!(ended.code, Some(exit::PASSED), "{ended:#?}");
    for told in ["fault-applied", "fault-proven", "fault-healed", "EXPECTED", "PASSED  halves"] {
        assert!(ended.stdout.contains(told), "{told}: {ended:#?}");
    }
    nothing_is_there(&here);
}
