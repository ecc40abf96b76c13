//! Forgetting old blocks and old versions of the state, a bounded amount at a time.

use netsplit_core::{Block, Height};

use super::Chain;
use super::record::{self, PruneRecord};
use crate::error::StoreError;
use crate::store::{Batch, Column, Store};
use crate::tree;

/// Most blocks deleted by one call: twice what one height adds and more, so that a shortened retention is reached in time.
const BLOCKS_A_CALL: u64 = 4;
/// Most nodes of the state tree deleted by one call. A block of 5,000 transfers makes about 20,000 stale.
const NODES_A_CALL: usize = 25_000;

/// How much is kept, counted back from the head and including it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub blocks: u64,
    pub states: u64,
}

/// What one call deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub blocks: u64,
    pub nodes: usize,
}

impl<S: Store> Chain<S> {
    /// Deletes a bounded part of what `retention` does not cover, in one atomic batch. To be called once a height: it then keeps up.
    /// The last block and its state always stay.
    pub fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        let mut writer = self.writer();
        let head = self.height();
        let keep_from = |kept: u64| (head + 1).saturating_sub(kept.max(1));
        let mut batch = Batch::default();
        let from = writer.pruned.first_block;
        let until = keep_from(retention.blocks).min(from.saturating_add(BLOCKS_A_CALL)).max(from);
        for height in from..until {
            self.delete_block(height, &mut batch)?;
        }
        let nodes = tree::prune(&self.store, keep_from(retention.states), NODES_A_CALL, &mut batch)?;
        if batch.is_empty() {
            return Ok(Pruned::default());
        }
        let pruned = PruneRecord { first_block: until };
        record::put(&mut batch, &pruned);
        self.store.commit(batch)?;
        writer.pruned = pruned;
        Ok(Pruned { blocks: until - from, nodes })
    }

    fn delete_block(&self, height: Height, batch: &mut Batch) -> Result<(), StoreError> {
        let key = height.to_be_bytes();
        let bytes = self
            .store
            .get(Column::Blocks, &key)?
            .ok_or_else(|| StoreError::Missing { column: Column::Blocks, what: format!("block {height}") })?;
        let block = Block::from_bytes(&bytes)
            .map_err(|source| StoreError::Corrupt { column: Column::Blocks, source })?;
        for transaction in &block.transactions {
            batch.delete(Column::Transactions, transaction.id().as_ref());
        }
        batch.delete(Column::Blocks, key);
        batch.delete(Column::Commits, key);
        Ok(())
    }
}
