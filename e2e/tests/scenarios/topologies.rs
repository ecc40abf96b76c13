//! Networks in which not everyone is everyone's neighbour: votes and blocks go hand to hand.

use std::time::Duration;

use netsplit_e2e::{Experiment, Lab, Testnet, exit, until};

const MOMENT: Duration = Duration::from_secs(15);

/// The ring is cut into two arcs of two.
#[test]
fn a_ring_splits_and_heals() {
    splits_and_heals("ring", 8);
}

/// One side keeps the hub; the leaves on the other are alone.
#[test]
fn a_star_splits_and_heals() {
    splits_and_heals("star", 6);
}

/// `sessions` counts each session at both of its ends.
fn splits_and_heals(topology: &'static str, sessions: u32) {
    let lab = Lab::new();
    let testnet = Testnet { topology, ..Testnet::new(topology) };
    let file = lab.write("testnet.yaml", &testnet.yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    let peers = || lab.status(topology).nodes.iter().map(|node| node.peers).collect::<Vec<_>>();
    until("every session", MOMENT, || peers().into_iter().sum::<u32>() == sessions);
    let file = lab.write("experiment.yaml", &Experiment::halves(topology).expect_all().yaml());
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    assert!(outcome.faults[0].proven);
}
