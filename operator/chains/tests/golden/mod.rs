//! The plans that artifacts are made of, and what of them is shown.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use netsplit_chains::{NodeArtifacts, NodeHost};
use netsplit_plan::TestnetPlan;
use netsplit_spec::{Chain, Consensus, Load, NodeGroup, Origin, Role, Testnet, Timeouts, Topology};

pub fn testnet(chain: Chain, validators: u32, full: u32, topology: Topology) -> Testnet {
    let group =
        |name: &str, role, count| NodeGroup { name: name.to_owned(), role, count, regions: Vec::new() };
    Testnet {
        name: "golden".to_owned(),
        seed: Some(7),
        chain,
        consensus: Consensus::Bft {
            block_time: Duration::from_millis(500),
            timeouts: Timeouts { propose: Some(Duration::from_millis(1500)), ..Timeouts::default() },
        },
        nodes: [group("validator", Role::Validator, validators), group("full", Role::Full, full)]
            .into_iter()
            .filter(|group| group.count > 0)
            .collect(),
        topology,
        links: None,
        load: Some(Load { transfers_per_second: 100, accounts: 3 }),
        retention: None,
        faults: true,
        storage: None,
        origin: Origin::default(),
    }
}

pub fn hosts(plan: &TestnetPlan) -> Vec<NodeHost> {
    (1..=plan.nodes.len()).map(|n| IpAddr::V4(Ipv4Addr::new(10, 77, 0, n as u8)).into()).collect()
}

pub fn text<'a>(node: &'a NodeArtifacts, path: &str) -> &'a str {
    let file = node.files.iter().find(|file| file.path == Path::new(path)).unwrap();
    std::str::from_utf8(&file.bytes).unwrap()
}
