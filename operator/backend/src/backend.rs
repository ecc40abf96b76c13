//! The [`Backend`] trait and its words.

use std::{
    collections::BTreeMap, fmt, io, net::IpAddr, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration,
};

use async_trait::async_trait;
pub use netsplit_links::{
    CutState, Proof,
    shape::{Counters, FASTEST_MEASURED, LinkState, Share},
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// Both ways of a byte stream to a node's port.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Connection for T {}

/// A TCP connection made inside the testnet's network.
pub type NodeStream = Box<dyn Connection>;

/// Where a node will be: known before anything starts, because configuration files name addresses and paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlace {
    pub name: String,
    pub address: IpAddr,
    /// The node's working directory; relative paths of its files and command are below it.
    pub directory: PathBuf,
}

/// One file of a node.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeFile {
    /// Relative to the node's directory; no `..`.
    pub path: PathBuf,
    pub contents: Vec<u8>,
    /// Unix permission bits, such as `0o600` for a key.
    pub mode: u32,
}

impl fmt::Debug for NodeFile {
    /// Keys travel here: the contents stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeFile({}, {} bytes, {:o})", self.path.display(), self.contents.len(), self.mode)
    }
}

/// What a node needs to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeArtifacts {
    pub node: String,
    pub files: Vec<NodeFile>,
    /// Program and arguments; the working directory is the node's. A program without `/` is searched for.
    pub command: Vec<String>,
    /// Variables of the program, in place of inherited ones of the same name.
    pub environment: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// Its place exists, its process does not yet.
    Starting,
    Running,
    /// Ended by itself or by `stop`: one of the two is set.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    /// The program could not be started.
    Failed {
        reason: String,
    },
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Exited { code: Some(code), .. } => write!(f, "exited ({code})"),
            Self::Exited { signal: Some(signal), .. } => write!(f, "killed ({signal})"),
            Self::Exited { .. } => f.write_str("exited"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub name: String,
    pub state: NodeState,
    /// The last process, also after it has ended.
    pub pid: Option<u32>,
    pub address: IpAddr,
    /// Restarts asked for; nothing restarts by itself.
    pub restarts: u32,
    /// Its process is stopped, by the kernel's word, whoever did it.
    pub paused: bool,
    /// What [`Backend::set_nodes`] holds it in.
    #[serde(default)]
    pub held: Option<Hold>,
}

/// The state that a fault holds a node's process in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// It is there and does nothing.
    Paused,
    /// It is gone, after SIGTERM, or SIGKILL at the deadline.
    Ended,
    /// It is gone, after SIGKILL.
    Killed,
}

impl Hold {
    /// There is no process.
    pub fn is_down(self) -> bool {
        self != Self::Paused
    }
}

/// One node that is to be held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeHold {
    pub node: String,
    pub hold: Hold,
}

impl NodeHold {
    /// By node: of several faults the one that leaves least of it counts.
    pub(crate) fn strongest(holds: Vec<Self>) -> BTreeMap<String, Hold> {
        let mut strongest: BTreeMap<String, Hold> = BTreeMap::new();
        for Self { node, hold } in holds {
            let known = strongest.entry(node).or_insert(hold);
            *known = hold.max(*known);
        }
        strongest
    }
}

/// Every directed link from a node in `from` to a node in `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutRect {
    pub from: Vec<String>,
    pub to: Vec<String>,
}

/// One fault: directed cuts that end when the lease is not renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutRequest {
    pub id: String,
    pub rects: Vec<CutRect>,
    pub lease: Duration,
}

/// Probes over one directed link since its cut began; see [`netsplit_links::PairEvidence`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairEvidence {
    pub from: String,
    pub to: String,
    pub probes_sent: u64,
    pub probes_received: u64,
    pub controls_sent: u64,
    pub controls_received: u64,
}

/// What is known about one cut, by node name; see [`netsplit_links::CutEvidence`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutEvidence {
    pub id: String,
    pub state: CutState,
    pub drops: u64,
    pub lease_left_ms: u64,
    pub pairs: Vec<PairEvidence>,
    pub proof: Proof,
    pub problems: Vec<String>,
}

/// One directed link and what it is to do to packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRequest {
    pub from: String,
    pub to: String,
    /// Names the link in its testnet: the random decisions follow from it and the seed.
    pub number: u32,
    pub state: LinkState,
}

/// The whole desired state of shaped links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinksRequest {
    pub seed: u64,
    /// What holds for as long as the testnet runs. Handed over with every fault, so it costs least when it stays the same
    /// one.
    pub base: Arc<[LinkRequest]>,
    /// In place of what `base` says of the same link, until the lease ends.
    pub faulted: Vec<LinkRequest>,
    pub lease: Duration,
}

/// What timed probes say of one shaped link, since its state last changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkEvidence {
    pub from: String,
    pub to: String,
    pub sent: u64,
    pub received: u64,
    /// Of those that came: twice, and without having waited for the latency.
    #[serde(default)]
    pub duplicated: u64,
    #[serde(default)]
    pub reordered: u64,
    /// One way, without jitter, in microseconds; absent until a probe came.
    pub latency_us: Option<i64>,
    /// How many probes that is the median of.
    pub samples: usize,
    /// Bits a second that it lets through; absent where it has no rate that can be measured, or too little is known.
    #[serde(default)]
    pub rate: Option<u64>,
    /// What happened to the packets of the nodes.
    pub counters: Counters,
}

/// What is known about all shaped links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinksEvidence {
    pub links: Vec<LinkEvidence>,
    /// What the emulation itself did wrong, as sentences.
    pub faults: Vec<String>,
    /// The faults' lease ended before it was renewed: the links are at their base.
    pub lease_ended: bool,
}

/// What may be done to a node's process from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeSignal {
    /// SIGTERM: an orderly end.
    Terminate,
    /// SIGKILL: a crash.
    Kill,
    /// SIGSTOP: a hang.
    Pause,
    /// SIGCONT.
    Resume,
}

/// The three streams of a command run beside a node.
#[derive(Debug)]
pub struct ExecStdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// The streams are a terminal (the slave end): the command gets a session of its own with it in control.
    pub tty: bool,
}

/// How a command ended; one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

/// A place that can run a testnet and break its links.
///
/// All methods may be called at the same time from any task. `stop` ends everything; dropping the value does so too, without
/// the grace.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// Where nodes with these names will be. The same names give the same places for as long as the backend lives.
    fn places(&self, nodes: &[String]) -> Result<Vec<NodePlace>, BackendError>;

    /// Builds the network, writes the files and starts every node. Once per backend. Cuts and links that were set before
    /// hold from the nodes' first packet.
    async fn start(&self, nodes: Vec<NodeArtifacts>) -> Result<(), BackendError>;

    async fn nodes(&self) -> Result<Vec<NodeStatus>, BackendError>;

    /// Opens a TCP connection to a node's port; no cut touches it.
    async fn connect(&self, node: &str, port: u16) -> Result<NodeStream, BackendError>;

    /// Sets the whole desired state: cuts that are not named end, named ones start or are renewed, all in one transaction.
    async fn set_cuts(&self, cuts: Vec<CutRequest>) -> Result<(), BackendError>;

    /// Sets the whole desired state of shaped links; those that are not named do nothing to packets. A link that stays keeps
    /// its place in its random sequence.
    async fn set_links(&self, links: LinksRequest) -> Result<(), BackendError>;

    /// What is known about the shaped links.
    async fn links(&self) -> Result<LinksEvidence, BackendError>;

    /// Sets the whole desired state of the nodes' processes: those that are not named run again, with their data. Nothing is
    /// done if one that is named and was not held has no process. An orderly end may take longer than this call. Ends when
    /// the lease is not renewed.
    async fn set_nodes(&self, holds: Vec<NodeHold>, lease: Duration) -> Result<(), BackendError>;

    /// Renews the leases of all active cuts, of the faulted links and of held nodes; fails with the names of those that had
    /// ended.
    async fn renew(&self) -> Result<(), BackendError>;

    /// One entry per active cut, and per cut that ended recently.
    async fn evidence(&self) -> Result<Vec<CutEvidence>, BackendError>;

    /// Runs a command in a node's network until it ends. Dropping the future kills it.
    async fn exec(&self, node: &str, argv: Vec<String>, stdio: ExecStdio) -> Result<ExecExit, BackendError>;

    async fn signal(&self, node: &str, signal: NodeSignal) -> Result<(), BackendError>;

    /// Ends a node's process if it runs (SIGTERM, then SIGKILL at the deadline) and starts it again with its data. Refused
    /// for one that is held.
    async fn restart(&self, node: &str) -> Result<(), BackendError>;

    /// Ends all nodes (SIGTERM, then SIGKILL at the deadline), the network and the backend itself.
    async fn stop(&self) -> Result<(), BackendError>;
}

/// Why the backend did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("no node is called {0:?}")]
    UnknownNode(String),
    /// The request cannot be right; the sentence says why.
    #[error("{0}")]
    Invalid(String),
    /// The machine refuses; the sentence says what to enable.
    #[error("{0}")]
    Refused(String),
    #[error("cannot connect to port {port} of {node}")]
    Connect {
        node: String,
        port: u16,
        #[source]
        source: io::Error,
    },
    /// What failed, as the process that did it tells.
    #[error("{0}")]
    Failed(String),
    /// The process that owns the testnet's network is gone, and with it the testnet.
    #[error("the testnet is gone: {0}")]
    Gone(String),
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}
