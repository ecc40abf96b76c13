//! What the Meta column holds, and small encodings of other columns. A change of any of these, or of a key, is a change of schema.

use borsh::{BorshDeserialize, BorshSerialize};
use netsplit_core::{DecodeError, Hash, Header, Height, decode, encode};

use super::HeadInfo;
use crate::error::StoreError;
use crate::store::{Batch, Column, Store};

/// The layout that this program writes. A store with a higher one is refused.
pub const SCHEMA_VERSION: u32 = 1;

const SCHEMA_KEY: &[u8] = b"schema";

/// A value of the Meta column.
pub(super) trait Record: BorshSerialize + BorshDeserialize {
    const KEY: &'static str;
}

#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct ChainRecord {
    pub chain_id: Hash,
}

impl Record for ChainRecord {
    const KEY: &'static str = "chain";
}

#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct HeadRecord {
    height: Height,
    id: Hash,
    time_ms: u64,
    state_root: Hash,
}

impl Record for HeadRecord {
    const KEY: &'static str = "head";
}

impl From<HeadInfo> for HeadRecord {
    fn from(HeadInfo { height, id, time_ms, state_root }: HeadInfo) -> Self {
        Self { height, id, time_ms, state_root }
    }
}

impl From<HeadRecord> for HeadInfo {
    fn from(HeadRecord { height, id, time_ms, state_root }: HeadRecord) -> Self {
        Self { height, id, time_ms, state_root }
    }
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct PruneRecord {
    /// Lowest height whose block is kept.
    pub first_block: Height,
}

impl Record for PruneRecord {
    const KEY: &'static str = "pruned";
}

pub(super) fn put<R: Record>(batch: &mut Batch, record: &R) {
    batch.put(Column::Meta, R::KEY, encode(record));
}

pub(super) fn read<R: Record>(store: &impl Store) -> Result<R, StoreError> {
    let bytes = store.get(Column::Meta, R::KEY.as_bytes())?.ok_or_else(|| StoreError::Missing {
        column: Column::Meta,
        what: format!("the record {:?}", R::KEY),
    })?;
    decode("record", &bytes).map_err(|source| StoreError::Corrupt { column: Column::Meta, source })
}

pub(super) fn put_schema(batch: &mut Batch) {
    batch.put(Column::Meta, SCHEMA_KEY, SCHEMA_VERSION.to_be_bytes().to_vec());
}

/// The schema version of a store; `None` for an empty one. A newer one than this program's is an error.
pub(super) fn read_schema(store: &impl Store) -> Result<Option<u32>, StoreError> {
    let Some(bytes) = store.get(Column::Meta, SCHEMA_KEY)? else { return Ok(None) };
    let corrupt = |_| StoreError::Corrupt {
        column: Column::Meta,
        source: DecodeError::invalid("schema version", "it has not four bytes"),
    };
    let found = u32::from_be_bytes(bytes.as_ref().try_into().map_err(corrupt)?);
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION });
    }
    Ok(Some(found))
}

/// The header with which an encoded block starts.
pub(super) fn decode_header(block: &[u8]) -> Result<Header, StoreError> {
    let mut rest = block;
    Header::deserialize(&mut rest).map_err(|error| StoreError::Corrupt {
        column: Column::Blocks,
        source: DecodeError::invalid("header", error.to_string()),
    })
}

/// Height and index, 12 bytes.
pub(super) fn encode_place(height: Height, index: u32) -> Vec<u8> {
    [&height.to_be_bytes()[..], &index.to_be_bytes()].concat()
}

pub(super) fn decode_place(bytes: &[u8]) -> Result<(Height, u32), StoreError> {
    let place: Option<(&[u8; 8], &[u8; 4])> =
        bytes.split_first_chunk().and_then(|(height, rest)| Some((height, rest.try_into().ok()?)));
    let (height, index) = place.ok_or_else(|| StoreError::Corrupt {
        column: Column::Transactions,
        source: DecodeError::invalid("place of a transaction", "it has not 12 bytes"),
    })?;
    Ok((Height::from_be_bytes(*height), u32::from_be_bytes(*index)))
}
