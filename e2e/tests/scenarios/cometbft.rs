//! The outside check: a chain that knows nothing of netsplit, through the same spec, links, load, observer and verdict.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use netsplit_e2e::{Experiment, Lab, Testnet, exit, until};

const MOMENT: Duration = Duration::from_secs(15);

/// The file that a user is shown.
#[test]
fn the_example_passes_on_another_chain() {
    let lab = Lab::with_cometbft();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cometbft.yaml");
    let file = lab.write("cometbft.yaml", &fs::read_to_string(example).unwrap());
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let [fault] = outcome.faults.as_slice() else { panic!("one fault: {:?}", outcome.faults) };
    assert!(fault.proven && fault.dropped > 0 && fault.links == 12, "{fault:?}");
    lab.assert_nothing_left();
}

/// Half of its links are slow: so says the kernel of its connections over them, and of no others; and so say its blocks, each
/// of which takes a proposal and two rounds of votes across.
#[test]
fn a_slow_link_is_seen_by_it_and_a_stall_that_does_not_happen_fails() {
    const SLOW_MS: f64 = 73.0;
    let mut lab = Lab::with_cometbft();
    // A home of the user's own must not become every node's.
    let home = lab.work().join("my-own-node");
    lab.set("CMTHOME", &home);
    let testnet = Testnet { full: 1, load: 20, chain: "{cometbft: {}}", ..Testnet::new("outside") };
    let file = lab.write("outside.yaml", &testnet.yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    assert!(!home.exists(), "{} was written to", home.display());
    until("transfers are final", MOMENT, || {
        lab.status("outside").load.is_some_and(|load| load.committed > 20)
    });
    let loaded = lab.ok(&["load", "--rate", "100/s", "--for", "2s", "--json"]);
    let loaded: serde_json::Value = serde_json::from_str(&loaded).unwrap();
    assert_eq!(loaded["signaturesChecked"], false, "{loaded}");
    assert!(loaded["committed"].as_u64() > Some(150), "{loaded}");

    let printed =
        lab.ok(&["link", "validator-0,validator-1", "validator-2,validator-3", "--latency", "73ms"]);
    assert!(printed.contains("8 directed links changed, proven"), "{printed}");
    until("round trips of 146 ms over four connections, none over the others", MOMENT, || {
        let trips = round_trips_ms(&lab, "validator-0");
        eprintln!("validator-0's round trips: {trips:?}");
        let slow = |node: &str| (2.0 * SLOW_MS - 3.0..4.0 * SLOW_MS).contains(&trips[node]);
        slow("validator-2")
            && slow("validator-3")
            && trips["validator-1"] < SLOW_MS
            && trips["full-0"] < SLOW_MS
    });
    lab.ok(&["heal"]);

    // The validators keep each other: who expects a stall is wrong.
    let mut experiment = Experiment::halves("outside").expect("stall: {within: 100ms}");
    experiment.fault = "partition: [[validator], [full-0]]".to_owned();
    let file = lab.write("stall.yaml", &experiment.yaml());
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::FAILED, "Failed"), "{}", outcome.words());
    assert!(outcome.words().contains("still made height"), "{}", outcome.words());
    assert!(outcome.faults[0].proven, "the fault was real: {:?}", outcome.faults);
    lab.ok(&["down"]);
    lab.assert_nothing_left();
}

#[test]
fn a_program_that_is_not_there_is_told_with_what_to_do() {
    let mut lab = Lab::new();
    let missing = lab.work().join("cometbft");
    lab.set("NETSPLIT_COMETBFT", &missing);
    let testnet = Testnet { chain: "{cometbft: {}}", ..Testnet::new("missing") };
    let file = lab.write("missing.yaml", &testnet.yaml());
    let ended = lab.run(&["up", "-f", &file]);
    assert_eq!(ended.code, Some(exit::FAILED), "{ended:#?}");
    for words in ["cannot start", missing.to_str().unwrap(), "make cometbft"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:#?}");
    }
    let doctor = lab.ok(&["doctor"]);
    assert!(doctor.contains("absent; needed only for `chain: {cometbft: {}}`"), "{doctor}");
}

/// What the kernel has measured of the connections that a node holds to each other node; the longest of each.
fn round_trips_ms(lab: &Lab, from: &str) -> BTreeMap<String, f64> {
    let printed = lab.ok(&["exec", from, "--", "ss", "-H", "-t", "-i", "-n", "-O", "state", "established"]);
    let status = lab.status("outside");
    let mut trips = BTreeMap::new();
    for node in status.nodes.iter().filter(|node| node.name != from) {
        let to = format!(" {}:", node.address);
        let peers = printed.lines().filter(|line| line.contains(&to) && line.contains(":26600 "));
        let trip = |line: &str| -> Option<f64> {
            let (_, rest) = line.split_once(" rtt:")?;
            rest.split('/').next()?.parse().ok()
        };
        let longest = peers.filter_map(trip).reduce(f64::max);
        trips.insert(
            node.name.clone(),
            longest.unwrap_or_else(|| panic!("{from} to {}: {printed}", node.name)),
        );
    }
    trips
}
