//! Links between pods that are slow and lossy, as asked, as measured, and as a program in a pod meets them.

use std::{ops::Range, process::Command, time::Duration};

use netsplit_e2e::{Lab, Link, exit, until};

use crate::installed::{Installed, PATIENCE, demand};

const EXAMPLE: &str = include_str!("../../../examples/far-apart.yaml");
/// Far above what it takes on a machine that does nothing else.
const MOMENT: Duration = Duration::from_mins(1);

#[test]
fn pods_that_are_far_apart() {
    let here = Installed::new("far-apart");
    let lab = Lab::on(here.cluster, &here.namespace.name);
    let file = lab.write("far-apart.yaml", EXAMPLE);
    lab.ok(&["up", "-f", &file, "--detach"]);
    let supported = here.message("testnet/far-apart", "LinksSupported");
    assert_eq!(supported, "links can be cut, slow and lossy");
    // The status holds counts and the ten worst.
    let counts = |field: &str| here.get("testnet/far-apart", &format!(".status.links.{field}"));
    until("all links are measured as asked", PATIENCE, || counts("asAsked") == "12");
    assert_eq!((counts("total"), counts("measured")), ("12".to_owned(), "12".to_owned()));
    let links = lab.links("far-apart");
    assert_eq!(links.len(), 10, "{links:#?}");
    for link in &links {
        assert_near(link, 20.0);
    }
    assert_eq!(links[0].asked, serde_json::json!({ "latency": "20ms", "jitter": "2ms" }));
    let printed = lab.ok(&["links"]);
    assert!(printed.contains("12 of 12 measured links are as asked"), "{printed}");

    // A connection goes both ways, with 2 ms of jitter each way, and is as slow as was reported.
    connects_within(&here, ("validator-0", "validator-1"), 35.0..60.0);
    let printed =
        lab.ok(&["link", "validator-0", "validator-1", "--latency", "80ms", "--one-way", "--for", "60s"]);
    assert!(printed.contains("validator-0 -> validator-1: latency 80ms"), "{printed}");
    assert!(printed.contains("1 directed links changed, proven"), "{printed}");
    connects_within(&here, ("validator-0", "validator-1"), 95.0..125.0);
    connects_within(&here, ("validator-1", "validator-0"), 95.0..125.0);
    connects_within(&here, ("validator-0", "validator-2"), 35.0..60.0);
    until("the status has it, too", MOMENT, || {
        let links = lab.links("far-apart");
        counts("asAsked") == "12" && links.iter().any(|link| link.to == "validator-1" && is_near(link, 80.0))
    });
    let healed = lab.ok(&["heal", "validator-0", "validator-1", "--one-way"]);
    assert!(healed.starts_with("healed link-"), "{healed}");
    connects_within(&here, ("validator-0", "validator-1"), 35.0..60.0);

    let (code, outcome) = lab.decided(&file);
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::PASSED, "Passed"), "{}", outcome.words());
    let [fault] = outcome.faults.as_slice() else { panic!("one fault: {:?}", outcome.faults) };
    assert!(fault.proven && fault.links == 6, "{fault:?}");
    assert!(fault.evidence.starts_with("6 links measured: 1"), "{fault:?}");
    // What the report's matrix is made of.
    let status = here.get("experiment/far-apart", ".status.outcome");
    assert!(status.contains("before the first fault") && status.contains("while drift lasted"), "{status}");

    // What a pod's agent cannot do is refused with the reason.
    let duplicated = EXAMPLE.replace("jitter: 2ms", "duplicate: 1%");
    let refused =
        lab.run(&["up", "-f", &lab.write("two.yaml", &duplicated.replace("name: far-apart", "name: two"))]);
    assert!(refused.code != Some(0) && refused.stderr.contains("NET_RAW"), "{refused:#?}");
}

/// By more than 1 ms or 5 % a link is not what was asked for.
fn assert_near(link: &Link, ms: f64) {
    assert!(is_near(link, ms), "not {ms} ms: {link:?}");
}

fn is_near(link: &Link, ms: f64) -> bool {
    let measured = link.measured.as_ref().and_then(|measured| measured.latency_ms);
    measured.is_some_and(|measured| (measured - ms).abs() <= (ms / 20.0).max(1.0))
}

/// How long a connection to the peer port of another pod takes, timed by a shell in the pod's network. The median of
/// five, so that one busy moment decides nothing.
fn connects_within(here: &Installed<'_>, (from, to): (&str, &str), wanted: Range<f64>) {
    let pid = here.process(&format!("far-apart-{from}"), "netsplit-node");
    let address = here.get(&format!("pod/far-apart-{to}"), ".status.podIP");
    let script = "s=${EPOCHREALTIME/./}; exec 3<>/dev/tcp/$0/26600; e=${EPOCHREALTIME/./}; echo $((e - s))";
    let once = || -> f64 {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net=/proc/{pid}/ns/net")).args(["bash", "-c", script, &address]);
        let printed = demand(&mut nsenter);
        printed.trim().parse::<f64>().unwrap_or_else(|_| panic!("microseconds: {printed}")) / 1_000.0
    };
    let mut all: Vec<f64> = std::iter::repeat_with(once).take(5).collect();
    all.sort_by(f64::total_cmp);
    assert!(wanted.contains(&all[2]), "{from} connects to {to} in {all:?} ms, not {wanted:?}");
}
