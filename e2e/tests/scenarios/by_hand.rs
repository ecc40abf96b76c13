//! Every command that a person types, on testnets that stay up.

use std::{fs, net::TcpStream, time::Duration};

use netsplit_e2e::{Kind, Lab, Testnet, exit, until};
use nix::sys::signal::Signal;

const MOMENT: Duration = Duration::from_secs(15);

#[test]
fn a_detached_testnet_is_told_split_cut_healed_and_loaded() {
    let lab = Lab::new();
    let testnet = Testnet { full: 1, ..Testnet::new("hand") };
    let file = lab.write("hand.yaml", &testnet.yaml());
    let printed = lab.ok(&["up", "-f", &file, "--detach"]);
    assert!(printed.contains("first block final"), "{printed}");

    let status = lab.status("hand");
    let names: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["validator-0", "validator-1", "validator-2", "validator-3", "full-0"]);
    assert_eq!((status.name.as_str(), status.state.as_str()), ("hand", "running"));
    for node in &status.nodes {
        let role = if node.name.starts_with("full") { "full" } else { "validator" };
        assert_eq!((node.role.as_str(), node.state.as_str()), (role, "running"), "{node:?}");
        assert!(node.final_height > 0 && node.height >= node.final_height, "{node:?}");
        assert!(!node.address.is_empty(), "{node:?}");
    }
    let mut told: Vec<i32> = status.nodes.iter().map(|node| node.pid).collect();
    let mut real: Vec<i32> = lab.processes_of(Kind::Node).iter().map(|node| node.pid).collect();
    told.sort_unstable();
    real.sort_unstable();
    assert_eq!(told, real, "the pids are the nodes'");
    until("a full mesh", MOMENT, || lab.status("hand").nodes.iter().all(|node| node.peers == 4));

    split_stops_finality_until_healed(&lab);
    a_split_ends_by_itself(&lab);
    a_one_way_cut_is_told_apart(&lab);

    let ended = lab.run(&["split", "validator-0,validator-1", "validator-2,validator-3"]);
    assert_eq!(ended.code, Some(exit::USAGE), "full-0 stands on no side: {ended:#?}");
    assert!(ended.stderr.contains("full-0"), "{ended:#?}");

    let load = lab.ok(&["load", "--rate", "100/s", "--for", "3s", "--json"]);
    let load: serde_json::Value = serde_json::from_str(&load).unwrap();
    let committed = load["committed"].as_u64().unwrap();
    assert!(committed > 0, "{load:#}");
    assert!(load["latencyMs"]["p50"].as_f64().unwrap() > 0.0, "{load:#}");

    commands_run_in_a_nodes_network(&lab);

    let log = lab.ok(&["logs", "validator-0", "-n", "5"]);
    assert!((1..=5).contains(&log.lines().count()), "{log}");
    output_that_nobody_reads_ends_a_command_in_silence(&lab);
    let ended = lab.run(&["logs", "validator-9"]);
    assert!(ended.code != Some(0) && ended.stderr.contains("validator-"), "{ended:#?}");

    lab.ok(&["down"]);
    lab.assert_nothing_left();
}

/// As behind `| head -1`: with the exit code that a shell tells of it, and without the signal that a closed socket sends, too.
fn output_that_nobody_reads_ends_a_command_in_silence(lab: &Lab) {
    const CLOSED: i32 = 141;
    for arguments in [&["status"][..], &["logs", "validator-0"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let ended = lab.netsplit(arguments).stdout(writer).output().expect("netsplit can be started");
        assert_eq!(
            (ended.status.code(), ended.stderr.as_slice()),
            (Some(CLOSED), &b""[..]),
            "{arguments:?}: {ended:?}"
        );
    }
}

/// While it lasts no node makes a block final; after the heal every node does.
fn split_stops_finality_until_healed(lab: &Lab) {
    let sides = ["validator-0,validator-1,full-0", "validator-2,validator-3"];
    let printed = lab.ok(&["split", sides[0], sides[1]]);
    assert!(printed.contains("12 directed links cut, proven"), "{printed}");
    let status = lab.status("hand");
    assert_eq!(status.faults.len(), 1, "{:?}", status.faults);
    assert_eq!((status.faults[0].state.as_str(), status.faults[0].links), ("proven", 12));
    // A block whose votes were under way may still become final; two cannot.
    let before = status.top();
    let ended = lab.run(&["load", "--rate", "20/s", "--for", "2s"]);
    assert_eq!(ended.code, Some(1), "no transfer becomes final in a split: {ended:#?}");
    let after = lab.status("hand").top();
    assert!(after <= before + 1, "finality went on in a split: {before} -> {after}");
    let printed = lab.ok(&["heal", sides[1], sides[0]]);
    assert!(printed.contains("healed"), "{printed}");
    assert!(lab.above("hand", after, MOMENT).faults.is_empty());
}

fn a_split_ends_by_itself(lab: &Lab) {
    lab.ok(&["split", "validator-0,validator-1,full-0", "validator-2,validator-3", "--for", "1s"]);
    until("the fault ended by itself", MOMENT, || lab.status("hand").faults.is_empty());
    let height = lab.status("hand").top();
    lab.above("hand", height, MOMENT);
}

/// One node unheard by another harms nobody: gossip goes around it.
fn a_one_way_cut_is_told_apart(lab: &Lab) {
    let printed = lab.ok(&["cut", "validator-0", "validator-1", "--one-way"]);
    assert!(printed.contains("1 directed links cut, proven"), "{printed}");
    let height = lab.status("hand").top();
    lab.above("hand", height + 1, MOMENT);
    let ended = lab.run(&["heal", "validator-0", "validator-1"]);
    assert_eq!(ended.code, Some(exit::USAGE), "the two-way cut was never made: {ended:#?}");
    lab.ok(&["heal", "validator-0", "validator-1", "--one-way"]);
    assert!(lab.status("hand").faults.is_empty());
    assert!(lab.ok(&["heal"]).contains("no fault was active"));
}

/// A node's network has one interface beside loopback, and its own address answers.
fn commands_run_in_a_nodes_network(lab: &Lab) {
    let interfaces = lab.ok(&["exec", "full-0", "--", "cat", "/proc/net/dev"]);
    let host = fs::read_to_string("/proc/net/dev").expect("this is Linux with /proc");
    assert_eq!(interfaces.lines().count(), 4, "two lines of headings, lo and the link: {interfaces}");
    assert_ne!(interfaces, host);
    let address = lab.status("hand").node("full-0").address.clone();
    let routes = lab.ok(&["exec", "full-0", "--", "cat", "/proc/net/fib_trie"]);
    assert!(routes.contains(&address), "{address} in {routes}");
    let ended = lab.run(&["exec", "full-0", "--", "sh", "-c", "exit 7"]);
    assert_eq!(ended.code, Some(7), "{ended:#?}");
    let ended = lab.run(&["exec", "ful-0", "--", "true"]);
    assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains("full-0"), "{ended:#?}");
}

/// Two testnets never meet. As root, where this machine reaches both, no address is used twice.
#[test]
fn two_testnets_stand_side_by_side() {
    let lab = Lab::new();
    for name in ["left", "right"] {
        let file = lab.write(&format!("{name}.yaml"), &Testnet::new(name).yaml());
        lab.ok(&["up", "-f", &file, "--detach"]);
    }
    let ended = lab.run(&["heal"]);
    assert!(ended.code != Some(0) && ended.stderr.contains("-t NAME"), "which one is meant? {ended:#?}");

    let before = (lab.status("left"), lab.status("right"));
    let addresses = [&before.0.nodes[0].address, &before.1.nodes[0].address];
    if nix::unistd::geteuid().is_root() {
        assert_ne!(addresses[0], addresses[1]);
        for address in addresses {
            let api = format!("{address}:26601").parse().unwrap();
            TcpStream::connect_timeout(&api, MOMENT).unwrap_or_else(|error| panic!("{api}: {error}"));
        }
    }
    lab.ok(&["split", "validator-0,validator-1", "validator-2,validator-3", "-t", "left"]);
    let (left, right) = (lab.status("left").top(), lab.status("right").top());
    lab.above("right", right + 5, MOMENT);
    assert!(lab.status("left").top() <= left + 1, "the left one is split");
    assert!(lab.status("right").faults.is_empty(), "the right one is not");

    let file = lab.write("left.yaml", &Testnet::new("left").yaml());
    let ended = lab.run(&["up", "-f", &file, "--detach"]);
    assert!(ended.code != Some(0) && ended.stderr.contains("runs already"), "{ended:#?}");

    lab.ok(&["down", "-t", "left"]);
    assert!(lab.try_status("left").is_none());
    lab.above("right", lab.status("right").top(), MOMENT);
    lab.ok(&["down", "--all"]);
    lab.assert_nothing_left();
}

/// Ctrl-C, and the end of the command by any other way, take down what stands in the foreground.
#[test]
fn a_testnet_in_the_foreground_ends_with_its_command() {
    let lab = Lab::new();
    let file = lab.write("front.yaml", &Testnet::new("front").yaml());
    let mut up = lab.start(&["up", "-f", &file]);
    up.wait_for("is up", MOMENT);
    up.signal(Signal::SIGINT);
    let ended = up.wait(MOMENT);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    lab.assert_nothing_left();

    let mut up = lab.start(&["up", "-f", &file]);
    up.wait_for("is up", MOMENT);
    up.signal(Signal::SIGKILL);
    assert_eq!(up.wait(MOMENT).code, None);
    lab.wait_until_empty(MOMENT);
}
