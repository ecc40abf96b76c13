//! What a person types on a testnet that stays up, step by step: four validators and a full node, called `hand`.

use std::{io::Write as _, process::Stdio};

use netsplit_e2e::{Status, Testnet, exit, http_get, until};

use super::Place;

pub const NODES: [&str; 5] = ["validator-0", "validator-1", "validator-2", "validator-3", "full-0"];
const SIDES: [&str; 2] = ["validator-0,validator-1,full-0", "validator-2,validator-3"];

/// Brings it up, detached, and gives what is told of it.
pub fn is_brought_up_once(place: &impl Place) -> Status {
    let lab = place.lab();
    let ended = lab.run(&["status"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("start one with `netsplit up"), "{ended:#?}");
    let testnet = Testnet { full: 1, ..Testnet::new("hand") }.yaml();
    let file = lab.write("hand.yaml", &testnet.replace("  topology:", "  storage: 64Mi\n  topology:"));
    let up = lab.ok(&["up", "-f", &file, "--detach"]);
    assert!(up.contains("hand is up: first block final after"), "{up}");
    let again = lab.run(&["up", "-f", &file, "--detach"]);
    assert!(again.code == Some(1) && again.stderr.contains("runs already"), "{again:#?}");

    let status = lab.status("hand");
    let names: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, NODES);
    assert_eq!((status.name.as_str(), status.state.as_str()), ("hand", "running"));
    for node in &status.nodes {
        let role = if node.name.starts_with("full") { "full" } else { "validator" };
        assert_eq!((node.role.as_str(), node.state.as_str()), (role, "running"), "{node:?}");
        assert!(node.final_height > 0 && node.height >= node.final_height, "{node:?}");
        assert!(!node.address.is_empty(), "{node:?}");
    }
    until("a full mesh", place.moment(), || lab.status("hand").nodes.iter().all(|node| node.peers == 4));
    status
}

/// While it lasts no node makes a block final; after the heal every node does.
pub fn a_split_stops_finality_until_healed(place: &impl Place) {
    let lab = place.lab();
    let printed = lab.ok(&["split", SIDES[0], SIDES[1]]);
    assert!(printed.contains("12 directed links cut, proven"), "{printed}");
    let status = lab.status("hand");
    let [fault] = status.faults.as_slice() else { panic!("one fault: {status:#?}") };
    assert_eq!((fault.state.as_str(), fault.links), ("proven", 12), "{fault:?}");
    let twice = lab.run(&["split", SIDES[1], SIDES[0]]);
    assert!(twice.code == Some(1) && twice.stderr.contains("active already"), "{twice:#?}");
    // A block whose votes were under way may still become final; two cannot.
    let before = status.top();
    let ended = lab.run(&["load", "--rate", "20/s", "--for", "2s"]);
    assert_eq!(ended.code, Some(1), "no transfer becomes final in a split: {ended:#?}");
    assert!(ended.stderr.contains("not one transfer became final"), "{ended:#?}");
    let after = lab.status("hand").top();
    assert!(after <= before + 1, "finality went on in a split: {before} -> {after}");
    super::verdicts::what_was_dead_before_is_invalid(place);
    let printed = lab.ok(&["heal", SIDES[1], SIDES[0]]);
    assert!(printed.starts_with("healed "), "{printed}");
    assert!(lab.above("hand", after, place.moment()).faults.is_empty());
}

pub fn a_split_ends_by_itself(place: &impl Place) {
    let lab = place.lab();
    lab.ok(&["split", SIDES[0], SIDES[1], "--for", "1s"]);
    until("the fault ended by itself", place.moment(), || lab.status("hand").faults.is_empty());
    let height = lab.status("hand").top();
    lab.above("hand", height, place.moment());
}

/// One node unheard by another harms nobody: gossip goes around it.
pub fn a_one_way_cut_is_told_apart(place: &impl Place) {
    let lab = place.lab();
    let printed = lab.ok(&["cut", "validator-0", "validator-1", "--one-way"]);
    assert!(printed.contains("1 directed links cut, proven"), "{printed}");
    let height = lab.status("hand").top();
    lab.above("hand", height + 1, place.moment());
    let ended = lab.run(&["heal", "validator-0", "validator-1"]);
    assert_eq!(ended.code, Some(exit::USAGE), "the two-way cut was never made: {ended:#?}");
    lab.ok(&["heal", "validator-0", "validator-1", "--one-way"]);
    assert!(lab.status("hand").faults.is_empty());
    assert_eq!(lab.ok(&["heal"]), "no fault was active\n");
}

/// A mistake is the caller's, and is told with what would be right.
pub fn mistakes_are_told(place: &impl Place) {
    let lab = place.lab();
    let wrong = |arguments: &[&str], said: &str| {
        let ended = lab.run(arguments);
        assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains(said), "{said}: {ended:#?}");
    };
    wrong(&["split", "validatr-0", SIDES[1]], "did you mean `validator-0`");
    // It stands on no side.
    wrong(&["split", "validator-0,validator-1", SIDES[1]], "full-0");
    wrong(&["exec", "ful-0", "--", "true"], "did you mean `full-0`");
    wrong(&["restart", "validator-9"], "did you mean `validator-");
    wrong(&["load", "--for", "0s"], "above zero");
    let ended = lab.run(&["logs", "validatr-0"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("did you mean `validator-0`"), "{ended:#?}");
}

pub fn transfers_become_final(place: &impl Place) {
    let load = place.lab().ok(&["load", "--rate", "100/s", "--for", "3s", "--json"]);
    let load: serde_json::Value = serde_json::from_str(&load).expect("figures as JSON");
    assert_eq!(load["offered"], 300, "{load:#}");
    assert!(load["committed"].as_u64() > Some(0), "{load:#}");
    assert!(load["latencyMs"]["p50"].as_f64() > Some(0.0), "{load:#}");
}

/// Two would use each other's nonces. The testnet has a load of its own.
pub fn a_load_by_hand_goes_first(place: &impl Place, testnet: &str) {
    let lab = place.lab();
    let load = lab.start(&["load", "-t", testnet, "--rate", "50/s", "--for", "4s", "--json"]);
    until("the testnet's own load waits", place.moment(), || place.own_load_waits(testnet));
    let second = lab.run(&["load", "-t", testnet, "--for", "1s"]);
    assert!(second.code == Some(1) && second.stderr.contains("a load runs already"), "{second:#?}");
    let ended = load.wait(place.moment());
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let load: serde_json::Value = serde_json::from_str(&ended.stdout).expect("figures as JSON");
    assert!(load["committed"].as_u64() > Some(0), "{load:#}");
    let refused = load["refusedByReason"].as_object().expect("a number for each reason");
    let is_of_two = |reason: &String| reason.contains("nonce") || reason.contains("duplicate");
    assert!(!refused.keys().any(is_of_two), "another sender was in the way: {load:#}");

    until("the testnet's own load goes on", place.moment(), || !place.own_load_waits(testnet));
    let node = place.http(lab.status(testnet).node("validator-0"));
    let total = || {
        let metrics = http_get(node, "/metrics")?;
        let total = metrics.lines().find_map(|line| line.strip_prefix("netsplit_chain_transactions_total "));
        total?.trim().parse::<u64>().ok()
    };
    let before = total().expect("the node answers");
    until("its transfers become final", place.moment(), || total().is_some_and(|total| total > before + 10));
}

/// The command's own input, output and exit code.
pub fn a_command_runs_at_a_node(place: &impl Place) {
    let lab = place.lab();
    let program = place.program();
    let version = lab.ok(&["exec", "full-0", "--", &program, "--version"]);
    assert_eq!(version, concat!("netsplit-node ", env!("CARGO_PKG_VERSION"), "\n"));
    let ended = lab.run(&["exec", "full-0", "--", &program, "--nonsense"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("'--nonsense'"), "{ended:#?}");
    assert!(ended.stdout.is_empty(), "{ended:#?}");

    let mut child = lab
        .netsplit(&["exec", "full-0", "--", &program, "--config", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("netsplit can be started");
    child
        .stdin
        .take()
        .expect("it is a pipe")
        .write_all(b"no_such_setting = 1\n")
        .expect("it reads its input");
    let ended = child.wait_with_output().expect("a child can be waited for");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("no_such_setting"), "{ended:?}: {said}");

    let ended = lab.run(&["exec", "full-0", "--", "no-such-program"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no-such-program"), "{ended:#?}");
}

/// Three of four go on; the fourth comes back with its data.
pub fn a_node_comes_back_with_its_data(place: &impl Place) {
    let lab = place.lab();
    let before = lab.status("hand");
    assert_eq!(lab.ok(&["restart", "validator-3", "--kill"]), "validator-3 was started again\n");
    lab.above("hand", before.top(), place.moment());
    // Its log may be a moment behind. One that began anew never tells of a height.
    until("its log tells of a start with its data", place.moment(), || {
        let log = lab.ok(&["logs", "validator-3"]);
        let starts = log.lines().rfind(|line| line.contains("node starts")).unwrap_or_default();
        let height = starts.split("height=").nth(1).and_then(|rest| rest.split(' ').next());
        height.is_some_and(|height| height.parse::<u64>().is_ok_and(|height| height > 0))
    });
    assert_eq!(lab.ok(&["logs", "validator-0", "-n", "3"]).lines().count(), 3);
}

pub fn is_taken_down(place: &impl Place) {
    let lab = place.lab();
    assert_eq!(lab.ok(&["down"]), "hand is down\n");
    assert!(lab.try_status("hand").is_none());
    place.nothing_left();
}
