//! The chain as consensus sees it.

use std::sync::Arc;

use bytes::Bytes;
use netsplit_bft::{Application, Fatal, Verdict};
use netsplit_core::{Address, Block, Commit, Hash, Height, SignedTransaction, ValidatorSet};
use netsplit_store::{Chain, CheckError, CheckedBlock, Retention, Store};
use tracing::warn;

use crate::clock::Clock;
use crate::feed::{Feed, FinalBlock, Own};
use crate::metrics::Metrics;
use crate::pool::Pool;

/// Checked blocks kept for their decision: one a round, and rounds are few.
const MAX_CHECKED: usize = 4;
/// Bytes of a block that are not transactions, at most: header, evidence, and a commit of 128 validators.
const OVERHEAD_BYTES: usize = 32 << 10;

pub(crate) struct ChainApplication<S> {
    pub chain: Arc<Chain<S>>,
    pub pool: Arc<Pool>,
    pub feed: Arc<Feed>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// Gets the fees of the blocks that this node proposes; a full node never proposes.
    pub proposer: Option<Address>,
    pub retention: Retention,
    /// Blocks found valid on the current head.
    pub checked: Vec<CheckedBlock>,
}

impl<S: Store> ChainApplication<S> {
    /// The block is checked once for the vote and not again for the decision.
    fn check_block(&self, bytes: &Bytes, now_ms: u64) -> Result<Result<CheckedBlock, String>, Fatal> {
        let block = match Block::from_bytes(bytes) {
            Ok(block) => block,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let height = block.header.height;
        let verified =
            |id: &Hash, transaction: &SignedTransaction| self.pool.is_verified(id, &transaction.signature);
        match self.chain.check(&block, now_ms, &verified) {
            Ok(checked) => Ok(Ok(checked)),
            Err(CheckError::Invalid(invalid)) => Ok(Err(chain_of(&invalid))),
            Err(CheckError::Store(error)) => Err(Fatal::application("check", height, error)),
        }
    }

    fn keep(&mut self, checked: CheckedBlock) {
        if self.checked.len() == MAX_CHECKED {
            self.checked.remove(0);
        }
        self.checked.push(checked);
    }

    fn next(&self) -> Height {
        self.chain.height() + 1
    }
}

impl<S: Store> Application for ChainApplication<S> {
    fn propose(&mut self, height: Height, last_commit: &Commit) -> Result<Bytes, Fatal> {
        let proposer = self.proposer.ok_or_else(|| {
            Fatal::application("propose", height, "this node has no validator key".to_owned())
        })?;
        let limits = *self.chain.limits();
        let room = limits.max_block_bytes.saturating_sub(OVERHEAD_BYTES);
        let candidates = self.pool.take(limits.max_block_transactions, room);
        let mut obsolete = Vec::new();
        let block = self
            .chain
            .build_reporting(
                proposer,
                (self.clock)(),
                candidates,
                last_commit.clone(),
                &mut |transaction, _| {
                    obsolete.push(transaction.clone());
                },
            )
            .map_err(|error| Fatal::application("propose", height, error))?;
        self.pool.remove(&obsolete);
        Ok(block.to_bytes())
    }

    fn check(&mut self, block: &Bytes) -> Result<Verdict, Fatal> {
        match self.check_block(block, (self.clock)())? {
            Ok(checked) => {
                let id = checked.id();
                if !self.checked.iter().any(|held| held.id() == id) {
                    self.keep(checked);
                }
                Ok(Verdict::Valid { id })
            }
            Err(reason) => {
                warn!(height = self.next(), reason, "proposed block is invalid");
                Ok(Verdict::Invalid { reason })
            }
        }
    }

    fn decide(&mut self, bytes: &Bytes, commit: &Commit) -> Result<ValidatorSet, Fatal> {
        let fatal = |error: netsplit_store::StoreError| Fatal::application("decide", commit.height, error);
        let held = self.checked.iter().position(|checked| checked.id() == commit.block);
        let checked = match held {
            Some(position) => self.checked.swap_remove(position),
            // Only a vote depends on the clock; this block is decided.
            None => self.check_block(bytes, u64::MAX)?.map_err(|reason| {
                Fatal::application("decide", commit.height, format!("the decided block is invalid: {reason}"))
            })?,
        };
        self.checked.clear();
        let block = checked.block().clone();
        let applied = self.chain.commit(checked, commit).map_err(fatal)?;
        let now_ms = (self.clock)();
        self.pool.decided(commit.height, &applied.transactions, &block.transactions);
        self.metrics.height.set(commit.height as i64);
        self.metrics.blocks.inc();
        self.metrics.transactions.inc_by(applied.transactions.len() as u64);
        self.metrics.block_bytes.observe(bytes.len() as f64);
        let latency_ms = now_ms.saturating_sub(block.header.time_ms);
        self.metrics.finality.observe(latency_ms as f64 / 1000.0);
        let own = Own { final_at_ms: now_ms, executed_root: Some(applied.head.state_root) };
        self.feed.publish(FinalBlock::new(&block, commit, bytes.len(), applied.transactions, own));
        self.chain.prune(self.retention).map_err(fatal)?;
        Ok((*applied.next_validators).clone())
    }

    fn block(&self, height: Height) -> Result<Option<(Bytes, Commit)>, Fatal> {
        self.chain.block(height).map_err(|error| Fatal::application("read a block", height, error))
    }

    fn height(&self) -> Height {
        self.chain.height()
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        self.chain.sync().map_err(|error| Fatal::application("sync", self.chain.height(), error))
    }
}

/// The error and its causes in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
