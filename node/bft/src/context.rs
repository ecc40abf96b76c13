//! The core's type parameters, over the chain's own types. The value that is voted on is a block's id; blocks travel
//! beside the core.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use malachitebft_core_types::{
    self as core_types, Context, LinearTimeouts, NilOrVal, Round, SignedExtension, SignedMessage,
    SigningScheme, VoteType,
};
use netsplit_core::{Address, Hash, PublicKey, SecretKey, Signature, Validator, ValidatorSet};

/// The index in `set` of the proposer of a round.
///
/// Position `height + round` of a golden-ratio sequence, which fills `[0, 1)` evenly, is looked up in the running sum of
/// powers, in the order of addresses. So each validator proposes in proportion to its power, its turns are spread and
/// not bunched, a failed round goes to another validator than the one before unless that holds more than 38 % of the
/// power, and every node computes the same from the set alone.
pub fn proposer_index(set: &ValidatorSet, height: u64, round: u32) -> usize {
    /// 2^64 divided by the golden ratio, made odd.
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let point = height.wrapping_add(u64::from(round)).wrapping_mul(GOLDEN);
    let at = ((u128::from(point) * u128::from(set.total_power())) >> 64) as u64;
    let mut sum = 0;
    set.iter()
        .position(|validator| {
            sum += validator.power;
            at < sum
        })
        .expect("a point below the total power falls on a validator")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Addr(pub Address);
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl core_types::Address for Addr {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash)]
pub(crate) struct At(pub u64);
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl core_types::Height for At {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);
    fn increment_by(&self, n: u64) -> Self {
        Self(self.0 + n)
    }
    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }
    fn as_u64(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub Hash);
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl core_types::Value for Id {
    type Id = Id;
    fn id(&self) -> Id {
        *self
    }
}

pub(crate) type Ballot = NilOrVal<Id>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreProposal {
    pub height: At,
    pub round: Round,
    pub block: Id,
    pub pol_round: Round,
    pub proposer: Addr,
}
impl core_types::Proposal<Ctx> for CoreProposal {
    fn height(&self) -> At {
        self.height
    }
    fn round(&self) -> Round {
        self.round
    }
    fn value(&self) -> &Id {
        &self.block
    }
    fn take_value(self) -> Id {
        self.block
    }
    fn pol_round(&self) -> Round {
        self.pol_round
    }
    fn validator_address(&self) -> &Addr {
        &self.proposer
    }
}

/// Never used: the core wants a type for parts, and does not touch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoPart;
impl core_types::ProposalPart<Ctx> for NoPart {
    fn is_first(&self) -> bool {
        true
    }
    fn is_last(&self) -> bool {
        true
    }
}

/// Vote extensions are off: `extension` is always `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreVote {
    pub kind: VoteType,
    pub height: At,
    pub round: Round,
    pub ballot: Ballot,
    pub validator: Addr,
}
impl core_types::Vote<Ctx> for CoreVote {
    fn height(&self) -> At {
        self.height
    }
    fn round(&self) -> Round {
        self.round
    }
    fn value(&self) -> &Ballot {
        &self.ballot
    }
    fn take_value(self) -> Ballot {
        self.ballot
    }
    fn vote_type(&self) -> VoteType {
        self.kind
    }
    fn validator_address(&self) -> &Addr {
        &self.validator
    }
    fn extension(&self) -> Option<&SignedExtension<Ctx>> {
        None
    }
    fn take_extension(&mut self) -> Option<SignedExtension<Ctx>> {
        None
    }
    fn extend(self, _: SignedExtension<Ctx>) -> Self {
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    address: Addr,
    power: u64,
}
impl core_types::Validator<Ctx> for Member {
    fn address(&self) -> &Addr {
        &self.address
    }
    fn public_key(&self) -> &PublicKey {
        &self.address.0
    }
    fn voting_power(&self) -> u64 {
        self.power
    }
}

/// A validator set with the core's view of its members. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    pub set: Arc<ValidatorSet>,
    members: Arc<Vec<Member>>,
}
impl Members {
    pub fn new(set: ValidatorSet) -> Self {
        let member = |v: &Validator| Member { address: Addr(v.address), power: v.power };
        let members = Arc::new(set.iter().map(member).collect());
        Self { set: Arc::new(set), members }
    }

    pub fn proposer(&self, height: u64, round: u32) -> Address {
        self.set.as_slice()[proposer_index(&self.set, height, round)].address
    }
}
impl core_types::ValidatorSet<Ctx> for Members {
    fn count(&self) -> usize {
        self.members.len()
    }
    fn total_voting_power(&self) -> u64 {
        self.set.total_power()
    }
    fn get_by_address(&self, address: &Addr) -> Option<&Member> {
        self.set.index_of(&address.0).map(|index| &self.members[index])
    }
    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheme;
impl SigningScheme for Scheme {
    type DecodingError = &'static str;
    type Signature = Signature;
    type PublicKey = PublicKey;
    type PrivateKey = SecretKey;
    fn decode_signature(bytes: &[u8]) -> Result<Signature, &'static str> {
        bytes.try_into().map(Signature::from_bytes).map_err(|_| "a signature has 64 bytes")
    }
    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.as_bytes().to_vec()
    }
    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, &'static str> {
        PublicKey::from_bytes(bytes).ok_or("no public key")
    }
    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.to_bytes().to_vec()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Ctx;
impl Context for Ctx {
    type Address = Addr;
    type Height = At;
    type ProposalPart = NoPart;
    type Proposal = CoreProposal;
    type Validator = Member;
    type ValidatorSet = Members;
    type Timeouts = LinearTimeouts;
    type Value = Id;
    type Vote = CoreVote;
    type Extension = Bytes;
    type SigningScheme = Scheme;

    fn select_proposer<'a>(&self, set: &'a Members, height: At, round: Round) -> &'a Member {
        &set.members[proposer_index(&set.set, height.0, round.as_u32().unwrap_or(0))]
    }
    fn new_proposal(
        &self,
        height: At,
        round: Round,
        block: Id,
        pol_round: Round,
        proposer: Addr,
    ) -> CoreProposal {
        CoreProposal { height, round, block, pol_round, proposer }
    }
    fn new_prevote(&self, height: At, round: Round, ballot: Ballot, validator: Addr) -> CoreVote {
        CoreVote { kind: VoteType::Prevote, height, round, ballot, validator }
    }
    fn new_precommit(&self, height: At, round: Round, ballot: Ballot, validator: Addr) -> CoreVote {
        CoreVote { kind: VoteType::Precommit, height, round, ballot, validator }
    }
}

pub(crate) type SignedVote = core_types::SignedVote<Ctx>;
pub(crate) type SignedProposal = core_types::SignedProposal<Ctx>;
pub(crate) type CorePolka = core_types::PolkaCertificate<Ctx>;
pub(crate) type CoreRoundCertificate = core_types::RoundCertificate<Ctx>;
pub(crate) type CoreCommit = core_types::CommitCertificate<Ctx>;
pub(crate) type CertificateError = core_types::CertificateError<Ctx>;

pub(crate) fn signed<T>(message: T, signature: Signature) -> SignedMessage<Ctx, T> {
    SignedMessage::new(message, signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(powers: &[u64]) -> ValidatorSet {
        let validator = |(i, power): (usize, &u64)| Validator {
            address: SecretKey::from_seed([i as u8 + 1; 32]).public(),
            power: *power,
        };
        ValidatorSet::new(powers.iter().enumerate().map(validator).collect()).unwrap()
    }

    #[test]
    fn turns_follow_power() {
        let set = set(&[1, 2, 3, 10]);
        let mut turns = [0u64; 4];
        for height in 1..=16_000 {
            turns[proposer_index(&set, height, 0)] += 1;
        }
        for (turn, validator) in turns.iter().zip(set.iter()) {
            assert!(turn.abs_diff(validator.power * 1000) < 20, "{turns:?}");
        }
    }

    #[test]
    fn equal_powers_never_propose_twice_in_a_row() {
        for count in 3..=20 {
            let set = set(&vec![5; count]);
            for height in 1..2000 {
                assert_ne!(proposer_index(&set, height, 0), proposer_index(&set, height, 1));
                assert_eq!(proposer_index(&set, height, 1), proposer_index(&set, height + 1, 0));
            }
        }
    }

    #[test]
    fn all_of_the_power_range_is_reached() {
        let set = set(&[netsplit_core::MAX_TOTAL_POWER - 1, 1]);
        assert!((1..100_000).all(|height| proposer_index(&set, height, 7) < 2));
    }
}
