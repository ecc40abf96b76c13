//! Building the next block.

use std::sync::Arc;

use netsplit_core::ledger::{BlockContext, ExecuteError, Overlay, TransactionError, execute_transaction};
use netsplit_core::{Address, Block, Commit, Hash, Header, Seal, SignedTransaction, encode};

use super::Chain;
use crate::error::StoreError;
use crate::store::Store;

/// Bytes of an encoded block beside header, commit, transactions and evidence: two counts.
const COUNTS: usize = 8;

impl<S: Store> Chain<S> {
    /// The block after the head with those of `transactions`, in their order, that apply and fit. Their signatures must have been
    /// verified. `time_ms` is the proposer's clock; the block's time is raised above its parent's where the clock is behind.
    pub fn build(
        &self,
        proposer: Address,
        time_ms: u64,
        transactions: Vec<Arc<SignedTransaction>>,
        last_commit: Commit,
    ) -> Result<Block, StoreError> {
        self.build_reporting(proposer, time_ms, transactions, last_commit, &mut |_, _| ())
    }

    /// As [`Chain::build`]; tells `refused` each transaction that does not apply, so that the mempool can drop it.
    pub fn build_reporting(
        &self,
        proposer: Address,
        time_ms: u64,
        transactions: Vec<Arc<SignedTransaction>>,
        last_commit: Commit,
        refused: &mut dyn FnMut(&Arc<SignedTransaction>, Refused),
    ) -> Result<Block, StoreError> {
        let head = self.head();
        let mut header = Header {
            protocol_version: self.protocol_version,
            chain_id: self.id,
            height: head.height + 1,
            parent: head.id,
            time_ms: time_ms.max(head.time_ms.saturating_add(1)),
            proposer,
            tx_root: Hash::ZERO,
            state_root: head.state_root,
            validators_hash: self.validators_hash,
            next_validators_hash: self.validators_hash,
            last_commit_hash: last_commit.hash(),
            evidence_root: Block::evidence_root(&[]),
            seal: Seal::Bft,
        };
        let context = self.context(&header);
        let mut state = Overlay::new(self.state());
        let mut room = self
            .limits
            .max_block_bytes
            .saturating_sub(COUNTS + encode(&header).len() + last_commit.to_bytes().len());
        let mut included = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            if included.len() == self.limits.max_block_transactions {
                break;
            }
            let size = transaction.encoded_len();
            if size > room {
                continue;
            }
            let Ok(body) = transaction.decode_body() else {
                refused(&transaction, Refused::Malformed);
                continue;
            };
            match execute_transaction(&mut state, &context, &transaction.signer, &body) {
                Ok(()) => {
                    room -= size;
                    included.push(transaction);
                }
                Err(ExecuteError::Transaction(error)) => refused(&transaction, Refused::DoesNotApply(error)),
                Err(ExecuteError::State(error)) => return Err(error.into()),
            }
        }
        header.tx_root = Block::tx_root(&included);
        Ok(Block { header, transactions: included, last_commit, evidence: Vec::new() })
    }

    pub(super) fn context(&self, header: &Header) -> BlockContext {
        BlockContext {
            chain_id: self.id,
            height: header.height,
            time_ms: header.time_ms,
            proposer: header.proposer,
        }
    }
}

/// Why a transaction was left out of a block for good.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the transaction's body cannot be read")]
    Malformed,
    #[error(transparent)]
    DoesNotApply(TransactionError),
}
