//! What neighbours say to each other, and its form on the wire: one version byte, then strict borsh. Every length is
//! bounded before anything is allocated for it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use netsplit_core::sign_bytes::VoteKind;
use netsplit_core::{Address, Commit, Hash, Height, Signature};
use thiserror::Error;

/// Sizes that every node of a network agrees on.
pub mod limits {
    /// Validators of one set: vote bitmaps are `u128`.
    pub const VALIDATORS: usize = 128;
    /// Bytes of a block in one [`BlockPart`](super::BlockPart) or [`SyncResponse`](super::SyncResponse).
    pub const PART_BYTES: usize = 192 * 1024;
    /// Parts of one block: a bitmap of missing parts is a `u128`.
    pub const PARTS: usize = 128;
    /// Bytes of one encoded message; the transport's frame limit is 256 KiB.
    pub const MESSAGE_BYTES: usize = 240 * 1024;
    /// Heights asked for in one [`Message::SyncRequest`](super::Message::SyncRequest).
    pub const SYNC_COUNT: u8 = 16;
}

/// The version of the wire form; it grows with any change of it.
const WIRE_VERSION: u8 = 1;

/// A signed vote for a block, or for nil when `block` is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    pub kind: VoteKind,
    pub height: Height,
    pub round: u32,
    pub block: Option<Hash>,
    pub validator: Address,
    pub signature: Signature,
}

/// A proposer's signed offer of a block. `pol_round` is the earlier round in which the block had a polka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    pub height: Height,
    pub round: u32,
    pub block: Hash,
    pub pol_round: Option<u32>,
    pub proposer: Address,
    pub signature: Signature,
}

/// One piece of an encoded block, 1 to [`limits::PART_BYTES`] bytes. The sender chooses where to cut.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockPart {
    pub height: Height,
    /// The block's id.
    pub id: Hash,
    pub index: u8,
    /// Parts of the block, 1 to [`limits::PARTS`].
    pub total: u8,
    #[borsh(serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    pub bytes: Bytes,
}

/// Prevotes of 2f+1 for one block in one round.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PolkaCertificate {
    pub height: Height,
    pub round: u32,
    pub block: Hash,
    pub signatures: Vec<(Address, Signature)>,
}

/// One vote inside a [`RoundCertificate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundVote {
    pub kind: VoteKind,
    pub block: Option<Hash>,
    pub validator: Address,
    pub signature: Signature,
}

/// Votes that justify a later round: f+1 of any kind in `round` (skip to it), or, with `precommits`, 2f+1 precommits in
/// `round` (go on to the next).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoundCertificate {
    pub height: Height,
    pub round: u32,
    pub precommits: bool,
    pub votes: Vec<RoundVote>,
}

/// Where a node stands, so that a neighbour can send what it lacks. Bit `i` of a bitmap is validator `i` of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// The height being decided: one above the last final block.
    pub height: Height,
    /// `None` before the height's first round.
    pub round: Option<u32>,
    pub prevotes: u128,
    pub precommits: u128,
    /// The round's proposal and its block are held.
    pub has_proposal: bool,
    /// A polka of this round is held.
    pub has_polka: bool,
    /// The round's proposal refers to the polka of this earlier round, which is not held.
    pub needs_polka: Option<u32>,
    /// The node's own validator address. A hint for who pushes blocks, never proof of anything.
    pub validator: Option<Address>,
    /// Ask for the neighbour's status in return.
    pub reply: bool,
}

/// A piece of a decided block, in answer to a sync request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SyncResponse {
    pub height: Height,
    /// Piece `index` of `total`; `total` is 0 if the node does not have the block (any more).
    pub index: u8,
    pub total: u8,
    /// With piece 0 only: the commit that decided the block.
    pub commit: Option<Commit>,
    #[borsh(serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    pub bytes: Bytes,
}

/// A message between neighbours. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Vote(Vote),
    Proposal(Proposal),
    BlockPart(BlockPart),
    PolkaCertificate(Arc<PolkaCertificate>),
    RoundCertificate(Arc<RoundCertificate>),
    Status(Status),
    /// The sender holds the block of a proposal.
    Have {
        height: Height,
        id: Hash,
    },
    /// Please send these parts (bit `i`: part `i`) of the block.
    Want {
        height: Height,
        id: Hash,
        parts: u128,
    },
    /// Please send the decided blocks from `from` on, `count` of them at most.
    SyncRequest {
        from: Height,
        count: u8,
    },
    SyncResponse(Arc<SyncResponse>),
}

/// Why bytes are no message.
#[derive(Debug, Error)]
pub enum MessageError {
    #[error("message of {0} bytes exceeds the limit of {limit}", limit = limits::MESSAGE_BYTES)]
    TooLarge(usize),
    #[error("message of wire version {0}, expected {WIRE_VERSION}")]
    Version(u8),
    #[error("malformed message")]
    Malformed(#[from] io::Error),
    #[error("message breaks a limit: {0}")]
    Limit(&'static str),
}

impl Message {
    /// True for answers of value sync, which are large and never urgent; all else belongs on the consensus connection.
    pub fn is_bulk(&self) -> bool {
        matches!(self, Self::SyncResponse(_))
    }

    /// A stable name for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vote(_) => "vote",
            Self::Proposal(_) => "proposal",
            Self::BlockPart(_) => "block_part",
            Self::PolkaCertificate(_) => "polka_certificate",
            Self::RoundCertificate(_) => "round_certificate",
            Self::Status(_) => "status",
            Self::Have { .. } => "have",
            Self::Want { .. } => "want",
            Self::SyncRequest { .. } => "sync_request",
            Self::SyncResponse(_) => "sync_response",
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.push(WIRE_VERSION);
        self.serialize(&mut out).expect("writing to memory does not fail");
        out.into()
    }

    /// Strict: trailing bytes, a foreign version and anything beyond [`limits`] are errors.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > limits::MESSAGE_BYTES {
            return Err(MessageError::TooLarge(bytes.len()));
        }
        let (version, body) =
            bytes.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if *version != WIRE_VERSION {
            return Err(MessageError::Version(*version));
        }
        let message: Self = borsh::from_slice(body)?;
        message.check_limits()?;
        Ok(message)
    }

    fn check_limits(&self) -> Result<(), MessageError> {
        let ok = match self {
            Self::PolkaCertificate(c) => c.signatures.len() <= limits::VALIDATORS,
            Self::RoundCertificate(c) => c.votes.len() <= 2 * limits::VALIDATORS,
            Self::BlockPart(p) => {
                p.total >= 1
                    && usize::from(p.total) <= limits::PARTS
                    && piece_ok(p.index, p.total, p.bytes.len())
            }
            Self::SyncRequest { from, count } => *from > 0 && (1..=limits::SYNC_COUNT).contains(count),
            Self::SyncResponse(r) => {
                let commit_ok = r.commit.as_ref().is_none_or(|c| c.signatures.len() <= limits::VALIDATORS);
                let missing = r.total == 0 && r.index == 0 && r.commit.is_none() && r.bytes.is_empty();
                let piece = r.commit.is_some() == (r.index == 0) && piece_ok(r.index, r.total, r.bytes.len());
                commit_ok && usize::from(r.total) <= limits::PARTS && (missing || piece)
            }
            _ => true,
        };
        if ok { Ok(()) } else { Err(MessageError::Limit(self.kind())) }
    }
}

fn piece_ok(index: u8, total: u8, len: usize) -> bool {
    index < total && (1..=limits::PART_BYTES).contains(&len)
}

impl BorshSerialize for Message {
    fn serialize<W: Write>(&self, w: &mut W) -> io::Result<()> {
        match self {
            Self::Vote(x) => (1u8, x).serialize(w),
            Self::Proposal(x) => (2u8, x).serialize(w),
            Self::BlockPart(x) => (3u8, x).serialize(w),
            Self::PolkaCertificate(x) => (4u8, &**x).serialize(w),
            Self::RoundCertificate(x) => (5u8, &**x).serialize(w),
            Self::Status(x) => (6u8, x).serialize(w),
            Self::Have { height, id } => (7u8, height, id).serialize(w),
            Self::Want { height, id, parts } => (8u8, height, id, parts).serialize(w),
            Self::SyncRequest { from, count } => (9u8, from, count).serialize(w),
            Self::SyncResponse(x) => (10u8, &**x).serialize(w),
        }
    }
}

impl BorshDeserialize for Message {
    fn deserialize_reader<R: Read>(r: &mut R) -> io::Result<Self> {
        Ok(match u8::deserialize_reader(r)? {
            1 => Self::Vote(BorshDeserialize::deserialize_reader(r)?),
            2 => Self::Proposal(BorshDeserialize::deserialize_reader(r)?),
            3 => Self::BlockPart(BorshDeserialize::deserialize_reader(r)?),
            4 => Self::PolkaCertificate(Arc::new(BorshDeserialize::deserialize_reader(r)?)),
            5 => Self::RoundCertificate(Arc::new(BorshDeserialize::deserialize_reader(r)?)),
            6 => Self::Status(BorshDeserialize::deserialize_reader(r)?),
            7 => {
                let (height, id) = BorshDeserialize::deserialize_reader(r)?;
                Self::Have { height, id }
            }
            8 => {
                let (height, id, parts) = BorshDeserialize::deserialize_reader(r)?;
                Self::Want { height, id, parts }
            }
            9 => {
                let (from, count) = BorshDeserialize::deserialize_reader(r)?;
                Self::SyncRequest { from, count }
            }
            10 => Self::SyncResponse(Arc::new(BorshDeserialize::deserialize_reader(r)?)),
            tag => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("unknown message tag {tag}")));
            }
        })
    }
}

/// Borsh writes lengths as `u32`; the limit is checked before a buffer of that length exists.
pub(crate) fn write_bytes<W: Write>(bytes: &Bytes, w: &mut W) -> io::Result<()> {
    bytes.as_ref().serialize(w)
}

fn read_bytes<R: Read>(r: &mut R) -> io::Result<Bytes> {
    let len = u32::deserialize_reader(r)? as usize;
    if len > limits::PART_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("piece of {len} bytes")));
    }
    let mut buffer = vec![0; len];
    r.read_exact(&mut buffer)?;
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(len: usize, index: u8, total: u8) -> Message {
        let bytes = Bytes::from(vec![7; len]);
        Message::BlockPart(BlockPart { height: 1, id: Hash::ZERO, index, total, bytes })
    }

    fn refused(message: &Message) -> bool {
        Message::from_bytes(&message.to_bytes()).is_err()
    }

    #[test]
    fn a_message_survives_the_wire() {
        let status = Status {
            height: 7,
            round: Some(3),
            prevotes: u128::MAX,
            precommits: 1 << 100,
            has_proposal: true,
            has_polka: false,
            needs_polka: Some(1),
            validator: None,
            reply: true,
        };
        let commit = Some(Commit::new(5, 1, Hash::ZERO, Vec::new()));
        let answer = SyncResponse { height: 5, index: 0, total: 2, commit, bytes: Bytes::from_static(b"x") };
        let missing = SyncResponse { height: 5, index: 0, total: 0, commit: None, bytes: Bytes::new() };
        let messages = [
            Message::Status(status),
            part(limits::PART_BYTES, 1, 2),
            Message::Have { height: 9, id: Hash::from_bytes([1; 32]) },
            Message::Want { height: 9, id: Hash::from_bytes([1; 32]), parts: 5 },
            Message::SyncRequest { from: 1, count: limits::SYNC_COUNT },
            Message::SyncResponse(Arc::new(answer)),
            Message::SyncResponse(Arc::new(missing)),
        ];
        for message in messages {
            let bytes = message.to_bytes();
            assert!(bytes.len() <= limits::MESSAGE_BYTES);
            assert_eq!(Message::from_bytes(&bytes).unwrap(), message);
            let mut trailing = bytes.to_vec();
            trailing.push(0);
            assert!(Message::from_bytes(&trailing).is_err());
        }
    }

    #[test]
    fn limits_hold_on_the_wire() {
        assert!(refused(&part(limits::PART_BYTES + 1, 0, 1)));
        assert!(refused(&part(0, 0, 1)));
        assert!(refused(&part(5, 1, 1)));
        assert!(refused(&part(5, 0, 200)));
        assert!(refused(&Message::SyncRequest { from: 0, count: 1 }));
        assert!(refused(&Message::SyncRequest { from: 1, count: 0 }));
        assert!(refused(&Message::SyncRequest { from: 1, count: limits::SYNC_COUNT + 1 }));
        let signer = netsplit_core::SecretKey::from_seed([1; 32]).public();
        let signatures = vec![(signer, Signature::from_bytes([0; 64])); limits::VALIDATORS + 1];
        let polka = PolkaCertificate { height: 1, round: 0, block: Hash::ZERO, signatures };
        assert!(refused(&Message::PolkaCertificate(Arc::new(polka))));
        assert!(matches!(
            Message::from_bytes(&vec![1; limits::MESSAGE_BYTES + 1]),
            Err(MessageError::TooLarge(_))
        ));
        assert!(matches!(Message::from_bytes(&[9, 7]), Err(MessageError::Version(9))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), tag in 0u8..12) {
            if bytes.len() > 1 {
                bytes[0] = WIRE_VERSION;
                bytes[1] = tag;
            }
            if let Ok(message) = Message::from_bytes(&bytes) {
                prop_assert_eq!(&message.to_bytes()[..], &bytes[..]);
            }
        }
    }
}
