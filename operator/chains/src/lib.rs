//! What a chain is, for the rest of the operator side: files and a command for each node, a client for a
//! running node, and load for a running network. No other operator crate knows a node's formats.
//!
//! * [`artifacts`]: [`ChainArtifacts`], pure: a plan and hosts in, files and commands out.
//! * [`client`]: [`ChainClient`], one running node seen from outside, over connections that a backend hands out.
//! * [`load`]: [`LoadGenerator`], transfers at a set rate, measured from submit to final.
//! * [`netsplit`]: all three for our own node.
//! * [`cometbft`]: all three for CometBFT. Another chain is one more module of this kind.

pub mod artifacts;
pub mod client;
pub mod cometbft;
mod keys;
pub mod load;
pub mod netsplit;

use std::sync::Arc;

pub use artifacts::{
    ArtifactFile, ArtifactsError, ChainArtifacts, NodeArtifacts, NodeHost, Port, Ports, Program, Protocol,
};
pub use client::{
    BlockSeen, BlockStream, BlocksQuery, ChainClient, ClientError, Connector, Health, Id, Io, NodeState,
    PeerState, Refusal, RefusalKind, StartAt, Submission,
};
pub use load::{Latency, LoadConfig, LoadError, LoadGenerator, LoadReport, SignedTransfer, Wallet};

/// A kind of chain: how its nodes are set up, reached and paid from.
pub trait Chain: ChainArtifacts {
    /// A client of one node. It connects when first used and again whenever the connection is lost.
    fn client(&self, node: &str, connector: Connector) -> Arc<dyn ChainClient>;
}

/// The chain that a testnet asks for.
pub fn of(chain: netsplit_spec::Chain) -> Arc<dyn Chain> {
    match chain {
        netsplit_spec::Chain::Netsplit => Arc::new(netsplit::Netsplit),
        netsplit_spec::Chain::Cometbft {} => Arc::new(cometbft::Cometbft),
    }
}
