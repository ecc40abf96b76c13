//! Whether a block may follow the head: cheap rules first, then signatures, then execution.

use std::fmt::Display;

use bytes::Bytes;
use netsplit_core::ledger::{Diff, ExecuteError, Overlay, TransactionError, execute_transaction};
use netsplit_core::verify::verify_batch_threaded;
use netsplit_core::{
    Block, BodyMismatch, CommitError, DecodeError, EvidenceError, Hash, Height, Seal, SignedTransaction,
};

use super::{Chain, HeadInfo};
use crate::error::StoreError;
use crate::store::Store;

/// Most evidence in one block.
const MAX_EVIDENCE: usize = 64;

/// A block that may follow the head it was checked against, with what it does to the state.
#[derive(Clone, Debug)]
pub struct CheckedBlock {
    pub(super) block: Block,
    pub(super) bytes: Bytes,
    pub(super) id: Hash,
    /// Ids of the transactions, in their order.
    pub(super) ids: Vec<Hash>,
    pub(super) changes: Diff,
}

impl CheckedBlock {
    pub fn block(&self) -> &Block {
        &self.block
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn id(&self) -> Hash {
        self.id
    }

    /// Ids of the transactions, in their order.
    pub fn transaction_ids(&self) -> &[Hash] {
        &self.ids
    }
}

/// The first rule that a block breaks.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBlock {
    #[error("the block's {field} is {actual}, it should be {expected}")]
    Field { field: &'static str, expected: String, actual: String },
    #[error("the block is of height {actual}, the next one is {expected}")]
    Height { expected: Height, actual: Height },
    #[error("the block's time {time_ms} is not after its parent's, {parent_ms}")]
    TimeNotAfterParent { time_ms: u64, parent_ms: u64 },
    #[error("the block's time {time_ms} is more than {max_ms} ms ahead of this node's clock, {now_ms}")]
    TimeAhead { time_ms: u64, now_ms: u64, max_ms: u64 },
    #[error("the block has {actual} {what}, the most allowed are {max}")]
    TooLarge { what: &'static str, actual: usize, max: usize },
    #[error("the block's body is not its header's")]
    Body(#[from] BodyMismatch),
    #[error("the block's last commit is wrong")]
    LastCommit(#[from] CommitError),
    #[error("evidence {index} of the block is for height {height}, it must be below the block's")]
    EvidenceHeight { index: usize, height: Height },
    #[error("evidence {index} of the block is wrong")]
    Evidence {
        index: usize,
        #[source]
        source: EvidenceError,
    },
    #[error("the signature of transaction {index} does not verify")]
    Signature { index: usize },
    #[error("the body of transaction {index} cannot be read")]
    Malformed {
        index: usize,
        #[source]
        source: DecodeError,
    },
    #[error("transaction {index} does not apply")]
    Transaction {
        index: usize,
        #[source]
        source: TransactionError,
    },
}

/// Why a block was not found valid: its own fault, or the store's, which is fatal.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("the block is invalid")]
    Invalid(#[from] InvalidBlock),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S: Store> Chain<S> {
    /// Checks `block` as the one after the head.
    ///
    /// `now_ms` is this node's clock; for a block that was decided already pass `u64::MAX`, since only a vote depends on the clock.
    /// `already_verified` tells of an id and its transaction whether this signature was verified before: see `Mempool::holds`. The id
    /// alone would not do, since it does not cover the signature.
    pub fn check(
        &self,
        block: &Block,
        now_ms: u64,
        already_verified: &dyn Fn(&Hash, &SignedTransaction) -> bool,
    ) -> Result<CheckedBlock, CheckError> {
        let head = self.head();
        self.check_header(block, &head, now_ms)?;
        let bytes = self.check_size(block)?;
        block.check_body().map_err(InvalidBlock::Body)?;
        self.check_proofs(block, &head)?;
        let ids: Vec<Hash> = block.transactions.iter().map(|transaction| transaction.id()).collect();
        self.check_signatures(block, &ids, already_verified)?;
        let changes = self.execute(block)?;
        Ok(CheckedBlock { id: block.id(), block: block.clone(), bytes, ids, changes })
    }

    fn check_header(&self, block: &Block, head: &HeadInfo, now_ms: u64) -> Result<(), InvalidBlock> {
        let header = &block.header;
        if header.height != head.height + 1 {
            return Err(InvalidBlock::Height { expected: head.height + 1, actual: header.height });
        }
        expect("protocol version", &self.protocol_version, &header.protocol_version)?;
        expect("chain id", &self.id, &header.chain_id)?;
        expect("parent", &head.id, &header.parent)?;
        expect("state root", &head.state_root, &header.state_root)?;
        expect("validators hash", &self.validators_hash, &header.validators_hash)?;
        expect("next validators hash", &self.validators_hash, &header.next_validators_hash)?;
        if header.seal != Seal::Bft {
            return Err(field("seal", "bft", "another one"));
        }
        if self.validators.get(&header.proposer).is_none() {
            return Err(field("proposer", "a validator", header.proposer));
        }
        if header.time_ms <= head.time_ms {
            return Err(InvalidBlock::TimeNotAfterParent {
                time_ms: header.time_ms,
                parent_ms: head.time_ms,
            });
        }
        let max_ms = self.limits.max_time_ahead_ms;
        if header.time_ms > now_ms.saturating_add(max_ms) {
            return Err(InvalidBlock::TimeAhead { time_ms: header.time_ms, now_ms, max_ms });
        }
        Ok(())
    }

    fn check_size(&self, block: &Block) -> Result<Bytes, InvalidBlock> {
        at_most("transactions", block.transactions.len(), self.limits.max_block_transactions)?;
        at_most("pieces of evidence", block.evidence.len(), MAX_EVIDENCE)?;
        let bytes = block.to_bytes();
        at_most("bytes", bytes.len(), self.limits.max_block_bytes)?;
        Ok(bytes)
    }

    fn check_proofs(&self, block: &Block, head: &HeadInfo) -> Result<(), InvalidBlock> {
        block.last_commit.verify(&self.id, head.height, &head.id, &self.validators(head.height))?;
        for (index, evidence) in block.evidence.iter().enumerate() {
            let height = evidence.first.height;
            if height == 0 || height >= block.header.height {
                return Err(InvalidBlock::EvidenceHeight { index, height });
            }
            evidence
                .verify(&self.id, &self.validators(height))
                .map_err(|source| InvalidBlock::Evidence { index, source })?;
        }
        Ok(())
    }

    fn check_signatures(
        &self,
        block: &Block,
        ids: &[Hash],
        already_verified: &dyn Fn(&Hash, &SignedTransaction) -> bool,
    ) -> Result<(), InvalidBlock> {
        let (indexes, unknown): (Vec<usize>, Vec<&SignedTransaction>) = block
            .transactions
            .iter()
            .zip(ids)
            .enumerate()
            .filter(|(_, (transaction, id))| !already_verified(id, transaction))
            .map(|(index, (transaction, _))| (index, &**transaction))
            .unzip();
        let valid = verify_batch_threaded(&unknown, self.threads);
        match valid.iter().position(|valid| !valid) {
            Some(position) => Err(InvalidBlock::Signature { index: indexes[position] }),
            None => Ok(()),
        }
    }

    fn execute(&self, block: &Block) -> Result<Diff, CheckError> {
        let context = self.context(&block.header);
        let mut state = Overlay::new(self.state());
        for (index, transaction) in block.transactions.iter().enumerate() {
            let body =
                transaction.decode_body().map_err(|source| InvalidBlock::Malformed { index, source })?;
            execute_transaction(&mut state, &context, &transaction.signer, &body).map_err(
                |error| match error {
                    ExecuteError::Transaction(source) => InvalidBlock::Transaction { index, source }.into(),
                    ExecuteError::State(error) => CheckError::Store(error.into()),
                },
            )?;
        }
        Ok(state.into_diff())
    }
}

fn expect<T: PartialEq + Display>(name: &'static str, expected: &T, actual: &T) -> Result<(), InvalidBlock> {
    if expected == actual { Ok(()) } else { Err(field(name, expected, actual)) }
}

fn field(field: &'static str, expected: impl Display, actual: impl Display) -> InvalidBlock {
    InvalidBlock::Field { field, expected: expected.to_string(), actual: actual.to_string() }
}

fn at_most(what: &'static str, actual: usize, max: usize) -> Result<(), InvalidBlock> {
    if actual <= max { Ok(()) } else { Err(InvalidBlock::TooLarge { what, actual, max }) }
}
