//! Links that are slow and lossy, as asked, as measured, and as a program in a node's network meets them.

use std::{fs, path::Path, time::Duration};

use netsplit_e2e::{Experiment, Kind, Lab, Link, Testnet, exit, kill, until};
use nix::sys::signal::Signal;

const MOMENT: Duration = Duration::from_secs(15);

#[test]
fn links_are_what_was_asked_by_their_own_word_and_by_a_programs() {
    let lab = Lab::new();
    let testnet = Testnet { links: "latency: 10ms, jitter: 2ms", ..Testnet::new("slow") };
    let file = lab.write("slow.yaml", &testnet.yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    until("all links are measured as asked", MOMENT, || {
        lab.links("slow").iter().all(|link| link.as_asked == Some(true))
    });
    for link in lab.links("slow") {
        assert_near(&link, 10.0);
        assert_eq!(link.asked, serde_json::json!({ "latency": "10ms", "jitter": "2ms" }));
    }

    let printed = lab.ok(&["link", "validator-0", "validator-1", "--latency", "80ms", "--one-way"]);
    assert!(printed.contains("validator-0 -> validator-1: latency 80ms"), "{printed}");
    assert!(printed.contains("1 directed links changed, proven"), "{printed}");
    for link in lab.links("slow") {
        let changed = (link.from.as_str(), link.to.as_str()) == ("validator-0", "validator-1");
        assert_near(&link, if changed { 80.0 } else { 10.0 });
    }
    // A round trip goes both ways, whoever begins it; with 2 ms of jitter each way.
    assert_connects_within(&lab, "slow", "validator-0", "validator-1", 85.0..105.0);
    assert_connects_within(&lab, "slow", "validator-1", "validator-0", 85.0..105.0);
    assert_connects_within(&lab, "slow", "validator-0", "validator-2", 15.0..35.0);
    let height = lab.status("slow").top();
    lab.above("slow", height + 2, MOMENT);

    let ended = lab.run(&["heal", "validator-0", "validator-1"]);
    assert_eq!(ended.code, Some(exit::USAGE), "it was made one-way: {ended:#?}");
    lab.ok(&["heal", "validator-0", "validator-1", "--one-way"]);
    assert_connects_within(&lab, "slow", "validator-0", "validator-1", 15.0..35.0);
    for link in lab.links("slow") {
        assert_near(&link, 10.0);
    }

    let ended = lab.run(&["link", "validator-0", "validator-1", "--loss", "100%"]);
    assert_eq!(ended.code, Some(exit::USAGE), "{ended:#?}");
    assert!(ended.stderr.contains("use a `cut`"), "{ended:#?}");
    lab.ok(&["down"]);
    lab.assert_nothing_left();
}

#[test]
fn a_testnet_without_slow_links_measures_only_what_a_fault_changes() {
    let lab = Lab::new();
    let file = lab.write("fast.yaml", &Testnet::new("fast").yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    assert!(lab.links("fast").iter().all(|link| link.measured.is_none() && link.as_asked.is_none()));
    let printed =
        lab.ok(&["link", "validator-0", "validator-1,validator-2", "--loss", "20%", "--for", "20s"]);
    assert!(printed.contains("4 directed links changed, proven"), "{printed}");
    let links = lab.links("fast");
    let measured: Vec<&Link> = links.iter().filter(|link| link.measured.is_some()).collect();
    assert_eq!(measured.len(), 4, "{measured:#?}");
    // The nodes' own packets meet it too.
    until("packets of nodes are lost", MOMENT, || {
        let lossy = lab.links("fast").into_iter().filter_map(|link| link.measured);
        lossy.map(|seen| seen.lost).sum::<u64>() > 0
    });
    let printed = lab.ok(&["heal"]);
    assert!(printed.contains("loss 20%"), "{printed}");
    until("nothing is measured any more", MOMENT, || {
        lab.links("fast").iter().all(|link| link.measured.is_none())
    });
}

/// The file that a user is shown.
#[test]
fn the_example_with_slow_links_passes() {
    let lab = Lab::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/far-apart.yaml");
    let file = lab.write("far-apart.yaml", &fs::read_to_string(example).unwrap());
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let [fault] = outcome.faults.as_slice() else { panic!("one fault: {:?}", outcome.faults) };
    assert!(fault.proven && fault.links == 6, "{fault:?}");
    assert!(fault.evidence.starts_with("6 links measured: 1"), "{fault:?}");
    lab.assert_nothing_left();
}

/// The file that a user is shown: wide-area links, and a region that is cut off.
#[test]
fn the_example_of_the_whole_world_passes() {
    let lab = Lab::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/world.yaml");
    let file = lab.write("world.yaml", &fs::read_to_string(example).unwrap());
    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let fault = |name: &str| {
        let found = outcome.faults.iter().find(|fault| fault.id.ends_with(name));
        found.unwrap_or_else(|| panic!("{name}: {:?}", outcome.faults))
    };
    let (cable, slow) = (fault("/cable"), fault("/slow-spot"));
    assert!(cable.proven && cable.links == 2 * 2 * 5, "{cable:?}");
    assert!(slow.proven && slow.links == 2 * 2, "{slow:?}");
    lab.assert_nothing_left();
}

/// Half of what the pack has for the way there and back; each direction by itself.
#[test]
fn links_between_regions_are_what_the_pack_says() {
    const PACK: &str = include_str!("../../../operator/spec/wan/seattle-peers.csv");
    let lab = Lab::new();
    let testnet = Testnet { links: "regions: seattle-peers, jitter: 1ms", ..Testnet::new("peers") };
    let regions = ["n07", "n20", "n21", "n33"];
    let file = lab
        .write("peers.yaml", &testnet.yaml().replace("count: 4", "count: 4, regions: [n07, n20, n21, n33]"));
    lab.ok(&["up", "-f", &file, "--detach"]);
    until("all links are measured as asked", MOMENT, || {
        lab.links("peers").iter().all(|link| link.as_asked == Some(true))
    });
    let half = |from: usize, to: usize| -> f64 {
        let start = format!("{},{},", regions[from], regions[to]);
        let rtt = PACK.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
        rtt.parse::<f64>().unwrap() / 2.0
    };
    let links = lab.links("peers");
    assert_eq!(links.len(), 12);
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(from, to)| from != to)
    {
        let ends = (format!("validator-{from}"), format!("validator-{to}"));
        let link = links.iter().find(|link| (&link.from, &link.to) == (&ends.0, &ends.1)).unwrap();
        assert_near(link, half(from, to));
    }
    for (from, to) in [(0, 1), (2, 3)] {
        let both = half(from, to) + half(to, from);
        let (from, to) = (format!("validator-{from}"), format!("validator-{to}"));
        for (from, to) in [(&from, &to), (&to, &from)] {
            assert_connects_within(&lab, "peers", from, to, both - 3.0..both + 15.0);
        }
    }
    lab.ok(&["down"]);
    lab.assert_nothing_left();
}

/// A user's own figures, from a file beside the YAML; the nodes of a fault by region, by role and by lot.
#[test]
fn a_users_own_matrix_and_faults_by_region() {
    let lab = Lab::new();
    let testnet = Testnet { links: "matrix: own.csv", full: 1, ..Testnet::new("own") };
    let yaml = testnet.yaml();
    let yaml = yaml
        .replace("count: 4", "count: 4, regions: [lab, sea]")
        .replace("count: 1", "count: 1, region: sea");
    let file = lab.write("own.yaml", &yaml);
    let ended = lab.run(&["up", "-f", &file, "--detach"]);
    assert_eq!(ended.code, Some(exit::USAGE), "{ended:#?}");
    assert!(ended.stderr.contains("spec.links.matrix: cannot read `own.csv`"), "{ended:#?}");
    lab.write("own.csv", "from,to,latency,loss\nlab,sea,30ms,\nsea,lab,70,1\n");
    let ended = lab.run(&["up", "-f", &file, "--detach"]);
    for problem in
        ["own.csv:3: Testnet/own: spec.links.matrix: latency: `70` has no unit", "loss: `1` is not a share"]
    {
        assert!(ended.stderr.contains(problem), "{ended:#?}");
    }
    lab.write("own.csv", "from,to,latency\nlab,sea,30ms\nsea,lab,70ms\n");
    lab.ok(&["up", "-f", &file, "--detach"]);
    // Its file may go: what runs is whole.
    fs::remove_file(lab.work().join("own.csv")).unwrap();
    let of = |from: &str, to: &str| {
        let links = lab.links("own");
        links.into_iter().find(|link| link.from == from && link.to == to).unwrap()
    };
    until("links between regions are measured", MOMENT, || {
        lab.links("own").iter().all(|link| link.as_asked != Some(false))
            && of("validator-0", "validator-1").as_asked == Some(true)
            && of("validator-1", "validator-0").as_asked == Some(true)
    });
    assert_near(&of("validator-0", "validator-1"), 30.0);
    assert_near(&of("validator-1", "validator-0"), 70.0);
    assert!(of("validator-0", "validator-2").measured.is_none(), "both are in the lab");
    assert_connects_within(&lab, "own", "validator-0", "validator-1", 97.0..115.0);

    let printed = lab.ok(&["link", "region:sea", "role:full", "--latency", "20ms", "--one-way"]);
    assert!(printed.contains("full-0,validator-1,validator-3 -> full-0: latency 20ms"), "{printed}");
    let printed = lab.ok(&["cut", "region:lab/random:1", "full"]);
    assert!(printed.contains("2 directed links cut, proven"), "{printed}");
    lab.ok(&["heal", "region:lab/random:1", "full"]);
    let ended = lab.run(&["cut", "region:see", "full"]);
    assert!(ended.stderr.contains("unknown region `see`, did you mean `sea`?"), "{ended:#?}");
    lab.ok(&["down"]);
    lab.assert_nothing_left();
}

/// A ramp is proven at its end, and no sooner.
#[test]
fn a_link_that_grows_slower_is_proven_at_its_end() {
    let lab = Lab::new();
    let mut experiment = Experiment { lasts: 9, ..Experiment::halves("ramp") }
        .expect("progress: {within: 5s}")
        .expect("agreement: {}");
    experiment.fault =
        "ramp: {over: 4s}\n      link: {from: [validator-0], to: [validator-1], latency: 80ms}".to_owned();
    let file = lab.write("ramp.yaml", &experiment.with(&Testnet::new("ramp")));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("split applied", MOMENT);
    let between = |link: &Link| {
        let measured = link.measured.as_ref().and_then(|measured| measured.latency_ms);
        measured.is_some_and(|ms| ms > 15.0 && ms < 75.0)
    };
    until("it is on its way", MOMENT, || lab.links("ramp").iter().any(between));
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let evidence = &outcome.faults[0].evidence;
    assert!(
        evidence.starts_with("2 links measured: 80.") || evidence.starts_with("2 links measured: 79."),
        "{evidence}"
    );
    lab.assert_nothing_left();
}

/// While the agents hang, the rules of their queues end by themselves: the links are fast, whatever was asked.
#[test]
fn slow_links_that_nobody_holds_are_invalid() {
    let lab = Lab::new();
    let mut experiment = Experiment { lasts: 10, ..Experiment::halves("hang") }.expect("agreement: {}");
    experiment.fault = "link: {from: [validator-0], to: [validator-1], latency: 100ms}".to_owned();
    let file = lab.write("hang.yaml", &experiment.with(&Testnet::new("hang")));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("fault-proven", MOMENT);
    run.wait_for_while("verdict", Duration::from_secs(20), || {
        for agent in lab.processes_of(Kind::Agent) {
            kill(agent.pid, Signal::SIGSTOP);
        }
    });
    let (code, outcome) = run.verdict();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::INVALID, "Invalid"), "{}", outcome.words());
    assert!(outcome.words().contains("fault `split` was applied, but without proof"), "{}", outcome.words());
    lab.assert_nothing_left();
}

/// By more than 1 ms or 5 % a link is not what was asked for.
fn assert_near(link: &Link, ms: f64) {
    let measured = link.measured.as_ref().and_then(|measured| measured.latency_ms);
    let off = measured.map(|measured| (measured - ms).abs());
    assert!(off.is_some_and(|off| off <= (ms / 20.0).max(1.0)), "not {ms} ms: {link:?}");
}

/// How long a connection to the peer port of another node takes, timed by a shell in the node's network. The median of
/// five, so that one busy moment decides nothing.
fn assert_connects_within(lab: &Lab, testnet: &str, from: &str, to: &str, wanted: std::ops::Range<f64>) {
    let address = lab.status(testnet).node(to).address.clone();
    let script = "s=${EPOCHREALTIME/./}; exec 3<>/dev/tcp/$0/26600; e=${EPOCHREALTIME/./}; echo $((e - s))";
    let once = || -> f64 {
        let printed = lab.ok(&["exec", from, "--", "bash", "-c", script, &address]);
        printed.trim().parse::<f64>().unwrap_or_else(|_| panic!("microseconds: {printed}")) / 1_000.0
    };
    let mut all: Vec<f64> = std::iter::repeat_with(once).take(5).collect();
    all.sort_by(f64::total_cmp);
    assert!(wanted.contains(&all[2]), "{from} connects to {to} in {all:?} ms, not {wanted:?}");
}
