//! A commit: the precommits of more than two thirds of the power for one block.

use borsh::{BorshDeserialize, BorshSerialize};

use super::hash::{Domain, Hash};
use super::key::{Address, Signature};
use super::validator::ValidatorSet;
use super::{DecodeError, Height, decode, encode};
use crate::sign_bytes::{self, VoteKind};
use crate::verify::{Check, all_valid};

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    pub height: Height,
    pub round: u32,
    pub block: Hash,
    /// Strictly ascending by address, so that one set of signatures has one encoding and no signer counts twice.
    pub signatures: Vec<(Address, Signature)>,
}

/// A commit that does not prove its block final.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    #[error("the commit is for height {actual}, not {expected}")]
    Height { expected: Height, actual: Height },
    #[error("the commit is for block {actual}, not {expected}")]
    Block { expected: Hash, actual: Hash },
    #[error("the signers of the commit for height {0} are not in strictly ascending order")]
    Order(Height),
    #[error("{signer} signed the commit for height {height} and is no validator of it")]
    UnknownSigner { height: Height, signer: Address },
    #[error("a signature in the commit for height {0} does not verify")]
    Signature(Height),
    #[error("the commit for height {height} has power {power}, a quorum needs {quorum}")]
    Power { height: Height, power: u64, quorum: u64 },
    #[error("the commit before the first block must be empty")]
    NotEmpty,
}

impl Commit {
    /// Puts the signatures into their order. Duplicates stay, and fail in [`Commit::verify`].
    pub fn new(height: Height, round: u32, block: Hash, mut signatures: Vec<(Address, Signature)>) -> Self {
        signatures.sort_by_key(|(address, _)| *address);
        Self { height, round, block, signatures }
    }

    /// What stands in for the commit of the genesis block, whose id is the genesis hash. `chain_id` is that hash.
    pub fn genesis(chain_id: Hash) -> Self {
        Self { height: 0, round: 0, block: chain_id, signatures: Vec::new() }
    }

    /// Over every byte, signatures included.
    pub fn hash(&self) -> Hash {
        Hash::of(Domain::Commit, &encode(self))
    }

    pub fn to_bytes(&self) -> bytes::Bytes {
        encode(self)
    }

    /// Strict. Only the encoding is checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("commit", bytes)
    }

    /// Whether this proves `block` final at `height` under `validators`, the set of that height. Every signature present must verify,
    /// also those beyond the quorum: a block's bytes must not carry rubbish.
    pub fn verify(
        &self,
        chain_id: &Hash,
        height: Height,
        block: &Hash,
        validators: &ValidatorSet,
    ) -> Result<(), CommitError> {
        if self.height != height {
            return Err(CommitError::Height { expected: height, actual: self.height });
        }
        if self.block != *block {
            return Err(CommitError::Block { expected: *block, actual: self.block });
        }
        if height == 0 {
            let empty = self.round == 0 && self.signatures.is_empty();
            return if empty { Ok(()) } else { Err(CommitError::NotEmpty) };
        }
        if !self.signatures.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(CommitError::Order(height));
        }
        let mut power = 0;
        for (signer, _) in &self.signatures {
            let validator =
                validators.get(signer).ok_or(CommitError::UnknownSigner { height, signer: *signer })?;
            // No overflow: each validator counts once, and a set's total is bounded.
            power += validator.power;
        }
        if power < validators.quorum() {
            return Err(CommitError::Power { height, power, quorum: validators.quorum() });
        }
        let message = sign_bytes::vote(chain_id, VoteKind::Precommit, height, self.round, Some(block));
        let checks: Vec<Check<'_>> = self
            .signatures
            .iter()
            .map(|(key, signature)| Check { key, message: &message, signature })
            .collect();
        if all_valid(&checks) { Ok(()) } else { Err(CommitError::Signature(height)) }
    }
}
