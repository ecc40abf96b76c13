//! Operators that cannot lead any more, in the middle of a fault.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use netsplit_e2e::{Cluster, http_get, until};

use crate::installed::{Installed, LEASE, PATIENCE, SPLIT_BRAIN, demand, height_at, partition};

/// How long the API server is away: longer than the leader's lease and a fault's together.
const AWAY: Duration = Duration::from_mins(1);

/// The API server of the cluster, gone until this is dropped.
struct Outage<'a>(&'a Cluster);

impl<'a> Outage<'a> {
    fn begin(cluster: &'a Cluster) -> Self {
        cluster.part("stop", "apiserver");
        Self(cluster)
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        self.0.part("start", "apiserver");
        until("the API server answers again", PATIENCE, || {
            self.0.kubectl(&["get", "--raw", "/readyz"]).output().is_ok_and(|answer| answer.status.success())
        });
    }
}

/// Nobody can tell the operator anything, and it cannot keep what it does: it lets go, and says so when it is back.
#[test]
fn an_api_server_that_is_away_ends_the_faults_and_the_run_is_invalid() {
    let here = Installed::new("away");
    here.quickstart();
    let node = here.address("quickstart-validator-0");
    // The example's fault, but longer than the API server will be away; and one that nobody judges.
    here.namespace.apply(&SPLIT_BRAIN.replace("for: 15s", "for: 1h"));
    here.until_fault_is("split-brain", "proven");
    here.namespace.apply(&partition("cut", "1h"));
    here.until_fault_is("cut", "proven");
    let stalled = height_at(node).expect("the node answers");

    let outage = Outage::begin(here.cluster);
    let began = Instant::now();
    until("blocks become final again", LEASE + PATIENCE, || height_at(node) > Some(stalled + 2));
    let lasted = began.elapsed();
    assert!(lasted < LEASE + Duration::from_secs(15), "the faults ended only after {lasted:?}");
    until("it was away for long enough", AWAY, || began.elapsed() >= AWAY);
    drop(outage);

    for name in ["split-brain", "cut"] {
        let (phase, status) = here.verdict(name);
        assert_eq!(phase, "Invalid", "{name}: {status}");
        let reason = here.get(&format!("experiment/{name}"), ".status.reasons[0]");
        assert!(
            reason.contains("no operator renewed it for") && reason.contains("its lease is 30 s"),
            "{name}: {reason}"
        );
    }
    here.the_chain_lives("after");
    assert_eq!(restarts(&here, &leader(&here)), "0", "the operator came back by itself");
}

fn restarts(here: &Installed<'_>, pod: &str) -> String {
    here.get(&format!("pod/{pod}"), ".status.containerStatuses[0].restartCount")
}

/// Who leads, by its Lease.
fn leader(here: &Installed<'_>) -> String {
    let holder = here.get("lease/netsplit-operator", ".spec.holderIdentity");
    // The pod's name, and what tells the process from an earlier one in the same pod.
    holder.rsplit_once('-').map(|(pod, _)| pod.to_owned()).unwrap_or_default()
}

/// The leader hangs in the middle of a fault; the other one goes on before the fault's lease ends. When the first one wakes
/// up, it finds that it leads no more.
#[test]
fn of_two_operators_one_leads() {
    let here = Installed::with("two", &["replicas=2"]);
    here.quickstart();
    here.namespace.apply(SPLIT_BRAIN);
    here.until_fault_is("split-brain", "proven");
    let first = leader(&here);
    let process = here.process(&first, "netsplit").to_string();
    demand(Command::new("kill").args(["-STOP", &process]));
    let hung = Instant::now();
    until("the other one leads", PATIENCE, || ![&first, ""].contains(&leader(&here).as_str()));
    let second = leader(&here);
    here.until_told("another operator began it");
    assert!(hung.elapsed() < LEASE, "the fault's lease had ended by then: {:?}", hung.elapsed());
    demand(Command::new("kill").args(["-CONT", &process]));

    let (phase, status) = here.verdict("split-brain");
    assert_eq!(phase, "Passed", "{status}");
    assert_eq!(leader(&here), second, "who woke up let the other one lead");
    let leads = |pod: &str| {
        let mut address = here.address(pod);
        address.set_port(8080);
        http_get(address, "/metrics").is_some_and(|metrics| metrics.contains("\nnetsplit_operator_leader 1"))
    };
    assert_eq!((leads(&first), leads(&second)), (false, true));
    // One of them began it, the other one went on, and neither of them did so twice.
    let reasons = here.namespace.ok(&["get", "events", "--output=jsonpath={.items[*].reason}"]);
    assert_eq!(reasons.split(' ').filter(|reason| *reason == "Resumed").count(), 1, "{reasons}");
    assert_eq!(restarts(&here, &first), "0", "nobody had to start it again");
}
