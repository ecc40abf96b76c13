//! Where a testnet runs. [`Backend`] is what the operator needs from any place; [`local`] is one Linux machine,
//! [`kubernetes`] a cluster.
//!
//! This crate knows nodes by name and address only: neither a plan nor a chain's file formats reach it, so what a plan
//! calls a node and what a chain writes into its files are handed in as [`NodeArtifacts`].

mod backend;
pub mod kubernetes;
pub mod local;
mod translate;

pub use backend::{
    Backend, BackendError, Connection, Counters, CutEvidence, CutRect, CutRequest, CutState, ExecExit,
    ExecStdio, FASTEST_MEASURED, Hold, LinkEvidence, LinkRequest, LinkState, LinksEvidence, LinksRequest,
    NodeArtifacts, NodeFile, NodeHold, NodePlace, NodeSignal, NodeState, NodeStatus, NodeStream,
    PairEvidence, Proof, Share,
};
