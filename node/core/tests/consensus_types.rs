//! Validator sets, commits, evidence and the roots that a header carries.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{CHAIN, key, transfer};
use netsplit_core::sign_bytes::{self, VoteKind};
use netsplit_core::{
    Block, Commit, CommitError, Evidence, EvidenceError, Hash, MAX_TOTAL_POWER, Signature, SignedVote,
    Validator, ValidatorSet, ValidatorSetError, merkle,
};

const BLOCK: Hash = Hash::from_bytes([3; 32]);

fn set(powers: &[u64]) -> ValidatorSet {
    let validators = powers.iter().zip(0..).map(|(power, number)| validator(number, *power));
    ValidatorSet::new(validators.collect()).unwrap()
}

fn validator(number: u64, power: u64) -> Validator {
    Validator { address: key(number).public(), power }
}

fn commit_of(signers: &[u64], height: u64, block: Hash) -> Commit {
    let message = sign_bytes::vote(&CHAIN, VoteKind::Precommit, height, 1, Some(&block));
    let signatures = signers.iter().map(|number| (key(*number).public(), key(*number).sign(&message)));
    Commit::new(height, 1, block, signatures.collect())
}

#[test]
fn a_validator_set_keeps_its_rules() {
    assert_eq!(ValidatorSet::new(Vec::new()), Err(ValidatorSetError::Empty));
    let twice = vec![validator(1, 1), validator(2, 1), validator(1, 2)];
    assert_eq!(ValidatorSet::new(twice), Err(ValidatorSetError::Duplicate(key(1).public())));
    assert_eq!(ValidatorSet::new(vec![validator(1, 0)]), Err(ValidatorSetError::NoPower(key(1).public())));
    assert!(ValidatorSet::new(vec![validator(1, MAX_TOTAL_POWER)]).is_ok());
    let too_much = vec![validator(1, MAX_TOTAL_POWER), validator(2, 1)];
    assert_eq!(ValidatorSet::new(too_much), Err(ValidatorSetError::TooMuchPower));
    let wraps = vec![validator(1, u64::MAX), validator(2, 2)];
    assert_eq!(ValidatorSet::new(wraps), Err(ValidatorSetError::TooMuchPower));

    let one = ValidatorSet::new(vec![validator(1, 5), validator(2, 6)]).unwrap();
    let other = ValidatorSet::new(vec![validator(2, 6), validator(1, 5)]).unwrap();
    assert_eq!(one.hash(), other.hash());
    assert_ne!(one.hash(), set(&[5, 7]).hash());
    assert_eq!(one.get(&key(2).public()).unwrap().power, 6);
    assert_eq!(one.get(&key(3).public()), None);
}

#[test]
fn a_quorum_is_more_than_two_thirds() {
    for total in (1..40).chain([MAX_TOTAL_POWER - 1, MAX_TOTAL_POWER]) {
        let quorum = u128::from(set(&[total]).quorum());
        let total = u128::from(total);
        assert!(3 * quorum > 2 * total && 3 * (quorum - 1) <= 2 * total, "{quorum} of {total}");
    }
}

#[test]
fn a_commit_needs_a_quorum_of_its_validators() {
    let validators = set(&[1, 1, 1, 1]);
    let check = |commit: &Commit| commit.verify(&CHAIN, 5, &BLOCK, &validators);
    assert_eq!(check(&commit_of(&[0, 1, 2], 5, BLOCK)), Ok(()));
    assert_eq!(check(&commit_of(&[0, 1, 2, 3], 5, BLOCK)), Ok(()));
    assert_eq!(
        check(&commit_of(&[0, 1], 5, BLOCK)),
        Err(CommitError::Power { height: 5, power: 2, quorum: 3 })
    );
    assert_eq!(check(&commit_of(&[0, 1, 1], 5, BLOCK)), Err(CommitError::Order(5)));
    assert_eq!(
        check(&commit_of(&[0, 1, 2, 9], 5, BLOCK)),
        Err(CommitError::UnknownSigner { height: 5, signer: key(9).public() })
    );
    assert_eq!(check(&commit_of(&[0, 1, 2], 6, BLOCK)), Err(CommitError::Height { expected: 5, actual: 6 }));
    let other = Hash::ZERO;
    assert_eq!(
        check(&commit_of(&[0, 1, 2], 5, other)),
        Err(CommitError::Block { expected: BLOCK, actual: other })
    );
    let mut reversed = commit_of(&[0, 1, 2], 5, BLOCK);
    reversed.signatures.reverse();
    assert_eq!(check(&reversed), Err(CommitError::Order(5)));
    // A quorum beside one bad signature: the bytes of a commit are stored and hashed, so none may be rubbish.
    let mut bad = commit_of(&[0, 1, 2, 3], 5, BLOCK);
    bad.signatures[2].1 = Signature::from_bytes([9; 64]);
    assert_eq!(check(&bad), Err(CommitError::Signature(5)));
    let mut round = commit_of(&[0, 1, 2], 5, BLOCK);
    round.round = 2;
    assert_eq!(check(&round), Err(CommitError::Signature(5)));
    let elsewhere = commit_of(&[0, 1, 2], 5, BLOCK).verify(&Hash::ZERO, 5, &BLOCK, &validators);
    assert_eq!(elsewhere, Err(CommitError::Signature(5)));
}

#[test]
fn power_counts_and_not_heads() {
    let validators = set(&[10, 1, 1, 1]);
    assert!(commit_of(&[0], 5, BLOCK).verify(&CHAIN, 5, &BLOCK, &validators).is_ok());
    assert!(commit_of(&[1, 2, 3], 5, BLOCK).verify(&CHAIN, 5, &BLOCK, &validators).is_err());
}

#[test]
fn the_commit_before_the_first_block_is_empty() {
    let validators = set(&[1]);
    assert_eq!(Commit::genesis(CHAIN).verify(&CHAIN, 0, &CHAIN, &validators), Ok(()));
    let signed = commit_of(&[0], 0, CHAIN);
    assert_eq!(signed.verify(&CHAIN, 0, &CHAIN, &validators), Err(CommitError::NotEmpty));
}

#[test]
fn prevotes_and_other_chains_do_not_commit() {
    let validators = set(&[1]);
    let message = sign_bytes::vote(&CHAIN, VoteKind::Prevote, 5, 1, Some(&BLOCK));
    let prevotes = Commit::new(5, 1, BLOCK, vec![(key(0).public(), key(0).sign(&message))]);
    assert_eq!(prevotes.verify(&CHAIN, 5, &BLOCK, &validators), Err(CommitError::Signature(5)));
}

#[test]
fn evidence_is_two_different_votes_for_one_step() {
    let validators = set(&[1, 1]);
    let vote = |round, block| SignedVote::sign(&CHAIN, VoteKind::Precommit, 5, round, block, &key(1));
    let evidence = Evidence::new(vote(0, Some(BLOCK)), vote(0, None)).unwrap();
    assert_eq!(evidence, Evidence::new(vote(0, None), vote(0, Some(BLOCK))).unwrap());
    assert_eq!(evidence.verify(&CHAIN, &validators), Ok(()));

    assert!(Evidence::new(vote(0, None), vote(0, None)).is_none());
    let rounds = Evidence::new(vote(0, None), vote(1, Some(BLOCK))).unwrap();
    assert_eq!(rounds.verify(&CHAIN, &validators), Err(EvidenceError::DifferentVotes));
    let swapped = Evidence { first: evidence.second.clone(), second: evidence.first.clone() };
    assert_eq!(swapped.verify(&CHAIN, &validators), Err(EvidenceError::SameBlock));
    let same = Evidence { first: vote(0, None), second: vote(0, None) };
    assert_eq!(same.verify(&CHAIN, &validators), Err(EvidenceError::SameBlock));
    let mut forged = evidence.clone();
    forged.second.signature = forged.first.signature;
    assert_eq!(forged.verify(&CHAIN, &validators), Err(EvidenceError::Signature(key(1).public())));
    let strangers = set(&[1]);
    assert_eq!(evidence.verify(&CHAIN, &strangers), Err(EvidenceError::UnknownValidator(key(1).public())));
    assert!(evidence.verify(&Hash::ZERO, &validators).is_err());
}

#[test]
fn no_two_signed_messages_share_their_bytes() {
    let mut seen = BTreeSet::new();
    let blocks = [None, Some(Hash::ZERO), Some(BLOCK)];
    let mut add = |bytes: Vec<u8>| assert!(seen.insert(bytes.clone()), "{bytes:?}");
    for chain in [CHAIN, Hash::ZERO] {
        for height in [0, 1, u64::MAX] {
            for round in [0, 1, u32::MAX] {
                for block in blocks {
                    add(sign_bytes::vote(&chain, VoteKind::Prevote, height, round, block.as_ref()));
                    add(sign_bytes::vote(&chain, VoteKind::Precommit, height, round, block.as_ref()));
                }
                for pol in [None, Some(0), Some(1)] {
                    add(sign_bytes::proposal(&chain, height, round, &BLOCK, pol));
                }
            }
        }
    }
    add(sign_bytes::transaction(&BLOCK).to_vec());
}

#[test]
fn a_header_commits_to_every_byte_of_the_body() {
    let transactions: Vec<_> =
        (0..3).map(|nonce| Arc::new(transfer(&key(1), nonce, 1, key(2).public(), 1))).collect();
    let vote = |block| SignedVote::sign(&CHAIN, VoteKind::Prevote, 1, 0, block, &key(1));
    let evidence = vec![Evidence::new(vote(None), vote(Some(BLOCK))).unwrap()];
    let last_commit = commit_of(&[0, 1], 1, BLOCK);
    let header = netsplit_core::Header {
        protocol_version: 1,
        chain_id: CHAIN,
        height: 2,
        parent: BLOCK,
        time_ms: 1,
        proposer: key(0).public(),
        tx_root: Block::tx_root(&transactions),
        state_root: Hash::ZERO,
        validators_hash: Hash::ZERO,
        next_validators_hash: Hash::ZERO,
        last_commit_hash: last_commit.hash(),
        evidence_root: Block::evidence_root(&evidence),
        seal: netsplit_core::Seal::Bft,
    };
    let block = Block { header, transactions, last_commit, evidence };
    block.check_body().unwrap();
    let changed = |change: &dyn Fn(&mut Block)| {
        let mut other = block.clone();
        change(&mut other);
        assert_eq!(other.id(), block.id());
        other.check_body().unwrap_err().field
    };
    let resign = |block: &mut Block| {
        Arc::make_mut(&mut block.transactions[1]).signature = Signature::from_bytes([1; 64]);
    };
    assert_eq!(changed(&resign), "transaction root");
    assert_eq!(changed(&|block| block.transactions.swap(0, 1)), "transaction root");
    assert_eq!(changed(&|block| block.transactions.truncate(2)), "transaction root");
    assert_eq!(changed(&|block| block.last_commit.signatures.truncate(1)), "last commit hash");
    assert_eq!(changed(&|block| block.last_commit.round = 9), "last commit hash");
    assert_eq!(changed(&|block| block.evidence.clear()), "evidence root");
}

#[test]
fn a_merkle_root_depends_on_each_leaf_its_place_and_their_number() {
    let leaves: Vec<Hash> = (0..17_u8).map(|number| merkle::leaf(&[&[number]])).collect();
    let mut roots = BTreeSet::from([merkle::root([])]);
    for count in 1..=leaves.len() {
        assert!(roots.insert(merkle::root(leaves[..count].iter().copied())), "{count} leaves");
        for index in 1..count {
            let mut swapped = leaves[..count].to_vec();
            swapped.swap(index - 1, index);
            assert!(roots.insert(merkle::root(swapped)), "{count} leaves, {index} swapped");
        }
        // The last leaf twice, the flaw of trees that pad.
        let mut padded = leaves[..count].to_vec();
        padded.push(leaves[count - 1]);
        assert!(roots.insert(merkle::root(padded)), "{count} leaves, padded");
    }
}
