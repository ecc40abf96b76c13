//! Relay messages: one version byte, then strict borsh. A frame is at most 192 KiB.

use std::io;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use netsplit_core::{Hash, SignedTransaction};

const VERSION: u8 = 1;
/// Ids in one message (128 KiB).
pub(crate) const MAX_IDS: usize = 4096;
/// Bytes of transactions after which a frame is closed. The largest transaction still fits a frame of its own.
const FRAME_BYTES: usize = 192 << 10;

#[derive(Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum RelayMessage {
    /// The sender holds these.
    Announce(Vec<Hash>),
    /// The sender lacks these.
    Want(Vec<Hash>),
    Transactions(Vec<SignedTransaction>),
}

const TRANSACTIONS: u8 = 2;

impl RelayMessage {
    pub(crate) fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let invalid = |text: &'static str| io::Error::new(io::ErrorKind::InvalidData, text);
        let (version, body) = bytes.split_first().ok_or_else(|| invalid("empty"))?;
        if *version != VERSION {
            return Err(invalid("unknown version"));
        }
        let message: Self = borsh::from_slice(body)?;
        match &message {
            Self::Announce(ids) | Self::Want(ids) if ids.len() > MAX_IDS => Err(invalid("too many ids")),
            _ => Ok(message),
        }
    }
}

pub(crate) fn announce(ids: &[Hash]) -> Bytes {
    encode(&RelayMessage::Announce(ids.to_vec()))
}

pub(crate) fn want(ids: &[Hash]) -> Bytes {
    encode(&RelayMessage::Want(ids.to_vec()))
}

fn encode(message: &RelayMessage) -> Bytes {
    let mut out = vec![VERSION];
    message.serialize(&mut out).expect("writing to memory does not fail");
    out.into()
}

/// Frames that hold `transactions`, in their order.
pub(crate) fn transactions(transactions: &[Arc<SignedTransaction>]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let mut rest = transactions;
    while !rest.is_empty() {
        let mut bytes = 0;
        let mut count = 0;
        for transaction in rest {
            bytes += transaction.encoded_len();
            if count > 0 && bytes > FRAME_BYTES {
                break;
            }
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        // As `RelayMessage::Transactions` is encoded, without cloning the transactions.
        let mut out = Vec::with_capacity(bytes.min(FRAME_BYTES) + 8);
        out.extend_from_slice(&[VERSION, TRANSACTIONS]);
        out.extend_from_slice(&u32::try_from(count).expect("a frame holds few transactions").to_le_bytes());
        for transaction in now {
            transaction.serialize(&mut out).expect("writing to memory does not fail");
        }
        frames.push(out.into());
        rest = later;
    }
    frames
}

#[cfg(test)]
mod tests {
    use netsplit_core::{Domain, SecretKey, Signature};
    use netsplit_net::MAX_FRAME_BYTES;

    use super::*;

    fn transaction(length: usize) -> Arc<SignedTransaction> {
        Arc::new(SignedTransaction {
            body: Bytes::from(vec![7; length]),
            signer: SecretKey::from_seed([1; 32]).public(),
            signature: Signature::from_bytes([2; 64]),
        })
    }

    #[test]
    fn every_message_survives_and_is_read_strictly() {
        let ids = [Hash::of(Domain::Seed, b"a"), Hash::of(Domain::Seed, b"b")];
        for bytes in [announce(&ids), want(&ids), transactions(&[transaction(10), transaction(0)]).remove(0)]
        {
            let message = RelayMessage::from_bytes(&bytes).unwrap();
            assert_eq!(encode(&message), bytes);
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(RelayMessage::from_bytes(&longer).is_err());
            assert!(RelayMessage::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            longer[0] = 9;
            assert!(RelayMessage::from_bytes(&longer[..bytes.len()]).is_err());
        }
        assert!(RelayMessage::from_bytes(&[]).is_err());
    }

    #[test]
    fn too_many_ids_are_refused() {
        assert!(RelayMessage::from_bytes(&announce(&vec![Hash::ZERO; MAX_IDS])).is_ok());
        assert!(RelayMessage::from_bytes(&announce(&vec![Hash::ZERO; MAX_IDS + 1])).is_err());
    }

    #[test]
    fn a_huge_count_allocates_nothing() {
        let mut bytes = vec![VERSION, TRANSACTIONS];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(RelayMessage::from_bytes(&bytes).is_err());
    }

    #[test]
    fn transactions_are_cut_into_frames_that_fit() {
        let all: Vec<_> = [100_000, 100_000, 50_000, 130_000, 1, 1].map(transaction).into();
        let frames = transactions(&all);
        let mut back = Vec::new();
        for frame in &frames {
            assert!(frame.len() <= MAX_FRAME_BYTES);
            match RelayMessage::from_bytes(frame).unwrap() {
                RelayMessage::Transactions(transactions) => {
                    back.extend(transactions.into_iter().map(Arc::new));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(back, all);
        assert!(frames.len() >= 2);
        assert!(transactions(&[]).is_empty());
    }
}
