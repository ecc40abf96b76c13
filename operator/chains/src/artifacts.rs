//! What a node needs before it starts, as values: nothing here touches a disk, a clock or a network.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use netsplit_plan::{PlannedNode, TestnetPlan};

use crate::load::Wallet;

/// Where a node listens and how others call it. The two differ where an address is not known before its node starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHost {
    /// The address its ports are opened at.
    pub bind: IpAddr,
    /// What its peers connect to: an address or a DNS name, without a port.
    pub host: String,
}

impl From<IpAddr> for NodeHost {
    /// A node that listens at the address by which it is known.
    fn from(address: IpAddr) -> Self {
        Self { bind: address, host: address.to_string() }
    }
}

/// Turns a plan into what each node needs. Pure: the same plan and hosts give the same bytes.
pub trait ChainArtifacts: Send + Sync {
    /// What its nodes run.
    fn program(&self) -> Program;

    /// Why its nodes cannot run as pods, as a sentence; none if they can.
    fn not_in_pods(&self) -> Option<&'static str>;

    /// The ports that its nodes listen on.
    fn ports(&self) -> Ports;

    /// Files and command of each node, in the plan's order. `hosts` holds one entry a node, in the same order.
    fn build(&self, plan: &TestnetPlan, hosts: &[NodeHost]) -> Result<Vec<NodeArtifacts>, ArtifactsError>;

    /// By what a node's peers know it, which follows from its key: names and addresses may be mixed up, keys cannot.
    fn identity(&self, plan: &TestnetPlan, node: &PlannedNode) -> String;

    /// The accounts that [`build`](Self::build) funds for load, with their keys.
    fn wallet(&self, plan: &TestnetPlan) -> Result<Arc<dyn Wallet>, ArtifactsError>;
}

/// Everything that one node is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeArtifacts {
    /// Name of the node in the plan.
    pub node: String,
    /// Files to write under the node's own folder before the command starts.
    pub files: Vec<ArtifactFile>,
    /// Program and arguments, to be run with the node's folder as working directory.
    pub command: Vec<String>,
    /// Variables that the program finds in place of what it would inherit.
    pub environment: Vec<(String, String)>,
}

/// One file of a node.
#[derive(Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Relative to the node's folder.
    pub path: PathBuf,
    /// Shared between nodes where it is the same file.
    pub bytes: Bytes,
    /// Permission bits: 0600 for keys, 0644 for the rest.
    pub mode: u32,
}

// Key files must not end up in a log through a derived Debug.
impl fmt::Debug for ArtifactFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactFile")
            .field("path", &self.path)
            .field("bytes", &self.bytes.len())
            .field("mode", &format_args!("{:04o}", self.mode))
            .finish()
    }
}

/// The ports of a node, by what may be done to their traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Traffic between nodes: what faults act on.
    pub peer: Vec<Port>,
    /// The port that [`ChainClient`](crate::ChainClient) speaks to; never cut.
    pub api: u16,
    /// HTTP with metrics and health; never cut.
    pub http: u16,
}

/// A transport port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub protocol: Protocol,
    pub number: u16,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// The program that nodes are started from, and how a user comes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// As nodes' commands begin with it.
    pub name: &'static str,
    /// The variable that says where it is, for a user who wants no search.
    pub variable: Option<&'static str>,
    /// What to do when it is not there.
    pub remedy: &'static str,
}

/// Whether there is one host for each node of the plan.
pub(crate) fn hosts_fit(plan: &TestnetPlan, hosts: &[NodeHost]) -> Result<(), ArtifactsError> {
    if hosts.len() == plan.nodes.len() {
        return Ok(());
    }
    Err(ArtifactsError::Hosts { testnet: plan.name.clone(), nodes: plan.nodes.len(), hosts: hosts.len() })
}

/// The neighbours of a node, and where they are.
pub(crate) fn neighbours<'a>(
    plan: &'a TestnetPlan,
    hosts: &'a [NodeHost],
    node: &PlannedNode,
) -> Result<Vec<(&'a PlannedNode, &'a NodeHost)>, ArtifactsError> {
    let neighbour = |&index: &usize| {
        let unknown =
            || ArtifactsError::UnknownPeer { node: node.name.clone(), peer: index, nodes: plan.nodes.len() };
        plan.nodes.get(index).zip(hosts.get(index)).ok_or_else(unknown)
    };
    node.peers.iter().map(neighbour).collect()
}

/// `host:port`, with the brackets that an IPv6 address needs.
pub(crate) fn at_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Why a plan has no artifacts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactsError {
    #[error("testnet `{testnet}` has {nodes} nodes, but {hosts} hosts were given for them")]
    Hosts { testnet: String, nodes: usize, hosts: usize },
    #[error("testnet `{testnet}` has no validator: nobody could make a block")]
    NoValidator { testnet: String },
    #[error("node `{node}` lists neighbour number {peer}, but there are only {nodes} nodes")]
    UnknownPeer { node: String, peer: usize, nodes: usize },
    #[error("testnet `{testnet}` gives a {file} that no node would take: {problems}")]
    Invalid { testnet: String, file: &'static str, problems: String },
}
