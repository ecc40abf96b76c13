//! Every encoding: what was written is read again, and bytes that are read are the only ones for their value.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::fmt::Debug;

use borsh::{BorshDeserialize, BorshSerialize};
use common::*;
use netsplit_core::{
    Block, Commit, DecodeError, Domain, Hash, MAX_TRANSACTION_BYTES, PublicKey, SecretKey, Signature,
    SignedTransaction, TransactionBody, Validator, ValidatorSet, decode, encode,
};
use proptest::prelude::*;

/// Round trip, a trailing byte, a missing byte, and one flipped bit anywhere.
fn strict<T>(value: &T, position: usize, bit: u8) -> Result<(), TestCaseError>
where
    T: BorshSerialize + BorshDeserialize + PartialEq + Debug,
{
    let read = |bytes: &[u8]| -> Result<T, DecodeError> { decode("value", bytes) };
    let bytes = encode(value).to_vec();
    prop_assert_eq!(&read(&bytes).unwrap(), value);
    let mut longer = bytes.clone();
    longer.push(0);
    prop_assert!(read(&longer).is_err());
    prop_assert!(read(&bytes[..bytes.len() - 1]).is_err());
    let mut flipped = bytes.clone();
    let position = position % bytes.len();
    flipped[position] ^= 1 << bit;
    if let Ok(other) = read(&flipped) {
        prop_assert_ne!(&other, value);
        prop_assert_eq!(encode(&other).to_vec(), flipped, "a value has a second encoding");
    }
    Ok(())
}

macro_rules! strict_encodings {
    ($($name:ident: $strategy:expr;)*) => {
        proptest! {
            $(#[test]
            fn $name(value in $strategy, position: usize, bit in 0..8_u8) {
                strict(&value, position, bit)?;
            })*
        }
    };
}

strict_encodings! {
    a_public_key_is_strict: public_key();
    a_transaction_body_is_strict: body();
    a_transaction_is_strict: transaction();
    a_commit_is_strict: commit();
    a_vote_is_strict: vote();
    evidence_is_strict: evidence();
    a_header_is_strict: header();
    a_block_is_strict: block();
    a_validator_set_is_strict: validator_set();
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_have_a_twin(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(block) = Block::from_bytes(&bytes) {
            prop_assert_eq!(block.to_bytes().to_vec(), bytes.clone());
        }
        if let Ok(transaction) = SignedTransaction::from_bytes(&bytes) {
            prop_assert_eq!(transaction.to_bytes().to_vec(), bytes.clone());
        }
        if let Ok(commit) = Commit::from_bytes(&bytes) {
            prop_assert_eq!(commit.to_bytes().to_vec(), bytes.clone());
        }
        if let Ok(body) = decode::<TransactionBody>("body", &bytes) {
            prop_assert_eq!(encode(&body).to_vec(), bytes);
        }
    }

    #[test]
    fn the_length_of_a_transaction_is_known_without_encoding_it(transaction in transaction()) {
        prop_assert_eq!(transaction.encoded_len(), transaction.to_bytes().len());
    }

    #[test]
    fn texts_of_hashes_and_keys_are_read_again(hash in hash(), key in public_key(), position: usize) {
        prop_assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
        let text = key.to_string();
        prop_assert!(text.starts_with("ns1"), "{}", text);
        prop_assert_eq!(text.parse::<PublicKey>().unwrap(), key);
        prop_assert_eq!(serde_json::from_str::<PublicKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
        // One wrong character is always noticed.
        let mut wrong = text.clone().into_bytes();
        let position = position % wrong.len();
        wrong[position] = if wrong[position] == b'q' { b'p' } else { b'q' };
        prop_assert!(String::from_utf8(wrong).unwrap().parse::<PublicKey>().is_err());
        prop_assert!(text.to_uppercase().parse::<PublicKey>().is_err());
    }
}

#[test]
fn a_claimed_length_reserves_no_memory() {
    let header = encode(&block_of_zeros().header);
    // 4 billion transactions are claimed, and none follows.
    let bytes = [&header[..], &u32::MAX.to_le_bytes()].concat();
    assert!(Block::from_bytes(&bytes).is_err());
    let body = [&u32::MAX.to_le_bytes()[..], &[0; 10]].concat();
    assert!(SignedTransaction::from_bytes(&body).is_err());
}

#[test]
fn a_transaction_above_the_limit_is_not_read() {
    let sized = |len: usize| {
        let body = vec![0; len].into();
        SignedTransaction { body, signer: key(1).public(), signature: Signature::from_bytes([0; 64]) }
    };
    let overhead = sized(0).encoded_len();
    let largest = sized(MAX_TRANSACTION_BYTES - overhead);
    assert_eq!(SignedTransaction::from_bytes(&largest.to_bytes()).unwrap(), largest);
    let larger = sized(MAX_TRANSACTION_BYTES - overhead + 1);
    assert!(SignedTransaction::from_bytes(&larger.to_bytes()).is_err());
}

#[test]
fn a_key_of_an_unknown_type_is_refused() {
    let mut bytes = key(1).public().to_bytes();
    assert_eq!(bytes[0], 1);
    for unknown in [0, 2, 255] {
        bytes[0] = unknown;
        assert!(PublicKey::from_bytes(&bytes).is_none());
        assert!(decode::<PublicKey>("key", &bytes).is_err());
    }
}

#[test]
fn an_unsorted_validator_set_is_refused() {
    let mut validators: Vec<Validator> =
        (1..4).map(|number| Validator { address: key(number).public(), power: number }).collect();
    validators.sort_by_key(|validator| validator.address);
    assert!(decode::<ValidatorSet>("set", &encode(&validators)).is_ok());
    validators.swap(0, 2);
    assert!(decode::<ValidatorSet>("set", &encode(&validators)).is_err());
    let nobody: Vec<Validator> = Vec::new();
    assert!(decode::<ValidatorSet>("set", &encode(&nobody)).is_err());
}

#[test]
fn a_secret_key_file_is_read_again_and_never_shown() {
    let secret = key(5);
    let text = secret.to_file_text();
    assert_eq!(SecretKey::from_file_text(&text).unwrap().public(), secret.public());
    assert!(!format!("{secret:?}").contains(&text[2..20]));
    for wrong in ["", "01", &text[2..], &text.replacen("01", "02", 1), &text.replace(char::is_numeric, "x")] {
        let error = SecretKey::from_file_text(wrong).unwrap_err().to_string();
        assert!(!error.contains(&text[2..20]), "{error}");
    }
}

/// Formats on disk and on the wire: a change here is a hard fork, and needs a new protocol version.
#[test]
fn formats_are_frozen() {
    let transaction = transfer(&key(1), 3, 2, key(2).public(), 1000);
    let bytes = Hash::of(Domain::Seed, &transaction.to_bytes());
    let frozen = [
        (
            "address",
            key(1).public().to_string(),
            "ns1q88vc9g8mswa6u54j5wzjzyg7z26mwgyf5dh845kum0svhtg8020c8k5q5n",
        ),
        (
            "transaction id",
            transaction.id().to_string(),
            "2a50ea147789ed8f0ed20cfd9586c7821f8f058cd555c865b88cd71108fcc686",
        ),
        (
            "transaction bytes",
            bytes.to_string(),
            "f01f0d85974777aeef21bd0bb0df583ed9294682fc4ba387486a743ebfc2cbff",
        ),
        (
            "block id",
            block_of_zeros().id().to_string(),
            "799dac4128dfe68ceae422d4a243bf9c344bb8d6aea23523996fc7ce24418170",
        ),
    ];
    for (what, now, frozen) in frozen {
        assert_eq!(now, frozen, "{what}");
    }
}

fn block_of_zeros() -> Block {
    Block {
        header: netsplit_core::Header {
            protocol_version: 1,
            chain_id: CHAIN,
            height: 1,
            parent: CHAIN,
            time_ms: 1,
            proposer: key(1).public(),
            tx_root: Hash::ZERO,
            state_root: Hash::ZERO,
            validators_hash: Hash::ZERO,
            next_validators_hash: Hash::ZERO,
            last_commit_hash: Hash::ZERO,
            evidence_root: Hash::ZERO,
            seal: netsplit_core::Seal::Bft,
        },
        transactions: Vec::new(),
        last_commit: Commit::genesis(CHAIN),
        evidence: Vec::new(),
    }
}
