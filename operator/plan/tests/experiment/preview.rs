//! What a run would do.

use std::time::Duration;

use crate::world::experiment;
use netsplit_plan::{Base, NodeFault, preview};
use netsplit_spec::Links;

fn latency(ms: u64) -> Links {
    Links { latency: Some(Duration::from_millis(ms)), ..Links::default() }
}

#[test]
fn each_stretch_tells_every_link_and_node_of_its_time() {
    let faults = "faults: [
        {name: crash, at: 5s, for: 2s, every: 4s, repeat: 2, kill: [validator-1]},
        {name: hang, at: 6s, for: 5s, pause: [validator-1, full-0]},
        {name: slow, at: 6s, for: 5s, link: {from: [validator-0], to: [validator-1, full-1], oneWay: true, latency: 80ms}},
        {name: off, at: 8s, for: 2s, cut: {from: [validator-0], to: [full-1]}}]";
    let valid = experiment(&format!("{faults}\n  expect: [{{agreement: {{}}}}]"));
    let stretches = preview(&valid, &Base::uniform(6, latency(20)));
    let faults: Vec<(u64, u64, String)> =
        stretches.iter().map(|stretch| (stretch.from_ms, stretch.to_ms, stretch.faults.join(" "))).collect();
    let expected = [
        (0, 5_000, ""),
        (5_000, 6_000, "crash/1"),
        (6_000, 7_000, "crash/1 hang slow"),
        (7_000, 8_000, "hang slow"),
        (8_000, 9_000, "hang slow off"),
        (9_000, 10_000, "crash/2 hang slow off"),
        (10_000, 11_000, "crash/2 hang slow"),
        (11_000, 13_000, ""),
    ];
    assert_eq!(faults, expected.map(|(from, to, ids)| (from, to, ids.to_owned())));

    let first = &stretches[0];
    assert_eq!((first.links.len(), first.cut.len(), first.nodes.len()), (30, 0, 0));
    assert!(first.links.iter().all(|row| row.links == latency(20)));
    let both = &stretches[5];
    assert_eq!(both.nodes, [(1, NodeFault::Kill), (4, NodeFault::Pause)], "a killed node is not paused");
    assert_eq!(both.cut.iter().copied().collect::<Vec<_>>(), [(0, 5), (5, 0)]);
    assert_eq!(both.links.len(), 28, "a cut link does nothing else");
    let slow: Vec<_> = both.links.iter().filter(|row| row.links != latency(20)).collect();
    assert_eq!(slow.len(), 1);
    assert_eq!((slow[0].from, slow[0].to, slow[0].links), (0, 1, latency(80)));
    assert_eq!(stretches[7].links, first.links, "after the last heal all is as before the first fault");
}
