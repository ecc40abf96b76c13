//! A pod that is taken away comes back as the same node, with its data, and behind the same cut.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use netsplit_e2e::{Claim, Volume, http_get, until, until_some};

use crate::installed::{Installed, PATIENCE, QUICKSTART, demand, experiment, height_at};

const ALONE: &str = "validator-0";
const OTHERS: [&str; 5] = ["validator-1", "validator-2", "validator-3", "full-0", "full-1"];
const PEER_PORT: u16 = 26600;
/// Where an agent says whether the node may start.
const AGENT_PORT: u16 = 26605;

/// As the Eviction API does it, which `kubectl drain` and autoscalers use.
fn evict(here: &Installed<'_>, pod: &str) {
    let mut eviction = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let namespace = &here.namespace.name;
    write!(
        eviction,
        "{{\"apiVersion\":\"policy/v1\",\"kind\":\"Eviction\",\"metadata\":{{\"name\":{pod:?},\"namespace\":{namespace:?}}}}}"
    )
    .expect("a temporary file can be written");
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    let file = eviction.path().to_string_lossy().into_owned();
    here.namespace.ok(&["create", "--raw", &path, "--filename", &file]);
}

/// Counts what reaches the node of a pod from others than these, past its agent.
struct Counter(u32);

impl Counter {
    fn new(here: &Installed<'_>, pod: &str, process: &str, friends: &[String]) -> Self {
        let this = Self(here.process(pod, process));
        let friends = [&["127.0.0.1".to_owned()], friends].concat().join(", ");
        let mut nft = this.nft(&["--file", "-"]).stdin(Stdio::piped()).spawn().expect("nft can be started");
        let rules = format!(
            "table ip e2e {{\n chain crossed {{\n  type filter hook input priority 0;\n  ip saddr {{ {friends} }} accept\n  \
             tcp sport {PEER_PORT} counter\n  tcp dport {PEER_PORT} counter\n  udp sport {PEER_PORT} counter\n  \
             udp dport {PEER_PORT} counter\n }}\n}}\n"
        );
        nft.stdin.take().expect("it is a pipe").write_all(rules.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("it is a child").success(), "{rules}");
        this
    }

    /// In the network of the pod.
    fn nft(&self, arguments: &[&str]) -> Command {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net=/proc/{}/ns/net", self.0)).arg("nft").args(arguments);
        nft
    }

    fn packets(&self) -> u64 {
        let rules = demand(&mut self.nft(&["list", "table", "ip", "e2e"]));
        let words: Vec<&str> = rules.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == "packets");
        counts.map(|pair| pair[1].parse::<u64>().unwrap_or_else(|_| panic!("{rules}"))).sum()
    }
}

fn volumes<'a>(here: &Installed<'a>) -> Vec<Volume<'a>> {
    let of_node = |node: &&str| {
        let name = format!("data-quickstart-{node}");
        let namespace = &here.namespace.name;
        here.cluster.volume(&Claim { namespace, name: &name, class: "standard", size: "64Mi" })
    };
    [ALONE].iter().chain(&OTHERS).map(of_node).collect()
}

#[test]
fn a_pod_that_is_evicted_behind_a_cut_keeps_its_data_and_the_cut() {
    let here = Installed::new("evicted");
    let _volumes = volumes(&here);
    here.namespace.apply(&QUICKSTART.replace("  consensus:", "  storage: 64Mi\n  consensus:"));
    here.wait_for("testnet/quickstart", "condition=Ready");
    until("there is something to keep", PATIENCE, || here.height() >= 10);
    here.namespace.apply(&experiment(
        "alone",
        &format!("faults: [{{at: 0s, for: 1h, partition: [[{ALONE}], [{}]]}}]", OTHERS.join(", ")),
    ));
    here.until_fault_is("alone", "proven");
    let pod = format!("quickstart-{ALONE}");
    let before = here.height();
    let uid = here.get(&format!("pod/{pod}"), ".metadata.uid");
    let address = |node: &str| here.address(&format!("quickstart-{node}")).ip().to_string();
    let friends = OTHERS.map(address);
    let counter = |node: &&str| Counter::new(&here, &format!("quickstart-{node}"), "netsplit-node", &friends);
    let counters: Vec<Counter> = OTHERS.iter().map(counter).collect();

    evict(&here, &pod);
    until("another pod is there", PATIENCE, || {
        let now = here.namespace.ok(&[
            "get",
            "pods",
            &pod,
            "--ignore-not-found",
            "--output=jsonpath={.metadata.uid}",
        ]);
        !now.is_empty() && now != uid
    });
    let inside = Counter::new(&here, &pod, "netsplit", &[]);
    // Its node starts only when its agent says that it holds the cut. What came before had nobody to reach.
    let address: IpAddr = until_some("the pod has an address", PATIENCE, || {
        here.get(&format!("pod/{pod}"), ".status.podIP").parse().ok()
    });
    let agent = SocketAddr::new(address, AGENT_PORT);
    until("the agent holds its table", PATIENCE, || {
        http_get(agent, "/startup").is_some_and(|answer| answer.contains("may start"))
    });
    let to_nobody = inside.packets();
    here.wait_for(&format!("pod/{pod}"), "jsonpath={.status.containerStatuses[0].state.running}");
    let node = here.address(&pod);
    // Nobody could have told it so many blocks.
    let after =
        until_some("the node knows its height", PATIENCE, || height_at(node).filter(|height| *height > 0));
    assert!(after >= before && after <= before + 1, "height {before} became {after}");
    let others = here.address("quickstart-validator-1");
    let seen = height_at(others).expect("the node answers");
    until("the others go on without it", PATIENCE, || height_at(others) > Some(seen + 20));
    assert!(height_at(node) <= Some(before + 1), "it heard of nothing that its own log did not hold");
    let crossed: Vec<u64> = counters.iter().map(Counter::packets).collect();
    assert_eq!((crossed, inside.packets()), (vec![0; OTHERS.len()], to_nobody), "packets crossed the cut");
    assert_eq!(here.get("experiment/alone", ".status.faults[*].state"), "proven");

    here.namespace.ok(&["delete", "experiment/alone"]);
    until("it catches up", PATIENCE, || height_at(node) > Some(seen + 20));
    assert!(inside.packets() > to_nobody, "what crosses is counted");
    here.the_chain_lives("after");
}
