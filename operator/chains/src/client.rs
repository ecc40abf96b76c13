//! One running node, seen from outside: what an observer and a load generator need of any chain.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a node.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes a new connection to the API port of one node. A backend provides it, since the node may live in a
/// network that this process is no part of.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Blocks in ascending height without gaps; it ends after the first error.
pub type BlockStream = BoxStream<'static, Result<BlockSeen, ClientError>>;

/// One node. Calls are independent of each other and may run at the same time; each has a deadline of its own,
/// so that a node that hangs is an error and not a wait.
#[async_trait]
pub trait ChainClient: Send + Sync {
    /// Name of the node.
    fn node(&self) -> &str;

    /// What the node says about itself.
    async fn status(&self) -> Result<NodeState, ClientError>;

    /// Follows the final blocks. Reconnecting is left to the caller, who knows the last height it has.
    async fn blocks(&self, query: BlocksQuery) -> Result<BlockStream, ClientError>;

    /// Hands in transactions; one result each, in the same order. On an error any of them may have been taken.
    async fn submit(&self, transactions: Vec<Bytes>) -> Result<Vec<Submission>, ClientError>;

    /// The nonce that the next transaction of that address has to carry, as of the newest final block.
    async fn next_nonce(&self, address: &str) -> Result<u64, ClientError>;

    /// Whether the node considers itself ready to serve.
    async fn health(&self) -> Result<Health, ClientError>;

    /// Most transactions that one [`submit`](Self::submit) may carry.
    fn max_batch(&self) -> usize;
}

/// A 32-byte hash that names a block or a transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 32]);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// What to stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlocksQuery {
    pub from: StartAt,
    /// With [`BlockSeen::transaction_ids`].
    pub transaction_ids: bool,
    /// With [`BlockSeen::state_root`], as far as the node tells it.
    pub state_roots: bool,
}

/// Where a stream of blocks begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At this height, which is at least 1.
    Height(u64),
    /// At the next block to become final.
    Next,
}

/// A final block, as one node tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSeen {
    pub height: u64,
    pub id: Id,
    /// The block's own time, Unix milliseconds.
    pub time_ms: u64,
    /// When this node saw it become final, Unix milliseconds by its clock; none when it does not know (any more).
    pub final_at_ms: Option<u64>,
    /// The chain's own text for the state after it, as this node computed it itself; none when it does not tell, or was not
    /// asked.
    pub state_root: Option<Arc<str>>,
    /// How many transactions it holds.
    pub transactions: u32,
    /// Empty unless asked for.
    pub transaction_ids: Vec<Id>,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    pub name: String,
    /// By what its peers know it: see [`identity`](crate::ChainArtifacts::identity).
    pub identity: String,
    /// Version of the software.
    pub version: String,
    /// The height that consensus works on.
    pub height: u64,
    /// Height of the newest final block; 0 before the first.
    pub final_height: u64,
    pub final_id: Option<Id>,
    /// Whether it knows that others are ahead.
    pub catching_up: bool,
    pub peers: Vec<PeerState>,
    /// Transactions that wait for a block.
    pub mempool: u64,
}

/// A neighbour of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    pub name: String,
    pub connected: bool,
    /// Why the last attempt to connect failed; empty if none did.
    pub last_error: String,
}

/// Whether a node is ready to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Serving,
    NotServing,
}

/// What a node did with one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// It waits for a block now.
    Accepted(Id),
    Refused(Refusal),
}

/// Why a node did not take a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// One sentence, as the node gave it.
    pub message: String,
}

/// The reasons that a sender can act on, and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The node cannot take more now; the same transaction may be sent again later.
    Full,
    /// The node has it already.
    Duplicate,
    /// The nonce was used by an earlier transaction.
    StaleNonce,
    /// The nonce is too far ahead.
    FutureNonce,
    Funds,
    Fee,
    Signature,
    WrongChain,
    Malformed,
    Other,
}

impl RefusalKind {
    /// A short name for tables and JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Duplicate => "duplicate",
            Self::StaleNonce => "stale nonce",
            Self::FutureNonce => "future nonce",
            Self::Funds => "insufficient funds",
            Self::Fee => "fee too low",
            Self::Signature => "bad signature",
            Self::WrongChain => "wrong chain",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

/// Why a call to a node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection, a lost one, or no answer in time.
    #[error("node `{node}` cannot be reached for {call}")]
    Unreachable {
        node: String,
        call: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node answered with an error.
    #[error("node `{node}` refused {call}: {message}")]
    Refused { node: String, call: &'static str, message: String },
    /// The blocks asked for are not kept any more.
    #[error("node `{node}` no longer holds block {height}: {message}")]
    Pruned { node: String, height: u64, message: String },
    /// The answer breaks the API's own rules.
    #[error("node `{node}` gave a malformed answer to {call}: {what}")]
    Malformed { node: String, call: &'static str, what: String },
}

impl ClientError {
    /// No connection, a lost one, or no answer in time.
    pub(crate) fn unreachable(
        node: &str,
        call: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreachable { node: node.to_owned(), call, source: source.into() }
    }
}
