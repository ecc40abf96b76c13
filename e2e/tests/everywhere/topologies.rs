//! Networks in which not everyone is everyone's neighbour: votes and blocks go hand to hand.

use netsplit_e2e::{Experiment, Testnet, exit, until};

use super::Place;

/// The ring is cut into two arcs of two.
pub fn a_ring_splits_and_heals(place: &impl Place) {
    splits_and_heals(place, "ring", 8);
}

/// The experiment brings its testnet, and takes it away again. `sessions` counts each session at both of its ends.
pub fn splits_and_heals(place: &impl Place, topology: &'static str, sessions: u32) {
    let lab = place.lab();
    let testnet = Testnet { topology, ..Testnet::new(topology) };
    let file = lab.write("topology.yaml", &Experiment::halves(topology).expect_all().with(&testnet));
    let mut run = lab.start(&["run", &file]);
    run.wait_for("is up: first block final after", place.moment());
    let peers = || lab.status(topology).nodes.iter().map(|node| node.peers).sum::<u32>();
    until("every session", place.moment(), || peers() == sessions);
    let ended = run.wait(place.moment());
    if ended.code == Some(exit::INVALID) && ended.stdout.contains("host overloaded") {
        // A busy machine proves nothing either way.
        let (code, outcome) = lab.decided(&file);
        assert_eq!(code, exit::PASSED, "{}", outcome.words());
    } else {
        assert_eq!(ended.code, Some(exit::PASSED), "{ended:#?}");
        for told in ["fault-applied", "fault-proven", "fault-healed", "EXPECTED", "PASSED  halves"] {
            assert!(ended.stdout.contains(told), "{told}: {ended:#?}");
        }
    }
    place.nothing_left();
}
