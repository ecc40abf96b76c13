//! From a testnet's spec to its nodes.

use std::time::Duration;

use netsplit_spec::{
    BaseLinks, Chain, Consensus, Load, NodeIndex, Retention, Role, Testnet, Timeouts, Topology, units,
};
use serde::{Deserialize, Serialize};

/// All that a backend and a chain need to know to make a testnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestnetPlan {
    pub name: String,
    pub chain: Chain,
    /// Rules all randomness, keys included.
    pub seed: u64,
    #[serde(with = "units::serde_duration")]
    pub block_time: Duration,
    #[serde(default, skip_serializing_if = "Timeouts::is_empty")]
    pub timeouts: Timeouts,
    pub topology: Topology,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<BaseLinks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// By index: `nodes[i].index == i`.
    pub nodes: Vec<PlannedNode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedNode {
    /// `group-ordinal`, unique in the testnet.
    pub name: String,
    pub group: String,
    pub role: Role,
    /// Place in its group.
    pub ordinal: u32,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Place in the testnet.
    pub index: NodeIndex,
    /// Its neighbours, ascending; symmetric.
    pub peers: Vec<NodeIndex>,
}

impl TestnetPlan {
    pub fn node(&self, name: &str) -> Option<&PlannedNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    pub fn validators(&self) -> impl Iterator<Item = &PlannedNode> {
        self.nodes.iter().filter(|node| node.role == Role::Validator)
    }
}

/// The plan of a testnet that [`netsplit_spec::parse`] or [`netsplit_spec::validate_testnet`] has passed.
pub fn plan_testnet(testnet: &Testnet) -> TestnetPlan {
    let Consensus::Bft { block_time, timeouts } = testnet.consensus;
    let total = testnet.nodes.iter().map(|group| group.count as usize).sum();
    let members =
        testnet.nodes.iter().flat_map(|group| (0..group.count).map(move |ordinal| (group, ordinal)));
    let nodes = members
        .enumerate()
        .map(|(index, (group, ordinal))| PlannedNode {
            name: format!("{}-{ordinal}", group.name),
            group: group.name.clone(),
            role: group.role,
            ordinal,
            region: group.region(ordinal).map(str::to_owned),
            index,
            peers: neighbours(testnet.topology, index, total),
        })
        .collect();
    TestnetPlan {
        name: testnet.name.clone(),
        chain: testnet.chain,
        seed: testnet.seed(),
        block_time,
        timeouts,
        topology: testnet.topology,
        links: testnet.links.clone(),
        load: testnet.load,
        retention: testnet.retention,
        nodes,
    }
}

fn neighbours(topology: Topology, index: NodeIndex, total: usize) -> Vec<NodeIndex> {
    let mut peers: Vec<NodeIndex> = match topology {
        Topology::Mesh => (0..total).collect(),
        Topology::Ring => vec![(index + total - 1) % total, (index + 1) % total],
        Topology::Star if index == 0 => (0..total).collect(),
        Topology::Star => vec![0],
    };
    peers.retain(|peer| *peer != index);
    peers.sort_unstable();
    peers.dedup();
    peers
}
