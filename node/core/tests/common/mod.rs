//! Values and strategies shared by the tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use netsplit_core::sign_bytes::VoteKind;
use netsplit_core::{
    Action, Block, Commit, Evidence, Hash, Header, PublicKey, Seal, SecretKey, Signature, SignedTransaction,
    SignedVote, TransactionBody, Validator, ValidatorSet,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub const CHAIN: Hash = Hash::from_bytes([7; 32]);

pub fn key(number: u64) -> SecretKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(seed)
}

pub fn transfer(from: &SecretKey, nonce: u64, fee: u64, to: PublicKey, amount: u64) -> SignedTransaction {
    let action = Action::Transfer { to, amount };
    SignedTransaction::sign(&TransactionBody { chain_id: CHAIN, nonce, fee, gas_limit: 0, action }, from)
}

pub fn bytes32() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

pub fn hash() -> impl Strategy<Value = Hash> {
    bytes32().prop_map(Hash::from_bytes)
}

pub fn public_key() -> impl Strategy<Value = PublicKey> {
    bytes32().prop_map(PublicKey::ed25519)
}

pub fn signature() -> impl Strategy<Value = Signature> {
    (bytes32(), bytes32()).prop_map(|(r, s)| Signature::from_bytes([r, s].concat().try_into().unwrap()))
}

pub fn body() -> impl Strategy<Value = TransactionBody> {
    (hash(), any::<[u64; 4]>(), public_key()).prop_map(|(chain_id, [nonce, fee, gas_limit, amount], to)| {
        TransactionBody { chain_id, nonce, fee, gas_limit, action: Action::Transfer { to, amount } }
    })
}

pub fn transaction() -> impl Strategy<Value = SignedTransaction> {
    (vec(any::<u8>(), 0..200), public_key(), signature())
        .prop_map(|(body, signer, signature)| SignedTransaction { body: body.into(), signer, signature })
}

pub fn commit() -> impl Strategy<Value = Commit> {
    (any::<u64>(), any::<u32>(), hash(), vec((public_key(), signature()), 0..5))
        .prop_map(|(height, round, block, signatures)| Commit::new(height, round, block, signatures))
}

pub fn vote() -> impl Strategy<Value = SignedVote> {
    let kind = prop_oneof![Just(VoteKind::Prevote), Just(VoteKind::Precommit)];
    (kind, any::<u64>(), any::<u32>(), option::of(hash()), public_key(), signature()).prop_map(
        |(kind, height, round, block, validator, signature)| SignedVote {
            kind,
            height,
            round,
            block,
            validator,
            signature,
        },
    )
}

pub fn evidence() -> impl Strategy<Value = Evidence> {
    (vote(), vote()).prop_map(|(first, second)| Evidence { first, second })
}

pub fn header() -> impl Strategy<Value = Header> {
    let seal =
        prop_oneof![Just(Seal::Bft), any::<(u32, u64)>().prop_map(|(bits, nonce)| Seal::Pow { bits, nonce })];
    (any::<u32>(), any::<[u64; 2]>(), any::<[[u8; 32]; 8]>(), public_key(), seal).prop_map(
        |(protocol_version, [height, time_ms], hashes, proposer, seal)| {
            let [chain_id, parent, tx_root, state_root, validators, next, commit, evidence] =
                hashes.map(Hash::from_bytes);
            Header {
                protocol_version,
                chain_id,
                height,
                parent,
                time_ms,
                proposer,
                tx_root,
                state_root,
                validators_hash: validators,
                next_validators_hash: next,
                last_commit_hash: commit,
                evidence_root: evidence,
                seal,
            }
        },
    )
}

pub fn block() -> impl Strategy<Value = Block> {
    (header(), vec(transaction(), 0..4), commit(), vec(evidence(), 0..2)).prop_map(
        |(header, transactions, last_commit, evidence)| Block {
            header,
            transactions: transactions.into_iter().map(Arc::new).collect(),
            last_commit,
            evidence,
        },
    )
}

pub fn validator_set() -> impl Strategy<Value = ValidatorSet> {
    vec((public_key(), 1_u64..1 << 40), 1..6).prop_map(|validators| {
        let validators = validators.into_iter().map(|(address, power)| Validator { address, power });
        ValidatorSet::new(validators.collect()).unwrap()
    })
}
