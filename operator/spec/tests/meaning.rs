//! What a right file means.

use std::time::Duration;

use netsplit_spec::{
    Abort, Consensus, Document, Experiment, Fault, FaultKind, Files, LatencyLimits, Links, Load, NamedFile,
    NodeFault, Origin, Rest, Role, Share, Testnet, Timeouts, Topology, ValidExpectation, ValidFaultKind,
    parse, parse_with, validate, validate_testnet,
};

const QUICKSTART: &str = include_str!("../../../examples/quickstart.yaml");
const SPLIT_BRAIN: &str = include_str!("../../../examples/split-brain.yaml");

fn documents(text: &str) -> (Vec<Testnet>, Vec<Experiment>) {
    let documents = parse(text, "test.yaml").unwrap_or_else(|problems| panic!("{problems}"));
    let (mut testnets, mut experiments) = (Vec::new(), Vec::new());
    for document in documents {
        match document {
            Document::Testnet(testnet) => testnets.push(testnet),
            Document::Experiment(experiment) => experiments.push(experiment),
        }
    }
    (testnets, experiments)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_examples_are_valid_and_show_the_same_testnet() {
    let (quickstart, _) = documents(QUICKSTART);
    let (testnets, experiments) = documents(SPLIT_BRAIN);
    assert_eq!(quickstart, testnets, "split-brain.yaml repeats the testnet of quickstart.yaml");
    let testnet = &quickstart[0];
    assert_eq!(
        testnet.consensus,
        Consensus::Bft { block_time: Duration::from_millis(500), timeouts: Timeouts::default() }
    );
    assert_eq!(testnet.load, Some(Load { transfers_per_second: 100, accounts: 1_000 }));
    assert_eq!(
        testnet.nodes.iter().map(|group| (group.role, group.count)).collect::<Vec<_>>(),
        [(Role::Validator, 4), (Role::Full, 2)]
    );
    assert_eq!(testnet.topology, Topology::Mesh);
    let valid = validate(&experiments[0], testnet).unwrap();
    assert_eq!(valid.nodes, ["validator-0", "validator-1", "validator-2", "validator-3", "full-0", "full-1"]);
    assert_eq!((valid.baseline, valid.settle), (seconds(5), seconds(2)));
    assert_eq!(valid.faults[0].kind, ValidFaultKind::Partition { sides: vec![vec![0, 1, 4], vec![2, 3, 5]] });
    assert_eq!(
        valid.expect,
        [
            ValidExpectation::Stall { within: seconds(5), fault: 0 },
            ValidExpectation::Recover { within: seconds(5), fault: 0 },
            ValidExpectation::Agreement,
            ValidExpectation::Validity
        ]
    );
}

#[test]
fn documents_survive_serde_in_the_shape_of_the_yaml() {
    for document in parse(SPLIT_BRAIN, "x").unwrap() {
        let json = serde_json::to_value(&document).unwrap();
        if let Document::Experiment(_) = document {
            assert_eq!(json["faults"][0]["for"], "15s");
            assert_eq!(json["expect"][0]["stall"]["within"], "5s");
        } else {
            assert_eq!(json["consensus"]["bft"]["blockTime"], "500ms");
        }
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);
    }
}

fn experiment(fields: &str) -> Experiment {
    let text = format!(
        "apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: e}}\nspec: {{testnet: quickstart, {fields}}}\n"
    );
    documents(&text).1.remove(0)
}

fn sides(partition: &str) -> Vec<Vec<usize>> {
    let experiment = experiment(&format!("faults: [{{at: 0s, for: 5s, {partition}}}]"));
    let valid =
        validate(&experiment, &documents(QUICKSTART).0[0]).unwrap_or_else(|problems| panic!("{problems}"));
    match valid.faults.into_iter().next().expect("one fault").kind {
        ValidFaultKind::Partition { sides } => sides,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rest_says_where_the_others_stand() {
    let two = "partition: [[validator-1, validator-0], [validator-2, validator-3]]";
    assert_eq!(sides(&format!("{two}, rest: bridge")), [vec![0, 1], vec![2, 3]]);
    assert_eq!(sides(&format!("{two}, rest: isolate")), [vec![0, 1], vec![2, 3], vec![4], vec![5]]);
    assert_eq!(sides(&format!("{two}, rest: 1")), [vec![0, 1], vec![2, 3, 4, 5]]);
    assert_eq!(sides(&format!("{two}, rest: validator-0")), [vec![0, 1, 4, 5], vec![2, 3]]);
    assert_eq!(sides("partition: [[validator], [full-0]], rest: validator"), [vec![0, 1, 2, 3, 5], vec![4]]);
    assert_eq!(sides("partition: [[validator]], rest: isolate"), [vec![0, 1, 2, 3], vec![4], vec![5]]);
}

#[test]
fn an_expectation_means_the_last_start_or_the_last_heal_unless_it_says() {
    let faults = "faults: [
        {name: long, at: 5s, for: 60s, cut: {from: [full-0], to: [full-1], oneWay: true}},
        {at: 10s, for: 20s, cut: {from: [validator-0], to: [validator]}}]";
    let experiment = experiment(&format!(
        "{faults}, expect: [stall: {{within: 5s}}, recover: {{within: 5s}}, recover: {{within: 6s, after: fault-1}}, progress, agreement]"
    ));
    let valid = validate(&experiment, &documents(QUICKSTART).0[0]).unwrap();
    assert_eq!(
        valid.expect,
        [
            ValidExpectation::Stall { within: seconds(5), fault: 1 },
            ValidExpectation::Recover { within: seconds(5), fault: 0 },
            ValidExpectation::Recover { within: seconds(6), fault: 1 },
            ValidExpectation::Progress { within: seconds(5) },
            ValidExpectation::Agreement
        ]
    );
    assert_eq!(valid.faults[0].kind, ValidFaultKind::Cut { from: vec![4], to: vec![5], one_way: true });
    assert_eq!(
        valid.faults[1].kind,
        ValidFaultKind::Cut { from: vec![0], to: vec![0, 1, 2, 3], one_way: false }
    );
}

#[test]
fn the_baseline_ends_before_the_first_fault_unless_it_is_a_plain_fault() {
    let fault = "faults: [{at: 3s, for: 5s, partition: [[validator], [full]]}]";
    assert_eq!(experiment(&format!("{fault}, expect: [agreement]")).baseline(), seconds(3));
    assert_eq!(experiment(&format!("{fault}, expect: [agreement], baseline: 1s")).baseline(), seconds(1));
    let plain = experiment(fault);
    assert_eq!((plain.baseline(), plain.settle()), (Duration::ZERO, Duration::ZERO));
    assert_eq!(experiment("expect: [agreement]").baseline(), seconds(5));
}

/// Documents made by a program go through the same rules, and have no lines.
#[test]
fn documents_that_were_never_text_are_checked_too() {
    let mut testnet = documents(QUICKSTART).0.remove(0);
    testnet.nodes[1].count = 5_000;
    testnet.nodes[0].name = "V".to_owned();
    testnet.origin = Origin::default();
    let told: Vec<String> = validate_testnet(&testnet).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("Testnet/quickstart: spec.nodes[0].name: `V` contains"), "{told:?}");
    let made = Experiment {
        name: "made".to_owned(),
        testnet: "quickstrt".to_owned(),
        faults: vec![Fault {
            name: None,
            at: Duration::ZERO,
            lasts: seconds(20),
            every: None,
            repeat: None,
            ramp: None,
            kind: FaultKind::Partition {
                partition: vec![vec!["validator".to_owned()], vec!["ful".to_owned()]],
                rest: Some(Rest::Word("isolate".to_owned())),
            },
        }],
        expect: Vec::new(),
        baseline: None,
        settle: None,
        abort: None,
        origin: Origin::default(),
    };
    let told: Vec<String> =
        validate(&made, &documents(QUICKSTART).0[0]).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "Experiment/made: spec.testnet: unknown testnet `quickstrt`, did you mean `quickstart`?",
            "Experiment/made: spec.faults[0].partition[1][0]: unknown node or group `ful`, did you mean `full`?"
        ]
    );
    assert!(validate(&made, &testnet).unwrap_err().to_string().contains("too many nodes"));
}

/// A problem found only beside the testnet still says where it stands.
#[test]
fn validation_against_another_file_knows_the_lines() {
    let text = "apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {name: e}\nspec:\n  testnet: quickstart\n  faults:\n    - at: 5s\n      for: 5s\n      partition:\n        - [validator]\n        - [fulll]\n";
    let experiment = documents(text).1.remove(0);
    let problems = validate(&experiment, &documents(QUICKSTART).0[0]).unwrap_err();
    let first = problems.iter().next().unwrap();
    assert_eq!((first.line, first.path.as_str()), (Some(11), "spec.faults[0].partition[1][0]"));
}

#[test]
fn links_are_read_with_their_units() {
    let testnet = QUICKSTART
        .replace("  load:", "  links: {latency: 20ms, jitter: 1.5ms, loss: 0.05%, rate: 1.5mbit}\n  load:");
    assert_ne!(testnet, QUICKSTART);
    let links = documents(&testnet).0[0].links.clone().unwrap().links;
    assert_eq!(links.latency, Some(Duration::from_millis(20)));
    assert_eq!(links.jitter, Some(Duration::from_micros(1_500)));
    assert_eq!(links.loss.map(Share::as_millionths), Some(500));
    assert_eq!(links.rate, Some(1_500_000));
    assert_eq!(links.corrupt, None);
    let text = serde_json::to_string(&links).unwrap();
    assert_eq!(text, r#"{"latency":"20ms","jitter":"1.5ms","loss":"0.05%","rate":"1500kbit"}"#);
    assert_eq!(serde_json::from_str::<Links>(&text).unwrap(), links);
}

#[test]
fn a_link_fault_names_nodes_as_a_cut_does() {
    let faults =
        "faults: [{at: 5s, for: 5s, link: {from: [full], to: [validator-0], oneWay: true, latency: 80ms}}]";
    let valid = validate(&experiment(faults), &documents(QUICKSTART).0[0]).unwrap();
    let links = Links { latency: Some(Duration::from_millis(80)), ..Links::default() };
    let kind = ValidFaultKind::Link { from: vec![4, 5], to: vec![0], one_way: true, links };
    assert_eq!(valid.faults[0].kind, kind);
}

/// Six nodes: validators 0 to 3 in eu, us, eu, us; full nodes 4 and 5 in ap.
fn placed() -> Testnet {
    let text = QUICKSTART
        .replace("count: 4", "count: 4\n      regions: [eu, us]")
        .replace("count: 2", "count: 2\n      region: ap");
    documents(&text).0.remove(0)
}

fn cut(testnet: &Testnet, name: &str, from: &str, to: &str) -> (Vec<usize>, Vec<usize>) {
    let mut experiment =
        experiment(&format!("faults: [{{at: 5s, for: 5s, cut: {{from: [{from}], to: [{to}]}}}}]"));
    name.clone_into(&mut experiment.name);
    let valid = validate(&experiment, testnet).unwrap_or_else(|problems| panic!("{problems}"));
    match valid.faults.into_iter().next().expect("one fault").kind {
        ValidFaultKind::Cut { from, to, .. } => (from, to),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nodes_are_dealt_over_regions_and_selected_by_role_and_region() {
    let testnet = placed();
    let eu = cut(&testnet, "e", "'region:eu'", "'role:full', validator-1");
    assert_eq!(eu, (vec![0, 2], vec![1, 4, 5]));
    assert_eq!(cut(&testnet, "e", "region:ap", "role:validator"), (vec![4, 5], vec![0, 1, 2, 3]));
    let sides = netsplit_spec::select(&testnet, &[vec!["region:us".to_owned()]]).unwrap();
    assert_eq!(sides, [["validator-1", "validator-3"]]);
    let typo = netsplit_spec::select(&testnet, &[vec!["region:euu".to_owned()]]).unwrap_err();
    assert_eq!(typo, "unknown region `euu`, did you mean `eu`?");
}

#[test]
fn random_picks_follow_from_the_seed_and_never_meet() {
    let testnet = placed();
    let both =
        |testnet: &Testnet, name: &str| cut(testnet, name, "'validator/random:2'", "'validator/random:2'");
    let first = both(&testnet, "e");
    assert_eq!(both(&testnet, "e"), first, "the same again");
    let mut all: Vec<usize> = first.0.iter().chain(&first.1).copied().collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3], "nobody is picked twice");
    let others: Vec<_> = (0..20).map(|n| both(&testnet, &format!("e{n}"))).collect();
    assert!(others.iter().any(|other| *other != first), "another experiment picks others");
    let mut reseeded = testnet.clone();
    let seeded: Vec<_> = (0..20)
        .map(|seed| {
            reseeded.seed = Some(seed);
            both(&reseeded, "e")
        })
        .collect();
    assert!(seeded.iter().any(|other| *other != first), "so does another seed");
    for n in 0..20 {
        // Of two, one is named by the other end.
        assert_eq!(cut(&testnet, &format!("e{n}"), "region:us/random:1", "validator-1").0, [3]);
        // Who stands on a side is not picked for another one.
        let fields =
            "faults: [{at: 0, for: 5s, partition: [['random:2'], [validator-0, 'role:full']], rest: bridge}]";
        let mut experiment = experiment(fields);
        experiment.name = format!("e{n}");
        validate(&experiment, &testnet).unwrap();
    }
}

#[test]
fn every_node_is_picked_about_as_often() {
    let testnet = placed();
    let mut often = [0; 6];
    for n in 0..600 {
        often[cut(&testnet, &format!("e{n}"), "'random:1'", "validator").0[0]] += 1;
    }
    assert!(often.iter().all(|times| (60..=140).contains(times)), "{often:?}");
}

#[test]
fn who_was_picked_is_told() {
    let experiment = experiment(
        "faults: [{name: lot, at: 0, for: 5s, cut: {from: ['role:full/random:1'], to: [validator]}}]",
    );
    let valid = validate(&experiment, &placed()).unwrap();
    let [pick] = valid.picks.as_slice() else { panic!("{:?}", valid.picks) };
    assert_eq!((pick.fault.as_str(), pick.selector.as_str()), ("lot", "role:full/random:1"));
    let ValidFaultKind::Cut { from, .. } = &valid.faults[0].kind else { panic!("{:?}", valid.faults) };
    assert_eq!(from, &pick.nodes);
}

const ROWS: &str = "from,to,rtt_ms,jitter,loss,rate\n# theirs\neu,us,80,,0.1%,\nus,eu,84.5,1ms,,10mbit\n\neu,eu,2,,,\nap,eu,9,,,\n";

fn with_matrix(matrix: &str) -> String {
    QUICKSTART
        .replace("count: 4", "count: 4\n      regions: [eu, us]")
        .replace("count: 2", "count: 2\n      region: eu")
        .replace("  load:", &format!("  links: {{matrix: {matrix}, jitter: 500ms}}\n  load:"))
}

#[test]
fn a_matrix_in_a_file_is_the_same_as_its_rows() {
    let text = with_matrix("../mine.csv");
    assert_eq!(netsplit_spec::named_files(&text).into_iter().collect::<Vec<_>>(), ["../mine.csv"]);
    assert_eq!(netsplit_spec::named_files(QUICKSTART).len(), 0);
    let file = NamedFile { path: "/a/mine.csv".to_owned(), text: Ok(ROWS.to_owned()) };
    let files = Files::from([("../mine.csv".to_owned(), file)]);
    let read = parse_with(&text, "t.yaml", &files).unwrap_or_else(|problems| panic!("{problems}"));
    let rows = "[{from: eu, to: us, latency: 40ms, loss: 0.1%}, {from: us, to: eu, latency: 42.25ms, jitter: 1ms, rate: \
                10mbit}, {from: eu, to: eu, latency: 1ms}, {from: ap, to: eu, latency: 4.5ms}]";
    let written = parse(&with_matrix(rows), "t.yaml").unwrap();
    assert_eq!(read, written);
    let Document::Testnet(testnet) = &read[0] else { panic!("{read:?}") };
    validate_testnet(testnet).unwrap();
    assert_eq!(testnet.links.as_ref().unwrap().rows().len(), 3, "nobody is in ap");
    // Without its file it is a document, and no testnet yet.
    let Document::Testnet(unread) = parse(&text, "t.yaml").unwrap().remove(0) else { panic!("a testnet") };
    let told = validate_testnet(&unread).unwrap_err().to_string();
    assert!(told.ends_with("spec.links.matrix: the file `../mine.csv` has not been read"), "{told}");
}

#[test]
fn a_pack_is_kept_by_its_name() {
    let text = QUICKSTART
        .replace("count: 4", "count: 4\n      regions: [Tokyo, Ireland]")
        .replace("count: 2", "count: 2\n      region: Sydney")
        .replace("  load:", "  links: {regions: aws-cometbft-e2e, loss: 0.1%}\n  load:");
    let testnet = documents(&text).0.remove(0);
    let links = testnet.links.as_ref().unwrap();
    assert_eq!(serde_json::to_string(links).unwrap(), r#"{"regions":"aws-cometbft-e2e","loss":"0.1%"}"#);
    let row = links.rows().into_iter().find(|row| row.from == "Tokyo" && row.to == "Ireland").unwrap();
    assert_eq!(row.links.latency, Some(Duration::from_millis(100)));
}

#[test]
fn nodes_are_killed_paused_and_restarted_by_name_or_group() {
    let faults = "faults: [
        {at: 5s, for: 5s, kill: [validator-0]}, {at: 5s, for: 5s, pause: [full, full-1]},
        {at: 5s, for: 5s, restart: [validator]}]";
    let valid = validate(&experiment(faults), &documents(QUICKSTART).0[0]).unwrap();
    let kinds: Vec<ValidFaultKind> = valid.faults.into_iter().map(|fault| fault.kind).collect();
    assert_eq!(
        kinds,
        [
            ValidFaultKind::Nodes { what: NodeFault::Kill, nodes: vec![0] },
            ValidFaultKind::Nodes { what: NodeFault::Pause, nodes: vec![4, 5] },
            ValidFaultKind::Nodes { what: NodeFault::Restart, nodes: vec![0, 1, 2, 3] },
        ]
    );
}

#[test]
fn a_fault_that_comes_again_is_so_many_faults() {
    let faults = "faults: [
        {name: crash, at: 5s, for: 3s, every: 10s, repeat: 3, kill: [validator-0]},
        {name: split, at: 6s, for: 5s, partition: [[validator], [full]]}]";
    let expect = "expect: [recover: {within: 5s}, recover: {within: 4s, after: crash}, recover: {within: 6s, after: crash/2}, \
                  stall: {within: 1s, after: split}]";
    let valid = validate(&experiment(&format!("{faults}, {expect}")), &documents(QUICKSTART).0[0]).unwrap();
    let starts: Vec<_> =
        valid.faults.iter().map(|fault| (fault.id.as_str(), fault.at, fault.lasts)).collect();
    assert_eq!(
        starts,
        [
            ("crash/1", seconds(5), seconds(3)),
            ("crash/2", seconds(15), seconds(3)),
            ("crash/3", seconds(25), seconds(3)),
            ("split", seconds(6), seconds(5))
        ]
    );
    assert_eq!(
        valid.expect,
        [
            ValidExpectation::Recover { within: seconds(5), fault: 2 },
            ValidExpectation::Recover { within: seconds(4), fault: 0 },
            ValidExpectation::Recover { within: seconds(4), fault: 1 },
            ValidExpectation::Recover { within: seconds(4), fault: 2 },
            ValidExpectation::Recover { within: seconds(6), fault: 1 },
            ValidExpectation::Stall { within: seconds(1), fault: 3 },
        ]
    );
}

#[test]
fn what_ends_a_run_early_is_read_with_its_units() {
    let faults = "faults: [{at: 3s, for: 5s, partition: [[validator], [full]]}]";
    let read = experiment(&format!("{faults}, abort: {{silent: 1m}}"));
    assert_eq!(read.abort, Some(Abort { silent: Some(seconds(60)) }));
    assert_eq!(validate(&read, &documents(QUICKSTART).0[0]).unwrap().abort, read.abort);
    assert_eq!(experiment(faults).abort, None);
}

#[test]
fn what_is_expected_of_the_load_has_limits_with_units() {
    let expect = "expect: [latency: {p50: 200ms, p99: 1s}, throughput: {atLeast: 90/s}]";
    let valid = validate(&experiment(expect), &documents(QUICKSTART).0[0]).unwrap();
    let limits = LatencyLimits { p50: Some(Duration::from_millis(200)), p90: None, p99: Some(seconds(1)) };
    let expected = [ValidExpectation::Latency(limits), ValidExpectation::Throughput { at_least: 90 }];
    assert_eq!(valid.expect, expected);
    let mut idle = documents(QUICKSTART).0.remove(0);
    idle.load = None;
    let told = validate(&experiment(expect), &idle).unwrap_err().to_string();
    assert!(
        told.contains("spec.expect[0].latency: `latency` is about a load, and the testnet has none"),
        "{told}"
    );
}
