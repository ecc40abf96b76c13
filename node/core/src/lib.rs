//! What the chain is made of, without any input or output: keys, hashes, transactions, blocks, commits, validator sets, the rules of
//! the ledger and the mempool. Clock, randomness and stored state enter as arguments, so that every result can be repeated.
//!
//! Encodings are borsh, fixed in their field order and decoded strictly: a trailing byte is an error. What is hashed or signed is the
//! bytes as they were sent, never a re-encoding.

mod hex;
pub mod ledger;
pub mod mempool;
pub mod merkle;
pub mod sign_bytes;
mod types;
pub mod verify;

pub use types::block::{Block, BodyMismatch, Header, Seal};
pub use types::commit::{Commit, CommitError};
pub use types::evidence::{Evidence, EvidenceError, SignedVote};
pub use types::hash::{Domain, Hash};
pub use types::key::{Address, KeyError, KeyType, PublicKey, SecretKey, Signature};
pub use types::transaction::{Action, MAX_TRANSACTION_BYTES, SignedTransaction, TransactionBody};
pub use types::validator::{MAX_TOTAL_POWER, Validator, ValidatorSet, ValidatorSetError};
pub use types::{DecodeError, Height, decode, encode};
pub use verify::verify_batch;

/// The newest protocol version that this node speaks. It travels in headers and handshakes.
pub const PROTOCOL_VERSION: u32 = 1;
