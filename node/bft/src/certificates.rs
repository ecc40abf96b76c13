//! The checks of certificates. The core adds up the power of whatever a certificate lists, so signers that are unknown or
//! named twice must be refused here.

use malachitebft_core_types::{RoundCertificateType, ThresholdParam, VoteType};
use netsplit_core::sign_bytes::VoteKind;
use netsplit_core::{Address, Commit, Hash, Signature, ValidatorSet};

use crate::Verifier;
use crate::context::{CertificateError, CoreCommit, CorePolka, CoreRoundCertificate};
use crate::convert;
use crate::message::Vote;
use crate::pool::Pool;

/// What certificates are checked against.
pub(crate) struct Checker<'a> {
    pub chain_id: &'a Hash,
    pub set: &'a ValidatorSet,
    pub verifier: &'a dyn Verifier,
    /// Votes that were verified before need no second check.
    pub pool: &'a Pool,
}

/// Why a certificate proves nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Duplicate(Address),
    Unknown(Address),
    Kind(Address),
    Signature(Address),
    Power { signed: u64, expected: u64 },
}

impl Checker<'_> {
    pub fn verify_vote(&self, vote: &Vote) -> bool {
        let known = self.set.index_of(&vote.validator).is_some_and(|index| self.pool.holds(vote, index));
        known || self.verifier.verify(&vote.validator, &vote.sign_bytes(self.chain_id), &vote.signature)
    }

    /// Known signers, none twice, every signature good, enough power.
    fn check(&self, votes: impl Iterator<Item = Vote>, threshold: ThresholdParam) -> Result<(), Flaw> {
        let (mut seen, mut signed) = (0u128, 0u64);
        let mut votes: Vec<Vote> = votes.collect();
        for vote in &votes {
            let index = self.set.index_of(&vote.validator).ok_or(Flaw::Unknown(vote.validator))?;
            if seen & 1 << index != 0 {
                return Err(Flaw::Duplicate(vote.validator));
            }
            seen |= 1 << index;
            // No overflow: each validator counts once, and a set's total is bounded.
            signed += self.set.as_slice()[index].power;
        }
        let total = self.set.total_power();
        if !threshold.is_met(signed, total) {
            return Err(Flaw::Power { signed, expected: threshold.min_expected(total) });
        }
        // Signatures last: they cost the most.
        match votes.iter_mut().find(|vote| !self.verify_vote(vote)) {
            Some(vote) => Err(Flaw::Signature(vote.validator)),
            None => Ok(()),
        }
    }

    pub fn commit(&self, commit: &Commit) -> Result<(), Flaw> {
        if let Some(pair) = commit.signatures.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(Flaw::Duplicate(pair[1].0));
        }
        let vote = |(validator, signature): &(Address, Signature)| Vote {
            kind: VoteKind::Precommit,
            height: commit.height,
            round: commit.round,
            block: Some(commit.block),
            validator: *validator,
            signature: *signature,
        };
        self.check(commit.signatures.iter().map(vote), ThresholdParam::TWO_F_PLUS_ONE)
    }

    pub fn core_commit(&self, commit: &CoreCommit) -> Result<(), Flaw> {
        self.commit(&convert::commit_from_core(commit))
    }

    pub fn polka(&self, polka: &CorePolka) -> Result<(), Flaw> {
        let votes = polka.votes(&crate::context::Ctx).map(|vote| Vote::from_core(&vote));
        self.check(votes, ThresholdParam::TWO_F_PLUS_ONE)
    }

    /// A skip certificate needs f+1 (votes of either kind), one for the next round 2f+1 precommits.
    pub fn round(&self, certificate: &CoreRoundCertificate) -> Result<(), Flaw> {
        let threshold = match certificate.cert_type {
            RoundCertificateType::Skip => ThresholdParam::F_PLUS_ONE,
            RoundCertificateType::Precommit => {
                let other = certificate.round_signatures.iter().find(|s| s.vote_type != VoteType::Precommit);
                if let Some(signature) = other {
                    return Err(Flaw::Kind(signature.address.0));
                }
                ThresholdParam::TWO_F_PLUS_ONE
            }
        };
        self.check(certificate.votes(&crate::context::Ctx).map(|vote| Vote::from_core(&vote)), threshold)
    }
}

impl Flaw {
    pub fn to_core(&self, total: u64) -> CertificateError {
        use crate::context::Addr;
        match self {
            Self::Duplicate(address) => CertificateError::DuplicateVote(Addr(*address)),
            Self::Unknown(address) => CertificateError::UnknownValidator(Addr(*address)),
            Self::Kind(address) => CertificateError::InvalidVoteType(Addr(*address)),
            Self::Signature(_) => CertificateError::VerificationError(None),
            Self::Power { signed, expected } => {
                CertificateError::NotEnoughVotingPower { signed: *signed, total, expected: *expected }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netsplit_core::{SecretKey, Validator};

    use super::*;
    use crate::message::{RoundCertificate, RoundVote};
    use crate::signing::Ed25519Verifier;

    struct Fixture {
        keys: Vec<SecretKey>,
        set: ValidatorSet,
        chain_id: Hash,
    }

    fn fixture(powers: &[u64]) -> Fixture {
        let keys: Vec<_> = (1..=powers.len()).map(|i| SecretKey::from_seed([i as u8; 32])).collect();
        let validator = |(key, power): (&SecretKey, &u64)| Validator { address: key.public(), power: *power };
        let set = ValidatorSet::new(keys.iter().zip(powers).map(validator).collect()).unwrap();
        Fixture { keys, set, chain_id: Hash::from_bytes([9; 32]) }
    }

    impl Fixture {
        fn vote(&self, signer: usize, kind: VoteKind) -> Vote {
            let block = Some(Hash::from_bytes([3; 32]));
            let signature = Signature::from_bytes([0; 64]);
            let validator = self.keys[signer].public();
            let mut vote = Vote { kind, height: 5, round: 1, block, validator, signature };
            vote.signature = self.keys[signer].sign(&vote.sign_bytes(&self.chain_id));
            vote
        }

        fn commit(&self, signers: &[usize]) -> Commit {
            let votes = signers.iter().map(|i| self.vote(*i, VoteKind::Precommit));
            Commit::new(5, 1, Hash::from_bytes([3; 32]), votes.map(|v| (v.validator, v.signature)).collect())
        }

        fn check<T>(&self, run: impl FnOnce(&Checker<'_>) -> T) -> T {
            let pool = Pool::default();
            run(&Checker {
                chain_id: &self.chain_id,
                set: &self.set,
                verifier: &Ed25519Verifier,
                pool: &pool,
            })
        }
    }

    #[test]
    fn a_commit_needs_more_than_two_thirds_of_the_power() {
        let f = fixture(&[1, 1, 1, 10]);
        f.check(|c| {
            assert_eq!(c.commit(&f.commit(&[3])), Ok(()));
            assert_eq!(c.commit(&f.commit(&[0, 1, 2])), Err(Flaw::Power { signed: 3, expected: 9 }));
        });
    }

    #[test]
    fn a_signer_counts_once() {
        let f = fixture(&[1, 1, 1, 1]);
        f.check(|c| assert!(matches!(c.commit(&f.commit(&[0, 0, 1])), Err(Flaw::Duplicate(_)))));
    }

    #[test]
    fn strangers_and_borrowed_names_are_refused() {
        let f = fixture(&[1, 1, 1, 1]);
        let mut stranger = f.commit(&[0, 1, 2]);
        stranger.signatures.push((SecretKey::from_seed([77; 32]).public(), stranger.signatures[0].1));
        stranger.signatures.sort();
        let mut borrowed = f.commit(&[0, 1, 2]);
        borrowed.signatures[1].1 = borrowed.signatures[0].1;
        f.check(|c| {
            assert!(matches!(c.commit(&stranger), Err(Flaw::Unknown(_))));
            assert!(matches!(c.commit(&borrowed), Err(Flaw::Signature(_))));
        });
    }

    #[test]
    fn a_round_certificate_of_precommits_holds_nothing_else() {
        let f = fixture(&[1, 1, 1, 1]);
        let certificate = |precommits, kinds: [VoteKind; 3]| {
            let votes = kinds.iter().enumerate().map(|(i, kind)| f.vote(i, *kind));
            let votes = votes.map(|v| RoundVote {
                kind: v.kind,
                block: v.block,
                validator: v.validator,
                signature: v.signature,
            });
            RoundCertificate { height: 5, round: 1, precommits, votes: votes.collect() }.to_core()
        };
        let (a, b) = (VoteKind::Prevote, VoteKind::Precommit);
        f.check(|c| {
            assert_eq!(c.round(&certificate(true, [b, b, b])), Ok(()));
            assert_eq!(c.round(&certificate(false, [a, a, b])), Ok(()));
            assert!(matches!(c.round(&certificate(true, [a, b, b])), Err(Flaw::Kind(_))));
        });
    }
}
