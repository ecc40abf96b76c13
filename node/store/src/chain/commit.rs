//! Storing a decided block: one atomic batch.

use std::sync::{Arc, PoisonError};

use netsplit_core::ledger::Diff;
use netsplit_core::{Commit, Hash, Height, ValidatorSet};

use super::record::{self, HeadRecord};
use super::{Chain, CheckedBlock, HeadInfo};
use crate::error::StoreError;
use crate::store::{Batch, Column, Store};
use crate::tree;

/// What a commit led to.
#[derive(Clone, Debug)]
pub struct Applied {
    pub head: HeadInfo,
    /// The validators that decide the next block.
    pub next_validators: Arc<ValidatorSet>,
    /// Ids of the block's transactions, in their order.
    pub transactions: Vec<Hash>,
}

impl<S: Store> Chain<S> {
    /// Stores `checked`, decided by `commit`, whose signatures the caller has verified. The batch outlives the process, and the machine
    /// only after [`Chain::sync`]: the log of consensus can decide again what is lost. A block that does not follow the head is refused
    /// without a change; any other error is fatal.
    pub fn commit(&self, checked: CheckedBlock, commit: &Commit) -> Result<Applied, StoreError> {
        let _writer = self.writer();
        let head = self.head();
        let header = &checked.block.header;
        let height = header.height;
        if height <= head.height {
            return Err(StoreError::AlreadyStored { height, head: head.height });
        }
        // The height too: a block of a height far above could carry any parent.
        if height != head.height + 1 || header.parent != head.id {
            return Err(StoreError::MissingParent { height, head: head.height, head_id: head.id });
        }
        if commit.height != height || commit.block != checked.id {
            return Err(StoreError::OtherCommit {
                height,
                block: checked.id,
                commit_height: commit.height,
                commit: commit.block,
            });
        }
        let mut batch = Batch::default();
        let state_root = tree::update(&self.store, height, &checked.changes, &mut batch)?;
        put_state(&mut batch, &checked.changes);
        put_index(&mut batch, height, &checked.ids);
        batch.put(Column::Blocks, height.to_be_bytes(), checked.bytes);
        batch.put(Column::Commits, height.to_be_bytes(), commit.to_bytes());
        let head = HeadInfo { height, id: checked.id, time_ms: header.time_ms, state_root };
        record::put(&mut batch, &HeadRecord::from(head));
        self.store.commit(batch)?;
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = head;
        Ok(Applied { head, next_validators: self.validators(height + 1), transactions: checked.ids })
    }
}

pub(super) fn put_state(batch: &mut Batch, changes: &Diff) {
    for (key, value) in changes.iter() {
        match value {
            Some(value) => batch.put(Column::State, key, value.clone()),
            None => batch.delete(Column::State, key),
        }
    }
}

fn put_index(batch: &mut Batch, height: Height, ids: &[Hash]) {
    for (index, id) in (0_u32..).zip(ids) {
        batch.put(Column::Transactions, id.as_ref(), record::encode_place(height, index));
    }
}
