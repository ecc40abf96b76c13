//! BLAKE3 with a domain tag for each type, so that the bytes of one type never hash to the identity of another.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex;

/// 32 bytes of BLAKE3. Shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Hash([u8; 32]);

/// What is hashed. The tag goes before the bytes; all tags have one length, so no two inputs run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    Genesis,
    Header,
    Transaction,
    Commit,
    ValidatorSet,
    /// A leaf of a Merkle tree, see [`crate::merkle`].
    MerkleLeaf,
    /// An inner node of a Merkle tree.
    MerkleNode,
    /// The key of a value in the state tree.
    StateKey,
    /// Names a seed for a pseudo-random stream.
    Seed,
}

impl Domain {
    /// 16 bytes, different for every variant. Changing one changes every hash of that type: a hard fork.
    pub const fn tag(self) -> &'static [u8; 16] {
        match self {
            Self::Genesis => b"netsplit/genesis",
            Self::Header => b"netsplit/header.",
            Self::Transaction => b"netsplit/transac",
            Self::Commit => b"netsplit/commit.",
            Self::ValidatorSet => b"netsplit/val-set",
            Self::MerkleLeaf => b"netsplit/mk-leaf",
            Self::MerkleNode => b"netsplit/mk-node",
            Self::StateKey => b"netsplit/statkey",
            Self::Seed => b"netsplit/seed...",
        }
    }
}

impl Hash {
    /// Stands for "nothing": the state root before any state, the block of an empty commit.
    pub const ZERO: Self = Self([0; 32]);

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of `bytes` as a value of `domain`.
    pub fn of(domain: Domain, bytes: &[u8]) -> Self {
        Self::of_parts(domain, &[bytes])
    }

    /// As [`Hash::of`] over the parts joined. The parts' lengths are not hashed: the caller's encoding must fix them.
    pub fn of_parts(domain: Domain, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(domain.tag());
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits, not {0:?}")]
pub struct HashError(String);

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        hex::decode(text).map(Self).ok_or_else(|| HashError(text.chars().take(80).collect()))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <String as Deserialize>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
