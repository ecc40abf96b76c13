//! A store in memory that can lose what was not synced, for tests and the simulator.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::StoreError;
use crate::store::{Batch, Column, Pairs, Store};

/// What a batch replaced, in the order of its operations.
type Undo = Vec<(Column, Vec<u8>, Option<Bytes>)>;

#[derive(Debug, Default)]
struct Contents {
    columns: [BTreeMap<Vec<u8>, Bytes>; Column::ALL.len()],
    /// One for each batch since the last sync; grows until then.
    unsynced: Vec<Undo>,
    failing: bool,
}

/// Keeps everything in memory. A clone of an `Arc` of it that outlives its user plays the disk of a machine that stops.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine stops: every batch since the last sync is lost.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// As [`MemoryStore::crash`], and the first `kept` batches since the last sync reached the disk all the same.
    pub fn crash_keeping(&self, kept: usize) {
        let mut contents = self.lock();
        while contents.unsynced.len() > kept {
            let Some(undo) = contents.unsynced.pop() else { break };
            for (column, key, old) in undo.into_iter().rev() {
                contents.replace(column, key, old);
            }
        }
        contents.unsynced.clear();
        contents.failing = false;
    }

    /// Batches since the last sync.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// From now on every write fails and changes nothing, until a crash.
    pub fn fail_writes(&self) {
        self.lock().failing = true;
    }

    /// Pairs held in a column.
    pub fn len(&self, column: Column) -> usize {
        self.lock().columns[column.index()].len()
    }

    pub fn is_empty(&self, column: Column) -> bool {
        self.len(column) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // No operation leaves the contents half changed when it panics, since none can panic in between.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn replace(&mut self, column: Column, key: Vec<u8>, value: Option<Bytes>) -> Option<Bytes> {
        let pairs = &mut self.columns[column.index()];
        match value {
            Some(value) => pairs.insert(key, value),
            None => pairs.remove(&key),
        }
    }

    fn writable(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.failing { Err(StoreError::backend(operation, "writes are set to fail")) } else { Ok(()) }
    }
}

impl Store for MemoryStore {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().columns[column.index()].get(key).cloned())
    }

    fn scan(&self, column: Column, from: &[u8], until: &[u8], limit: usize) -> Result<Pairs, StoreError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let contents = self.lock();
        let range = contents.columns[column.index()].range(from.to_vec()..until.to_vec());
        Ok(range.take(limit).map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut contents = self.lock();
        contents.writable("commit a batch")?;
        let undo = batch
            .into_operations()
            .map(|(column, key, value)| {
                let old = contents.replace(column, key.clone(), value);
                (column, key, old)
            })
            .collect();
        contents.unsynced.push(undo);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut contents = self.lock();
        contents.writable("sync")?;
        contents.unsynced.clear();
        Ok(())
    }
}
