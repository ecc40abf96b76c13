//! Proof that a validator signed two different votes for one height, round and kind. It is carried and checked; slashing comes with
//! stakes.

use borsh::{BorshDeserialize, BorshSerialize};

use super::Height;
use super::hash::Hash;
use super::key::{Address, SecretKey, Signature};
use super::validator::ValidatorSet;
use crate::sign_bytes::{self, VoteKind};

/// A vote with what is needed to check it later.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedVote {
    pub kind: VoteKind,
    pub height: Height,
    pub round: u32,
    /// `None` is a vote for nil.
    pub block: Option<Hash>,
    pub validator: Address,
    pub signature: Signature,
}

impl SignedVote {
    pub fn sign(
        chain_id: &Hash,
        kind: VoteKind,
        height: Height,
        round: u32,
        block: Option<Hash>,
        key: &SecretKey,
    ) -> Self {
        let signature = key.sign(&sign_bytes::vote(chain_id, kind, height, round, block.as_ref()));
        Self { kind, height, round, block, validator: key.public(), signature }
    }

    pub fn verify(&self, chain_id: &Hash) -> bool {
        let message = sign_bytes::vote(chain_id, self.kind, self.height, self.round, self.block.as_ref());
        self.validator.verify(&message, &self.signature)
    }
}

/// Two conflicting votes of one validator, the one for the smaller block first (nil is smallest), so that one pair has one encoding.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    pub first: SignedVote,
    pub second: SignedVote,
}

/// Votes that prove nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    #[error("the votes differ in validator, kind, height or round")]
    DifferentVotes,
    #[error("the votes are not for two different blocks in ascending order")]
    SameBlock,
    #[error("{0} was no validator at the height of the votes")]
    UnknownValidator(Address),
    #[error("a vote of {0} does not verify")]
    Signature(Address),
}

impl Evidence {
    /// Puts the votes into their order; `None` if they are for the same block.
    pub fn new(one: SignedVote, other: SignedVote) -> Option<Self> {
        match one.block.cmp(&other.block) {
            std::cmp::Ordering::Less => Some(Self { first: one, second: other }),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Self { first: other, second: one }),
        }
    }

    /// `validators` is the set of the height of the votes.
    pub fn verify(&self, chain_id: &Hash, validators: &ValidatorSet) -> Result<(), EvidenceError> {
        let (first, second) = (&self.first, &self.second);
        let place = |vote: &SignedVote| (vote.validator, vote.kind, vote.height, vote.round);
        if place(first) != place(second) {
            return Err(EvidenceError::DifferentVotes);
        }
        if first.block >= second.block {
            return Err(EvidenceError::SameBlock);
        }
        if validators.get(&first.validator).is_none() {
            return Err(EvidenceError::UnknownValidator(first.validator));
        }
        if !first.verify(chain_id) || !second.verify(chain_id) {
            return Err(EvidenceError::Signature(first.validator));
        }
        Ok(())
    }
}
