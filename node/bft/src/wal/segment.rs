//! A segment: a header, then frames of records.
//!
//! ```text
//! header = magic 8 bytes | schema u32 | number u64 | height u64 | chain id 32 bytes | crc32 u32   (little-endian)
//! ```
//!
//! `height` is the one that was being decided when the segment began.

use netsplit_core::{Hash, Height};

use super::record::{Record, unframe};
use crate::Fatal;

/// Grows with any change of a record's form.
pub const SCHEMA: u32 = 1;
const MAGIC: &[u8; 8] = b"nsbftwal";
pub(crate) const HEADER: usize = 8 + 4 + 8 + 8 + 32 + 4;

pub(crate) fn header(number: u64, height: Height, chain_id: &Hash) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&SCHEMA.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&height.to_le_bytes());
    out.extend_from_slice(chain_id.as_ref());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// What a segment's bytes hold.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The height that was being decided when it began.
    pub height: Height,
    pub records: Vec<Record>,
    /// Bytes up to the end of the last whole record. Less than the content's length if its end is torn.
    pub len: usize,
}

/// Reads a segment. `Ok(None)`: its creation was torn, so that nothing was ever written to it.
pub(crate) fn read(content: &[u8], number: u64, chain_id: &Hash) -> Result<Option<Segment>, Fatal> {
    let damaged = |offset: usize, detail: &str| Fatal::Damaged {
        segment: number,
        offset: offset as u64,
        detail: detail.into(),
    };
    let whole = content.len() >= HEADER && {
        let (body, sum) = content[..HEADER].split_at(HEADER - 4);
        body.starts_with(MAGIC) && crc32fast::hash(body).to_le_bytes() == sum
    };
    if !whole {
        // A segment is durable with its header before the first record is appended.
        return if content.len() <= HEADER { Ok(None) } else { Err(damaged(0, "bad header")) };
    }
    let schema = u32::from_le_bytes(content[8..12].try_into().expect("a slice of four bytes"));
    if schema != SCHEMA {
        return Err(Fatal::Schema { segment: number, found: schema, supported: SCHEMA });
    }
    if content[12..20] != number.to_le_bytes() {
        return Err(damaged(12, "the header names another segment"));
    }
    if content[28..60] != *chain_id.as_ref() {
        return Err(Fatal::Inconsistent("it belongs to another chain".into()));
    }
    let height = Height::from_le_bytes(content[20..28].try_into().expect("a slice of eight bytes"));
    let (mut records, mut at) = (Vec::new(), HEADER);
    while at < content.len() {
        let Some(frame) = unframe(content, number, at) else {
            // Does anything behind prove that this place was durable once?
            let proof = (at + 1..content.len())
                .any(|later| unframe(content, number, later).is_some_and(|frame| frame.durable > at as u64));
            return if proof {
                Err(damaged(at, "bad record"))
            } else {
                Ok(Some(Segment { height, records, len: at }))
            };
        };
        let record = borsh::from_slice(frame.payload).map_err(|error| damaged(at, &error.to_string()))?;
        records.push(record);
        at += frame.len;
    }
    Ok(Some(Segment { height, records, len: at }))
}
