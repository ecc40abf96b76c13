//! What is known of a testnet before any of its objects exist.

use std::{net::Ipv4Addr, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::backend::BackendError;

/// Names the node that a pod runs, in the pod's environment.
pub const NODE_CONTAINER: &str = "node";
/// The link agent's container.
pub const AGENT_CONTAINER: &str = "agent";
/// Whose objects are whose.
pub const TESTNET_LABEL: &str = "netsplit.dev/testnet";
pub const GROUP_LABEL: &str = "netsplit.dev/group";
/// Who may read the agents' tokens.
pub const TOKEN_AUDIENCE: &str = "netsplit.dev/tables";
/// Where an agent says whether its pod's node may start.
pub const AGENT_PORT: u16 = 26605;
/// The keeper of a node, by its name in the agent's image and in the folder that agent and node share.
pub const KEEPER_PROGRAM: &str = "netsplit-keeper";
/// Its socket, in the same folder.
pub const KEEPER_SOCKET: &str = "socket";
/// Longest name of a StatefulSet whose pods can still be named and labelled.
pub const MAX_SET_NAME: usize = 52;

/// Everything that rendering needs beside the nodes' files.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesConfig {
    pub namespace: String,
    pub testnet: String,
    /// The Testnet object: what is rendered goes when it goes.
    pub owner: OwnerReference,
    pub images: Images,
    pub ports: NodePorts,
    /// Where agents get their tables.
    pub tables: TablesAddress,
    /// Whether links can be cut and nodes held: without it pods hold no agent and satisfy the restricted Pod Security Standard.
    pub faults: bool,
    /// How much disk each node asks for, such as `1Gi`; none: what it writes goes with its pod.
    pub storage: Option<String>,
    /// After this time without a table no fault can be active any more, and a node may start.
    pub fault_lease: Duration,
    pub groups: Vec<GroupSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Holds the node's program; with `faults: off` that is its entry point.
    pub node: String,
    /// Its entry point is `netsplit`; it holds the keeper of nodes beside it.
    pub agent: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

/// The ports that the nodes listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePorts {
    /// TCP and UDP; what faults act on.
    pub peer: u16,
    pub api: u16,
    /// Answers `/ready`.
    pub http: u16,
}

/// How agents find the table server and know that it is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablesAddress {
    /// A DNS name with an address for each operator; also the name in the server's certificate.
    pub service_dns: String,
    pub port: u16,
    /// The certificate authority, as PEM.
    pub ca_pem: String,
}

/// Nodes that differ by their ordinal only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    pub name: String,
    pub count: u32,
}

impl KubernetesConfig {
    /// The StatefulSet, and the Secret, of a group.
    pub fn set_name(&self, group: &str) -> String {
        format!("{}-{group}", self.testnet)
    }

    /// The pod of a node.
    pub fn pod_name(&self, node: &str) -> String {
        format!("{}-{node}", self.testnet)
    }

    /// What other nodes call a node: a name that its pod keeps when its address changes.
    pub fn host(&self, node: &str) -> String {
        format!("{}.{}.{}.svc", self.pod_name(node), self.testnet, self.namespace)
    }

    /// Where nodes listen: their address is not known before they run.
    pub fn bind(&self) -> Ipv4Addr {
        Ipv4Addr::UNSPECIFIED
    }

    /// The names of all nodes, group after group.
    pub fn node_names(&self) -> impl Iterator<Item = String> {
        self.groups
            .iter()
            .flat_map(|group| (0..group.count).map(move |ordinal| format!("{}-{ordinal}", group.name)))
    }

    /// `app.kubernetes.io/name=netsplit-node,netsplit.dev/testnet=...`: the testnet's objects and no other's.
    pub fn selector(&self) -> String {
        format!("{APP_LABEL}={APP},{TESTNET_LABEL}={}", self.testnet)
    }

    pub(super) fn known(&self, node: &str) -> Result<(), BackendError> {
        let known = self.node_names().any(|name| name == node);
        known.then_some(()).ok_or_else(|| BackendError::UnknownNode(node.to_owned()))
    }
}

pub(super) const APP_LABEL: &str = "app.kubernetes.io/name";
pub(super) const APP: &str = "netsplit-node";
pub(super) const MANAGER: &str = "netsplit";
