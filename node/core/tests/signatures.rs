//! The rule for signatures is ZIP-215, one by one and in batches alike. The vectors freeze it: a library that decides otherwise would
//! split the chain.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::num::NonZeroUsize;

use common::{key, transfer};
use netsplit_core::verify::{Check, all_valid, verify_batch_threaded, verify_one};
use netsplit_core::{PublicKey, Signature, SignedTransaction, verify_batch};
use proptest::prelude::*;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let read = |index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap();
    assert_eq!(hex.len(), 2 * N);
    std::array::from_fn(read)
}

/// Every encoding of a point of small order: eight canonical ones, six that are not.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

const MESSAGE: &[u8] = b"netsplit";
const HONEST_KEY: &str = "88aa55e6afeed8960a3191de78600347db8acd0a3795412f275f049b86260488";

/// What is it, key, signature of [`MESSAGE`], whether it is valid.
const VECTORS: [(&str, &str, &str, bool); 4] = [
    (
        "honest",
        HONEST_KEY,
        "d41bb1ea0f7a20c97036afcfb7df29e1a14ce9d49bf15dec5c4e69fc1a3b2f3eb69f9d6b6d03827238f644b2ca678888cf981ed84d568d53c4a67c96a806e80b",
        true,
    ),
    (
        "key of mixed order",
        "99555efe5dbf5b50b6fb4d8c38ee05c4ea8a97011c08e11366e8c8c00e8ce5d5",
        "d41bb1ea0f7a20c97036afcfb7df29e1a14ce9d49bf15dec5c4e69fc1a3b2f3ef5d54370e9199aec18cbb7c33b1e8d6d4ee7e4d9f29a65cb3a30084f028a9903",
        true,
    ),
    (
        "R of mixed order",
        HONEST_KEY,
        "7600c65fcb782cc7589b3c1a07cb9d338d39a833e68fc3b0ada14d1072306ec4e64ce32b6905f7fa4e9a58ab7aaf231bdf3dcb95e5929bcdedb5d545194b0602",
        true,
    ),
    (
        "s above the group's order",
        HONEST_KEY,
        "d41bb1ea0f7a20c97036afcfb7df29e1a14ce9d49bf15dec5c4e69fc1a3b2f3ea37393c8876694ca0e933c55a961679dcf981ed84d568d53c4a67c96a806e81b",
        false,
    ),
];

/// Single and in a batch with honest signatures.
fn valid_both_ways(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let single = verify_one(key, message, signature);
    let honest: Vec<(PublicKey, Signature)> =
        (0..7).map(|number| (common::key(number).public(), common::key(number).sign(MESSAGE))).collect();
    let mut checks: Vec<Check<'_>> =
        honest.iter().map(|(key, signature)| Check { key, message: MESSAGE, signature }).collect();
    assert!(all_valid(&checks));
    checks.insert(3, Check { key, message, signature });
    assert_eq!(
        all_valid(&checks),
        single,
        "a batch disagrees with a single check about {signature} of {key}"
    );
    single
}

#[test]
fn odd_signatures_are_judged_by_zip_215() {
    for (what, key, signature, valid) in VECTORS {
        let (key, signature) = (PublicKey::ed25519(bytes(key)), Signature::from_bytes(bytes(signature)));
        assert_eq!(valid_both_ways(&key, MESSAGE, &signature), valid, "{what}");
        assert!(!valid_both_ways(&key, b"another message", &signature), "{what}, another message");
    }
}

#[test]
fn points_of_small_order_are_accepted_in_every_encoding() {
    for key in SMALL_ORDER {
        for r in SMALL_ORDER {
            let signature: [u8; 64] = [bytes::<32>(r), [0; 32]].concat().try_into().unwrap();
            let (key, signature) = (PublicKey::ed25519(bytes(key)), Signature::from_bytes(signature));
            assert!(valid_both_ways(&key, MESSAGE, &signature), "R {r} of key {key:?}");
        }
    }
}

#[test]
fn a_key_that_is_no_point_never_verifies() {
    // y = 2 has no x on the curve.
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let honest = key(1).sign(MESSAGE);
    assert!(!valid_both_ways(&PublicKey::ed25519(no_point), MESSAGE, &honest));
}

/// `count` transactions of which those in `bad` are damaged, in body, signature or signer.
fn transactions(count: usize, bad: &[usize]) -> Vec<SignedTransaction> {
    let mut transactions: Vec<SignedTransaction> = (0..count)
        .map(|index| transfer(&key(index as u64 % 40), index as u64, 1, key(99).public(), 1))
        .collect();
    for (turn, index) in bad.iter().enumerate() {
        let transaction = &mut transactions[*index];
        match turn % 3 {
            0 => transaction.signer = key(1000).public(),
            1 => transaction.signature = Signature::from_bytes([0xff; 64]),
            _ => transaction.body = transactions_body(),
        }
    }
    transactions
}

fn transactions_body() -> bytes::Bytes {
    bytes::Bytes::from_static(b"not what was signed")
}

#[test]
fn a_batch_finds_exactly_the_bad_ones() {
    for (count, bad) in [
        (0, vec![]),
        (1, vec![]),
        (1, vec![0]),
        (3, vec![1]),
        (4, vec![3]),
        (33, vec![32]),
        (600, vec![]),
        (600, vec![0, 31, 32, 511, 512, 599]),
        (64, (0..64).collect()),
    ] {
        let transactions = transactions(count, &bad);
        let items: Vec<&SignedTransaction> = transactions.iter().collect();
        let expected: Vec<bool> = (0..count).map(|index| !bad.contains(&index)).collect();
        assert_eq!(verify_batch(&items), expected, "{count} with bad {bad:?}");
        for threads in [1, 2, 3, 7] {
            let threads = NonZeroUsize::new(threads).unwrap();
            assert_eq!(verify_batch_threaded(&items, threads), expected, "{count} on {threads} threads");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn batch_and_single_agree(count in 1..150_usize, bad in proptest::collection::btree_set(0..150_usize, 0..4)) {
        let bad: Vec<usize> = bad.into_iter().filter(|index| *index < count).collect();
        let transactions = transactions(count, &bad);
        let items: Vec<&SignedTransaction> = transactions.iter().collect();
        let singles: Vec<bool> = transactions.iter().map(SignedTransaction::verify).collect();
        prop_assert_eq!(verify_batch(&items), singles);
    }
}
