//! The decided chain over a store.
//!
//! One thread builds, checks and commits; any number of threads read at the same time through the same `Chain`. Reads go to the store;
//! the head is kept in memory too. Build and check execute on an overlay over the state at the head and change nothing.

mod build;
mod check;
mod commit;
mod prune;
mod record;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use netsplit_core::ledger::{Account, GenesisParts, Limits, StateError, StateView, read_account};
use netsplit_core::{Address, Commit, Hash, Header, Height, ValidatorSet, encode};

use crate::error::StoreError;
use crate::store::{Batch, Column, Store};
use crate::tree;

pub use build::Refused;
pub use check::{CheckError, CheckedBlock, InvalidBlock};
pub use commit::Applied;
pub use prune::{Pruned, Retention};
pub use record::SCHEMA_VERSION;
use record::{ChainRecord, HeadRecord, PruneRecord};

/// The last decided block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadInfo {
    /// 0 for the genesis block.
    pub height: Height,
    /// For the genesis block the genesis hash.
    pub id: Hash,
    pub time_ms: u64,
    /// After this block; the next block's header carries it.
    pub state_root: Hash,
}

/// See the module's text.
#[derive(Debug)]
pub struct Chain<S> {
    store: S,
    /// The genesis hash.
    id: Hash,
    genesis_time_ms: u64,
    protocol_version: u32,
    limits: Limits,
    /// The set of every height so far: it does not change yet.
    validators: Arc<ValidatorSet>,
    validators_hash: Hash,
    /// For the verification of many signatures.
    threads: NonZeroUsize,
    head: RwLock<HeadInfo>,
    /// Held for the whole of a write, so that two writers cannot both see one head.
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    pruned: PruneRecord,
}

impl<S: Store> Chain<S> {
    /// Opens the chain in `store`, or starts it there from `genesis`. A store of another chain or of a newer schema is refused.
    pub fn open(store: S, genesis: &GenesisParts) -> Result<Self, StoreError> {
        let (head, pruned) = match record::read_schema(&store)? {
            None => start(&store, genesis)?,
            Some(_) => resume(&store, genesis)?,
        };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            store,
            id: genesis.chain_id,
            genesis_time_ms: genesis.time_ms,
            protocol_version: genesis.protocol_version,
            limits: genesis.limits,
            validators: Arc::new(genesis.validators.clone()),
            validators_hash: genesis.validators.hash(),
            threads,
            head: RwLock::new(head),
            writer: Mutex::new(Writer { pruned }),
        })
    }

    /// Limits the threads that verify signatures; by default there is one for each core.
    #[must_use]
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        Self { threads, ..self }
    }

    pub fn store(&self) -> &S {
        &self.store
    }

    pub fn chain_id(&self) -> Hash {
        self.id
    }

    pub fn genesis_time_ms(&self) -> u64 {
        self.genesis_time_ms
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Height of the last decided block; 0 at genesis.
    pub fn height(&self) -> Height {
        self.head().height
    }

    pub fn head(&self) -> HeadInfo {
        *self.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The validators that decide the block at `height`.
    pub fn validators(&self, _height: Height) -> Arc<ValidatorSet> {
        Arc::clone(&self.validators)
    }

    /// The encoded block at `height` and the commit that decided it; `None` above the head and below what was pruned.
    pub fn block(&self, height: Height) -> Result<Option<(Bytes, Commit)>, StoreError> {
        let key = height.to_be_bytes();
        let Some(block) = self.store.get(Column::Blocks, &key)? else { return Ok(None) };
        // Both are written and deleted in one batch, and a reader may come between the two reads.
        let Some(commit) = self.store.get(Column::Commits, &key)? else { return Ok(None) };
        let commit = Commit::from_bytes(&commit)
            .map_err(|source| StoreError::Corrupt { column: Column::Commits, source })?;
        Ok(Some((block, commit)))
    }

    /// The header at `height`, without decoding the transactions.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        let block = self.store.get(Column::Blocks, &height.to_be_bytes())?;
        block.map(|bytes| record::decode_header(&bytes)).transpose()
    }

    /// The state's root after the block at `height`, as this node computed it when it took the block; `None` above the head and of
    /// a version of the state that was pruned.
    pub fn state_root(&self, height: Height) -> Result<Option<Hash>, StoreError> {
        tree::kept_root(&self.store, height)
    }

    /// The commit that decided the last block; the empty one at genesis.
    pub fn last_commit(&self) -> Result<Commit, StoreError> {
        let head = self.head();
        if head.height == 0 {
            return Ok(Commit::genesis(self.id));
        }
        let missing = || StoreError::Missing {
            column: Column::Commits,
            what: format!("the commit of height {}", head.height),
        };
        let bytes = self.store.get(Column::Commits, &head.height.to_be_bytes())?.ok_or_else(missing)?;
        Commit::from_bytes(&bytes).map_err(|source| StoreError::Corrupt { column: Column::Commits, source })
    }

    /// The lowest height whose block is kept; above the head if there is none.
    pub fn first_block(&self) -> Height {
        self.writer().pruned.first_block
    }

    /// Height and index in the block of a decided transaction; `None` too when its block was pruned.
    pub fn transaction(&self, id: &Hash) -> Result<Option<(Height, u32)>, StoreError> {
        let found = self.store.get(Column::Transactions, id.as_ref())?;
        found.map(|bytes| record::decode_place(&bytes)).transpose()
    }

    /// The account at the head; the default one if it was never paid.
    pub fn account(&self, address: &Address) -> Result<Account, StoreError> {
        Ok(read_account(&self.state(), address)?)
    }

    /// The state at the head.
    pub fn state(&self) -> StoredState<'_, S> {
        StoredState(&self.store)
    }

    /// Makes everything committed so far durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // The record in it is replaced only after its batch is stored, so it is right also after a panic.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger's state as stored.
#[derive(Debug)]
pub struct StoredState<'a, S>(&'a S);

impl<S: Store> StateView for StoredState<'_, S> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.get(Column::State, key).map_err(StateError::new)
    }
}

fn start<S: Store>(store: &S, genesis: &GenesisParts) -> Result<(HeadInfo, PruneRecord), StoreError> {
    let state = genesis.state()?;
    let mut batch = Batch::default();
    let state_root = tree::update(store, 0, &state, &mut batch)?;
    commit::put_state(&mut batch, &state);
    batch.put(Column::Validators, 1_u64.to_be_bytes(), encode(&genesis.validators));
    let head = HeadInfo { height: 0, id: genesis.chain_id, time_ms: genesis.time_ms, state_root };
    let pruned = PruneRecord { first_block: 1 };
    record::put_schema(&mut batch);
    record::put(&mut batch, &ChainRecord { chain_id: genesis.chain_id });
    record::put(&mut batch, &HeadRecord::from(head));
    record::put(&mut batch, &pruned);
    store.commit(batch)?;
    store.sync()?;
    Ok((head, pruned))
}

fn resume<S: Store>(store: &S, genesis: &GenesisParts) -> Result<(HeadInfo, PruneRecord), StoreError> {
    let stored: ChainRecord = record::read(store)?;
    if stored.chain_id != genesis.chain_id {
        return Err(StoreError::OtherChain { stored: stored.chain_id, wanted: genesis.chain_id });
    }
    let head = HeadInfo::from(record::read::<HeadRecord>(store)?);
    let tree = tree::root(store, head.height)?;
    if tree != head.state_root {
        return Err(StoreError::RootMismatch { height: head.height, tree, recorded: head.state_root });
    }
    Ok((head, record::read(store)?))
}
