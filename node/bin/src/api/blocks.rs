//! Following final blocks: from memory when they are new, from the chain when they are not.

use std::sync::Arc;

use netsplit_core::{Block, Height};
use netsplit_store::{Chain, Store};
use tonic::Status;
use tracing::error;

use crate::feed::{Feed, FinalBlock, Own};

/// The final block at `height`; `NOT_FOUND` above the head and below what is kept.
pub(super) async fn read<S: Store + 'static>(
    chain: &Arc<Chain<S>>,
    feed: &Feed,
    height: Height,
) -> Result<Arc<FinalBlock>, Status> {
    if let Some(block) = feed.get(height) {
        return Ok(block);
    }
    let own = feed.own(height);
    // A block of thousands of transactions takes a while to read and to hash.
    let reader = chain.clone();
    let read = tokio::task::spawn_blocking(move || load(&reader, height, own)).await;
    read.map_err(|_| Status::internal("reading the block failed"))?.map(Arc::new)
}

fn load<S: Store>(chain: &Chain<S>, height: Height, mut own: Own) -> Result<FinalBlock, Status> {
    let (bytes, commit) = chain.block(height).map_err(|error| store_error(&error))?.ok_or_else(|| {
        let (first, head) = (chain.first_block(), chain.height());
        Status::not_found(format!("there is no block {height} here: this node holds {first} to {head}"))
    })?;
    let block = Block::from_bytes(&bytes).map_err(|error| store_error(&error))?;
    let ids = block.transactions.iter().map(|transaction| transaction.id()).collect();
    if own.executed_root.is_none() {
        own.executed_root = chain.state_root(height).map_err(|error| store_error(&error))?;
    }
    Ok(FinalBlock::new(&block, &commit, bytes.len(), ids, own))
}

/// The details are for the operator's log, not for the user.
pub(super) fn store_error(error: &dyn std::error::Error) -> Status {
    error!(error = crate::application::chain_of(error), "the store failed under a request");
    Status::internal("the node's store failed; see its log")
}
