//! Every command that a person types, on testnets that stay up.

use std::{fs, net::TcpStream, time::Duration};

use netsplit_e2e::{Kind, Lab, Testnet};
use nix::sys::signal::Signal;

use crate::{
    everywhere::{Place as _, by_hand},
    here::Here,
};

const MOMENT: Duration = Duration::from_secs(15);

#[test]
fn a_detached_testnet_is_told_split_cut_healed_and_loaded() {
    let here = Here::new();
    let lab = here.lab();
    let status = by_hand::is_brought_up_once(&here);
    let mut told: Vec<i32> = status.nodes.iter().map(|node| node.pid).collect();
    let mut real: Vec<i32> = lab.processes_of(Kind::Node).iter().map(|node| node.pid).collect();
    told.sort_unstable();
    real.sort_unstable();
    assert_eq!(told, real, "the pids are the nodes'");

    by_hand::a_split_stops_finality_until_healed(&here);
    by_hand::a_split_ends_by_itself(&here);
    by_hand::a_one_way_cut_is_told_apart(&here);
    by_hand::mistakes_are_told(&here);
    by_hand::transfers_become_final(&here);
    by_hand::a_command_runs_at_a_node(&here);
    commands_run_in_a_nodes_network(lab);
    output_that_nobody_reads_ends_a_command_in_silence(lab);
    by_hand::a_node_comes_back_with_its_data(&here);
    by_hand::is_taken_down(&here);
}

#[test]
fn a_load_by_hand_goes_before_the_testnets_own() {
    let here = Here::new();
    let lab = here.lab();
    let file = lab.write("loaded.yaml", &Testnet { load: 50, ..Testnet::new("loaded") }.yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    by_hand::a_load_by_hand_goes_first(&here, "loaded");
    lab.ok(&["down"]);
    here.nothing_left();
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
