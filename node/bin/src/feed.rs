//! Final blocks on their way to those who follow them.
//!
//! The newest blocks are kept in memory, bounded by their transaction ids; older ones are read from the chain again.
//! What this node alone knows of a block is kept much longer: a follower that was cut off still learns it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netsplit_core::{Address, Block, Commit, Hash, Height};
use tokio::sync::watch;

/// Transaction ids held by the blocks in memory (32 bytes each), and the number of blocks.
const MAX_IDS: usize = 16_384;
const MAX_BLOCKS: usize = 64;
/// Heights of which is kept what this node alone knows: 100 minutes of blocks at 10 a second, 40 bytes each.
const MAX_OWN: usize = 60_000;

/// What followers are told about a block.
#[derive(Debug)]
pub(crate) struct FinalBlock {
    pub height: Height,
    pub id: Hash,
    pub time_ms: u64,
    pub proposer: Address,
    pub round: u32,
    pub own: Own,
    /// State after the block's parent, as its header has it.
    pub state_root: Hash,
    pub size: usize,
    pub transactions: Vec<Hash>,
}

/// What a node alone knows of a final block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// When it saw the block become final; 0 when it no longer knows.
    pub final_at_ms: u64,
    /// The state after the block, as it computed it itself; none when it no longer knows.
    pub executed_root: Option<Hash>,
}

impl FinalBlock {
    pub(crate) fn new(block: &Block, commit: &Commit, size: usize, ids: Vec<Hash>, own: Own) -> Self {
        Self {
            height: block.header.height,
            id: commit.block,
            time_ms: block.header.time_ms,
            proposer: block.header.proposer,
            round: commit.round,
            own,
            state_root: block.header.state_root,
            size,
            transactions: ids,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Feed {
    head: watch::Sender<Height>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    blocks: VecDeque<Arc<FinalBlock>>,
    ids: usize,
    /// Of consecutive heights, the first of which is `first_own`.
    own: VecDeque<Own>,
    first_own: Height,
}

impl Feed {
    pub(crate) fn new(head: Height) -> Self {
        Self { head: watch::Sender::new(head), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks come in the order of heights, without a gap after the first.
    pub(crate) fn publish(&self, block: FinalBlock) {
        let height = block.height;
        let mut inner = self.lock();
        if inner.own.is_empty() {
            inner.first_own = height;
        }
        inner.own.push_back(block.own);
        if inner.own.len() > MAX_OWN {
            inner.own.pop_front();
            inner.first_own += 1;
        }
        inner.ids += block.transactions.len();
        inner.blocks.push_back(Arc::new(block));
        while inner.blocks.len() > 1 && (inner.blocks.len() > MAX_BLOCKS || inner.ids > MAX_IDS) {
            if let Some(oldest) = inner.blocks.pop_front() {
                inner.ids -= oldest.transactions.len();
            }
        }
        drop(inner);
        self.head.send_replace(height);
    }

    pub(crate) fn head(&self) -> watch::Receiver<Height> {
        self.head.subscribe()
    }

    /// A block that is still in memory.
    pub(crate) fn get(&self, height: Height) -> Option<Arc<FinalBlock>> {
        let inner = self.lock();
        let first = inner.blocks.front()?.height;
        inner.blocks.get(usize::try_from(height.checked_sub(first)?).ok()?).cloned()
    }

    pub(crate) fn own(&self, height: Height) -> Own {
        let inner = self.lock();
        height
            .checked_sub(inner.first_own)
            .and_then(|index| inner.own.get(usize::try_from(index).ok()?).copied())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use netsplit_core::SecretKey;

    use super::*;

    fn block(height: Height, transactions: usize) -> FinalBlock {
        FinalBlock {
            height,
            id: Hash::ZERO,
            time_ms: 0,
            proposer: SecretKey::from_seed([1; 32]).public(),
            round: 0,
            own: Own { final_at_ms: height * 10, executed_root: Some(Hash::ZERO) },
            state_root: Hash::ZERO,
            size: 0,
            transactions: vec![Hash::ZERO; transactions],
        }
    }

    #[test]
    fn recent_blocks_and_long_times() {
        let feed = Feed::new(4);
        for height in 5..1005 {
            feed.publish(block(height, 0));
        }
        assert_eq!(*feed.head().borrow(), 1004);
        assert_eq!(feed.get(1004).unwrap().height, 1004);
        assert!(feed.get(1005).is_none() && feed.get(5).is_none() && feed.get(4).is_none());
        assert_eq!(feed.own(5), Own { final_at_ms: 50, executed_root: Some(Hash::ZERO) });
        assert_eq!((feed.own(4), feed.own(1005)), (Own::default(), Own::default()));
    }

    #[test]
    fn bounded_by_transaction_ids_but_never_empty() {
        let feed = Feed::new(0);
        for height in 1..=10 {
            feed.publish(block(height, MAX_IDS / 2));
        }
        assert!(feed.lock().ids <= MAX_IDS);
        feed.publish(block(11, MAX_IDS * 2));
        assert_eq!(feed.lock().blocks.len(), 1);
        assert!(feed.get(11).is_some());
    }
}
