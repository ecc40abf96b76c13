//! Why the store cannot do what it was asked to.

use std::error::Error;

use netsplit_core::ledger::{GenesisError, StateError};
use netsplit_core::{DecodeError, Hash, Height};

use crate::store::Column;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or what stands for it. After a failed write nothing can be said about what is stored.
    #[error("the store failed to {operation}")]
    Backend {
        operation: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the store's {column:?} column holds bytes that cannot be read")]
    Corrupt {
        column: Column,
        #[source]
        source: DecodeError,
    },
    #[error("the store's {column:?} column lacks {what}")]
    Missing { column: Column, what: String },
    #[error("the state of the ledger cannot be read")]
    State(#[from] StateError),
    #[error("the state tree cannot be {operation} at version {version}")]
    Tree {
        operation: &'static str,
        version: Height,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the state tree has root {tree} at height {height}, the chain recorded {recorded}")]
    RootMismatch { height: Height, tree: Hash, recorded: Hash },
    #[error("the store has schema version {found}, this program knows {known} at most; use a newer program")]
    NewerSchema { found: u32, known: u32 },
    #[error("the store holds chain {stored}, the genesis file is of chain {wanted}; use another data folder")]
    OtherChain { stored: Hash, wanted: Hash },
    #[error("the genesis cannot be turned into a state")]
    Genesis(#[from] GenesisError),
    #[error("block {height} is stored already; the chain is at height {head}")]
    AlreadyStored { height: Height, head: Height },
    #[error("block {height} does not follow block {head_id} at height {head}, the last one stored")]
    MissingParent { height: Height, head: Height, head_id: Hash },
    #[error(
        "the commit is for block {commit} at height {commit_height}, the block is {block} at height {height}"
    )]
    OtherCommit { height: Height, block: Hash, commit_height: Height, commit: Hash },
}

impl StoreError {
    pub(crate) fn backend(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Backend { operation, source: source.into() }
    }
}
