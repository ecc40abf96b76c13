//! The decided chain on disk.
//!
//! [`Store`] is an ordered key-value store with columns and atomic batches; [`MemoryStore`] can forget what was not synced, as a
//! machine that loses power does, and `RocksStore` keeps it on disk. [`Chain`] is what consensus and the API use: it builds, checks and
//! commits blocks, one atomic batch a block, and answers reads at the same time.
//!
//! A failed write leaves the store in an unknown state: every error of [`Store::commit`] and [`Store::sync`] must stop the node.

mod chain;
mod error;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod store;
mod tree;

pub use chain::{
    Applied, Chain, CheckError, CheckedBlock, HeadInfo, InvalidBlock, Pruned, Refused, Retention,
    SCHEMA_VERSION, StoredState,
};
pub use error::StoreError;
pub use memory::MemoryStore;
#[cfg(feature = "rocksdb")]
pub use rocksdb::RocksStore;
pub use store::{Batch, Column, Pairs, Store};
