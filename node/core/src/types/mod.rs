//! The types that travel between nodes and rest on disk.

pub mod block;
pub mod commit;
pub mod evidence;
pub mod hash;
pub mod key;
pub mod transaction;
pub mod validator;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// Distance from the genesis block, which is height 0 and has no body; the first decided block is 1.
pub type Height = u64;

/// Bytes that are not the strict encoding of the type they were read as.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be decoded")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: std::io::Error,
}

impl DecodeError {
    /// An encoding that is well formed, and breaks a rule of `what`.
    pub fn invalid(what: &'static str, rule: impl Into<String>) -> Self {
        Self { what, source: std::io::Error::new(std::io::ErrorKind::InvalidData, rule.into()) }
    }
}

/// The borsh encoding of `value`.
pub fn encode(value: &impl BorshSerialize) -> Bytes {
    borsh::to_vec(value).expect("writing to memory fails only for sequences above 4 GiB").into()
}

/// Reads a `what` that fills `bytes` to the last byte.
pub fn decode<T: BorshDeserialize>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    borsh::from_slice(bytes).map_err(|source| DecodeError { what, source })
}
