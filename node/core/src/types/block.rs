//! Headers and blocks. A block's id is the hash of its header, and the header commits to every byte of the body: signatures, last
//! commit and evidence included. Two bodies with one id would let a proposer show each validator a different block.

use std::io;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

use super::commit::Commit;
use super::evidence::Evidence;
use super::hash::{Domain, Hash};
use super::key::Address;
use super::transaction::SignedTransaction;
use super::{DecodeError, Height, decode, encode};
use crate::merkle;

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    pub protocol_version: u32,
    /// The genesis hash.
    pub chain_id: Hash,
    pub height: Height,
    /// Id of the block before; for height 1 the genesis hash.
    pub parent: Hash,
    /// Milliseconds since the Unix epoch; strictly greater than the parent's.
    pub time_ms: u64,
    /// Receives the fees.
    pub proposer: Address,
    /// Merkle root over the signed transactions.
    pub tx_root: Hash,
    /// State after the block before: hashing the state stays off the path of the vote.
    pub state_root: Hash,
    pub validators_hash: Hash,
    pub next_validators_hash: Hash,
    pub last_commit_hash: Hash,
    pub evidence_root: Hash,
    pub seal: Seal,
}

/// What makes a header expensive to forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Seal {
    /// A commit of the validators, carried by the block after.
    Bft,
    /// Reserved for proof of work.
    Pow { bits: u32, nonce: u64 },
}

impl Header {
    pub fn id(&self) -> Hash {
        Hash::of(Domain::Header, &encode(self))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub header: Header,
    pub transactions: Vec<Arc<SignedTransaction>>,
    /// The precommits for the parent; empty at height 1.
    pub last_commit: Commit,
    pub evidence: Vec<Evidence>,
}

/// A body that is not the one its header commits to.
#[derive(Debug, thiserror::Error)]
#[error("the header's {field} is {stated}, its body makes {actual}")]
pub struct BodyMismatch {
    pub field: &'static str,
    pub stated: Hash,
    pub actual: Hash,
}

impl Block {
    pub fn id(&self) -> Hash {
        self.header.id()
    }

    pub fn to_bytes(&self) -> Bytes {
        encode(self)
    }

    /// Strict. Only the encoding is checked; see [`Block::check_body`] for the roots.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("block", bytes)
    }

    /// Merkle root over the whole encoded transactions, so that the id fixes the signatures too.
    pub fn tx_root(transactions: &[Arc<SignedTransaction>]) -> Hash {
        merkle::root(transactions.iter().map(|transaction| {
            // The id stands for body and signer: hashing 96 bytes instead of all of them again.
            merkle::leaf(&[transaction.id().as_ref(), transaction.signature.as_bytes()])
        }))
    }

    pub fn evidence_root(evidence: &[Evidence]) -> Hash {
        merkle::root(evidence.iter().map(|item| merkle::leaf(&[&encode(item)])))
    }

    /// Whether the body is the one that the header commits to.
    pub fn check_body(&self) -> Result<(), BodyMismatch> {
        let compare = |field, stated: Hash, actual: Hash| {
            if stated == actual { Ok(()) } else { Err(BodyMismatch { field, stated, actual }) }
        };
        compare("transaction root", self.header.tx_root, Self::tx_root(&self.transactions))?;
        compare("last commit hash", self.header.last_commit_hash, self.last_commit.hash())?;
        compare("evidence root", self.header.evidence_root, Self::evidence_root(&self.evidence))
    }
}

impl BorshSerialize for Block {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.header.serialize(writer)?;
        let count = u32::try_from(self.transactions.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "more than 2^32 transactions"))?;
        count.serialize(writer)?;
        for transaction in &self.transactions {
            transaction.serialize(writer)?;
        }
        self.last_commit.serialize(writer)?;
        self.evidence.serialize(writer)
    }
}

impl BorshDeserialize for Block {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let header = Header::deserialize_reader(reader)?;
        let count = u32::deserialize_reader(reader)?;
        // The count is the sender's claim: room is made as transactions really arrive.
        let mut transactions = Vec::with_capacity((count as usize).min(1024));
        for _ in 0..count {
            transactions.push(Arc::new(SignedTransaction::deserialize_reader(reader)?));
        }
        Ok(Self {
            header,
            transactions,
            last_commit: Commit::deserialize_reader(reader)?,
            evidence: Vec::deserialize_reader(reader)?,
        })
    }
}
