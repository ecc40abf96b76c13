//! What the log holds, and the frame around each record.
//!
//! ```text
//! frame   = magic u16 | payload length u32 | durable u64 | crc32 u32 | payload      (integers little-endian)
//! payload = borsh(Record)
//! ```
//!
//! `durable` is the number of bytes of the segment that were durable when the record was written: a record proves that
//! everything below its `durable` had been synced. So a bad frame with such a record behind it is damage, while one with
//! none is the torn end of a write that nothing was built upon. The checksum also covers the segment's number and the
//! frame's offset, so that bytes inside a block, which others choose, never pass for a frame.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use netsplit_core::{Address, Commit, Hash, Height};

use crate::message::{PolkaCertificate, Proposal, Vote, write_bytes};

/// One entry of the log. Variants are never reordered; new ones go last, with a new schema version.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// An input that the core asked to log at this height.
    Input(Height, LoggedInput),
    /// The block that `id` names. Who voted for a block must be able to serve it after a restart.
    Body {
        height: Height,
        id: Hash,
        #[borsh(serialize_with = "write_bytes", deserialize_with = "read_body")]
        bytes: Bytes,
    },
    /// A decision. Its block is in an earlier [`Record::Body`] of the same segment.
    Decided(Commit),
}

/// The core's inputs, as far as they are logged.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LoggedInput {
    Vote(Vote),
    Proposal(Proposal),
    Polka(PolkaCertificate),
    Timeout {
        step: Step,
        round: u32,
    },
    /// A block was checked (or built) and found valid or not.
    Value {
        round: u32,
        proposer: Address,
        id: Hash,
        valid: bool,
    },
}

/// The step that a timeout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Step {
    Propose,
    Prevote,
    Precommit,
}

impl Record {
    pub fn height(&self) -> Height {
        match self {
            Self::Input(height, _) | Self::Body { height, .. } => *height,
            Self::Decided(commit) => commit.height,
        }
    }
}

const MAGIC: [u8; 2] = [0xB7, 0x5E];
const HEAD: usize = 2 + 4 + 8 + 4;
/// No record is larger: a block and its name.
const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// The frame of `record`, to be appended at `offset` of a segment of which `durable` bytes are durable.
pub(crate) fn frame(record: &Record, segment: u64, offset: u64, durable: u64) -> Vec<u8> {
    let mut out = vec![0; HEAD];
    record.serialize(&mut out).expect("writing to memory does not fail");
    let len = (out.len() - HEAD) as u32;
    out[..2].copy_from_slice(&MAGIC);
    out[2..6].copy_from_slice(&len.to_le_bytes());
    out[6..14].copy_from_slice(&durable.to_le_bytes());
    let sum = checksum(&out, segment, offset);
    out[14..18].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Over the frame without its checksum field, and the place where it stands.
fn checksum(frame: &[u8], segment: u64, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&frame[..14]);
    hasher.update(&frame[HEAD..]);
    hasher.finalize()
}

/// A frame whose checksum holds.
pub(crate) struct Frame<'a> {
    pub durable: u64,
    pub payload: &'a [u8],
    pub len: usize,
}

/// The frame at `offset` of a segment's content, if one is whole there.
pub(crate) fn unframe(content: &[u8], segment: u64, offset: usize) -> Option<Frame<'_>> {
    let rest = content.get(offset..)?;
    if rest.len() < HEAD || rest[..2] != MAGIC {
        return None;
    }
    let field = |range: std::ops::Range<usize>| rest[range].try_into().ok();
    let payload = u32::from_le_bytes(field(2..6)?) as usize;
    let durable = u64::from_le_bytes(rest[6..14].try_into().ok()?);
    let sum = u32::from_le_bytes(field(14..18)?);
    if payload > MAX_PAYLOAD || rest.len() < HEAD + payload {
        return None;
    }
    let len = HEAD + payload;
    (checksum(&rest[..len], segment, offset as u64) == sum).then(|| Frame {
        durable,
        payload: &rest[HEAD..len],
        len,
    })
}

fn read_body<R: std::io::Read>(reader: &mut R) -> std::io::Result<Bytes> {
    Vec::<u8>::deserialize_reader(reader).map(Bytes::from)
}
