//! The seam between the chain and where its bytes rest.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;

/// A separate space of keys. Integers in keys are big-endian, so that the order of keys is the order of heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// Schema version, chain id, head and how far was pruned, by name.
    Meta,
    /// Height to encoded block.
    Blocks,
    /// Height to the encoded commit that decided the block.
    Commits,
    /// Transaction id to height and index in the block.
    Transactions,
    /// First height of a validator set to the set.
    Validators,
    /// The ledger's state at the head: state key to value.
    State,
    /// Nodes of the state tree: version and path to node.
    TreeNodes,
    /// First version that does not need a node, then the node's key; no value.
    TreeStale,
}

impl Column {
    pub const ALL: [Self; 8] = [
        Self::Meta,
        Self::Blocks,
        Self::Commits,
        Self::Transactions,
        Self::Validators,
        Self::State,
        Self::TreeNodes,
        Self::TreeStale,
    ];

    /// The name on disk. Renaming one is a change of schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Blocks => "blocks",
            Self::Commits => "commits",
            Self::Transactions => "transactions",
            Self::Validators => "validators",
            Self::State => "state",
            Self::TreeNodes => "tree-nodes",
            Self::TreeStale => "tree-stale",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Writes and deletions that happen together or not at all. A later one of a key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    operations: Vec<(Column, Vec<u8>, Option<Bytes>)>,
}

impl Batch {
    pub fn put(&mut self, column: Column, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.operations.push((column, key.into(), Some(value.into())));
    }

    pub fn delete(&mut self, column: Column, key: impl Into<Vec<u8>>) {
        self.operations.push((column, key.into(), None));
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// In the order they were added; `None` is a deletion.
    pub fn into_operations(self) -> impl Iterator<Item = (Column, Vec<u8>, Option<Bytes>)> {
        self.operations.into_iter()
    }
}

/// Keys with their values.
pub type Pairs = Vec<(Bytes, Bytes)>;

/// An ordered key-value store. One writer and any number of readers use it at a time; a reader sees a batch wholly or not at all, and
/// two reads may see different batches.
pub trait Store: Send + Sync {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The first `limit` pairs with `from <= key < until`, in the order of keys.
    fn scan(&self, column: Column, from: &[u8], until: &[u8], limit: usize) -> Result<Pairs, StoreError>;

    /// Applies `batch` atomically. It survives the end of the process, and of the machine only after [`Store::sync`]; of batches that
    /// are not synced, a machine's end loses the latest ones first.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes every batch committed so far durable.
    fn sync(&self) -> Result<(), StoreError>;
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        (**self).get(column, key)
    }

    fn scan(&self, column: Column, from: &[u8], until: &[u8], limit: usize) -> Result<Pairs, StoreError> {
        (**self).scan(column, from, until, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        (**self).sync()
    }
}
