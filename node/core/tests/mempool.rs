//! The mempool's limits and order, by cases and against a model.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{CHAIN, key, transfer};
use netsplit_core::ledger::Account;
use netsplit_core::mempool::{Mempool, MempoolLimits, Refusal};
use netsplit_core::{Address, Hash, PublicKey, Signature, SignedTransaction, TransactionBody};
use proptest::prelude::*;

const RICH: Account = Account { balance: 1_000_000, nonce: 0 };

fn limits() -> MempoolLimits {
    MempoolLimits {
        max_transactions: 20,
        max_bytes: 1 << 20,
        max_transactions_per_sender: 8,
        max_nonce_gap: 5,
        min_fee: 1,
        max_age_blocks: 10,
    }
}

fn pool(limits: MempoolLimits) -> Mempool {
    Mempool::new(CHAIN, limits)
}

fn pay(sender: u64, nonce: u64) -> Arc<SignedTransaction> {
    Arc::new(transfer(&key(sender), nonce, 1, key(99).public(), 1))
}

fn insert(pool: &mut Mempool, sender: u64, nonce: u64) -> Result<Hash, Refusal> {
    pool.insert(pay(sender, nonce), &RICH, 0)
}

/// Who has which turn: sender numbers with nonces.
fn turns(pool: &Mempool, count: usize) -> Vec<(u64, u64)> {
    let numbers: BTreeMap<PublicKey, u64> = (0..20).map(|number| (key(number).public(), number)).collect();
    let taken = pool.take(count, usize::MAX);
    taken.iter().map(|t| (numbers[&t.signer], t.decode_body().unwrap().nonce)).collect()
}

#[test]
fn senders_take_turns_in_the_order_they_came() {
    let mut pool = pool(limits());
    for (sender, nonce) in [(1, 0), (1, 1), (1, 2), (2, 0), (3, 1), (3, 0), (3, 2)] {
        insert(&mut pool, sender, nonce).unwrap();
    }
    assert_eq!(turns(&pool, 5), [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1)]);
    assert_eq!(turns(&pool, 99).len(), 7);
    // Who was served stands behind who was not.
    pool.remove_committed(1, &[pay(1, 0)]);
    assert_eq!(turns(&pool, 3), [(2, 0), (3, 0), (1, 1)]);
}

#[test]
fn a_gap_waits_until_it_is_filled() {
    let mut pool = pool(limits());
    insert(&mut pool, 1, 2).unwrap();
    assert_eq!(turns(&pool, 9), []);
    assert_eq!(pool.next_nonce(&key(1).public(), 0), 0);
    insert(&mut pool, 1, 0).unwrap();
    assert_eq!(turns(&pool, 9), [(1, 0)]);
    insert(&mut pool, 1, 1).unwrap();
    assert_eq!(turns(&pool, 9), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(pool.next_nonce(&key(1).public(), 0), 3);
    pool.remove(&pay(1, 1));
    assert_eq!(turns(&pool, 9), [(1, 0)]);
    // Applied elsewhere: what follows is ready again.
    pool.set_nonce(&key(1).public(), 2);
    assert_eq!(turns(&pool, 9), [(1, 2)]);
}

#[test]
fn each_refusal_has_its_reason() {
    let mut pool = pool(limits());
    insert(&mut pool, 1, 0).unwrap();
    let refused = |pool: &Mempool, transaction: SignedTransaction, account: Account| {
        pool.precheck(&transaction, &account).unwrap_err().to_string()
    };
    let to = key(99).public();
    let pay = |nonce, fee, amount| transfer(&key(1), nonce, fee, to, amount);
    assert_eq!(refused(&pool, pay(0, 1, 1), RICH), "transaction is already in the mempool");
    assert_eq!(
        refused(&pool, pay(0, 2, 1), RICH),
        "nonce 0 is used by another waiting transaction of this sender"
    );
    assert_eq!(
        refused(&pool, pay(2, 1, 1), Account { nonce: 3, ..RICH }),
        "nonce 2 was used already; the account's next nonce is 3"
    );
    assert_eq!(
        refused(&pool, pay(6, 1, 1), RICH),
        "nonce 6 is too far ahead; the account's next nonce is 0 and at most 5 more may wait"
    );
    assert_eq!(refused(&pool, pay(1, 0, 1), RICH), "fee 0 is below this node's minimum of 1");
    assert_eq!(
        refused(&pool, pay(1, 1, 8), Account { balance: 10, nonce: 0 }),
        "account holds 10, its waiting transactions and this one cost 11"
    );
    assert!(pool.precheck(&pay(1, 1, 7), &Account { balance: 10, nonce: 0 }).is_ok());
    let mut foreign = TransactionBody { chain_id: Hash::ZERO, ..pay(1, 1, 1).decode_body().unwrap() };
    let text = refused(&pool, SignedTransaction::sign(&foreign, &key(1)), RICH);
    assert!(text.starts_with("transaction is for chain 0000"), "{text}");
    foreign.chain_id = CHAIN;
    let mut trailing = SignedTransaction::sign(&foreign, &key(1));
    trailing.body = [&trailing.body[..], &[0]].concat().into();
    assert_eq!(refused(&pool, trailing.clone(), RICH), "transaction cannot be read");
    trailing.body = vec![0; 200_000].into();
    assert!(refused(&pool, trailing, RICH).starts_with("transaction has 200101 bytes"));
}

#[test]
fn limits_hold_and_full_says_so() {
    let mut pool = pool(MempoolLimits { max_nonce_gap: 100, ..limits() });
    for nonce in 0..8 {
        insert(&mut pool, 1, nonce).unwrap();
    }
    let refusal = insert(&mut pool, 1, 8).unwrap_err();
    assert!(matches!(refusal, Refusal::SenderFull(8)), "{refusal}");
    for sender in 2..14 {
        insert(&mut pool, sender, 0).unwrap();
    }
    let refusal = insert(&mut pool, 14, 0).unwrap_err();
    assert_eq!(refusal.to_string(), "mempool is full: 20 transactions; try again after the next block");
    pool.remove_committed(1, &[pay(1, 0)]);
    insert(&mut pool, 14, 0).unwrap();

    let size = pay(1, 0).encoded_len();
    let mut pool = Mempool::new(CHAIN, MempoolLimits { max_bytes: 2 * size, ..limits() });
    insert(&mut pool, 1, 0).unwrap();
    insert(&mut pool, 2, 0).unwrap();
    assert_eq!(pool.bytes(), 2 * size);
    assert!(matches!(insert(&mut pool, 3, 0), Err(Refusal::FullBytes(_))));
}

#[test]
fn a_signature_counts_as_verified_only_if_it_is_the_same() {
    let mut pool = pool(limits());
    let id = insert(&mut pool, 1, 0).unwrap();
    assert!(pool.contains(&id));
    assert!(pool.holds(&id, &pay(1, 0)));
    assert_eq!(pool.get(&id), Some(&pay(1, 0)));
    let forged = SignedTransaction { signature: Signature::from_bytes([0; 64]), ..(*pay(1, 0)).clone() };
    assert_eq!(forged.id(), id);
    assert!(!pool.holds(&id, &forged));
    assert_eq!(pool.get(&Hash::ZERO), None);
    assert!(!pool.holds(&Hash::ZERO, &pay(1, 0)));
}

#[test]
fn a_block_with_another_transaction_of_the_same_nonce_removes_ours() {
    let mut pool = pool(limits());
    let ours = insert(&mut pool, 1, 0).unwrap();
    insert(&mut pool, 1, 1).unwrap();
    pool.remove_committed(1, &[Arc::new(transfer(&key(1), 0, 5, key(98).public(), 2))]);
    assert!(!pool.contains(&ours));
    assert_eq!(turns(&pool, 9), [(1, 1)]);
}

#[test]
fn what_left_costs_no_balance_any_more() {
    let mut pool = pool(limits());
    // Each costs 2; the account pays for two.
    let account = |nonce| Account { balance: 4, nonce };
    for nonce in [0, 1] {
        pool.insert(pay(1, nonce), &account(0), 0).unwrap();
    }
    assert!(matches!(pool.insert(pay(1, 2), &account(0), 0), Err(Refusal::Balance { cost: 6, .. })));
    pool.remove_committed(1, &[pay(1, 0)]);
    pool.insert(pay(1, 2), &account(1), 1).unwrap();
    pool.remove(&pay(1, 2));
    pool.insert(pay(1, 3), &account(1), 1).unwrap();
}

#[test]
fn what_waits_too_long_is_dropped() {
    let mut pool = pool(limits());
    pool.insert(pay(1, 3), &RICH, 0).unwrap();
    pool.insert(pay(2, 0), &RICH, 1).unwrap();
    pool.remove_committed(10, &[]);
    assert_eq!(pool.len(), 2);
    pool.remove_committed(11, &[]);
    assert_eq!(pool.len(), 1);
    pool.remove_committed(12, &[]);
    assert!(pool.is_empty());
    assert_eq!(pool.bytes(), 0);
}

#[test]
fn a_large_transaction_does_not_hide_small_ones() {
    let mut pool = pool(limits());
    let large = SignedTransaction { body: pay(1, 0).body.clone(), ..(*pay(1, 0)).clone() };
    pool.insert(Arc::new(large), &RICH, 0).unwrap();
    insert(&mut pool, 2, 0).unwrap();
    let size = pay(1, 0).encoded_len();
    assert_eq!(pool.take(9, 2 * size).len(), 2);
    assert_eq!(pool.take(9, 2 * size - 1).len(), 1);
    assert_eq!(pool.take(9, size - 1).len(), 0);
    assert_eq!(pool.take(0, usize::MAX).len(), 0);
}

/// Slow machines and unoptimised builds included, a block's worth of work must not grow with the pool. The bound is 20 times what an
/// unoptimised build needs, and a fifth of what one pass over the pool for each transaction would.
#[test]
fn a_block_costs_the_same_from_a_full_pool() {
    let limits = MempoolLimits { max_transactions: 50_000, max_bytes: 64 << 20, ..MempoolLimits::default() };
    let mut pool = pool(limits);
    let template = pay(1, 0);
    // Signatures are not looked at, and 50,000 real ones would take the time of this test.
    for sender in 0..50_000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&sender.to_le_bytes());
        let transaction = SignedTransaction { signer: PublicKey::ed25519(bytes), ..(*template).clone() };
        pool.insert(Arc::new(transaction), &RICH, 0).unwrap();
    }
    let started = Instant::now();
    for height in 1..=10 {
        let taken = pool.take(1000, usize::MAX);
        assert_eq!(taken.len(), 1000);
        pool.remove_committed(height, &taken);
    }
    let took = started.elapsed();
    assert_eq!(pool.len(), 40_000);
    assert!(took < Duration::from_secs(2), "ten blocks of 1,000 took {took:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Insert { sender: u64, nonce: u64, fee: u64 },
    Commit { count: usize },
    CommitOther { sender: u64, nonce: u64 },
    Remove { sender: u64, nonce: u64 },
    SetNonce { sender: u64, nonce: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..5_u64, 0..12_u64, 1..3_u64).prop_map(|(sender, nonce, fee)| Step::Insert { sender, nonce, fee }),
        2 => (0..6_usize).prop_map(|count| Step::Commit { count }),
        1 => (0..5_u64, 0..12_u64).prop_map(|(sender, nonce)| Step::CommitOther { sender, nonce }),
        1 => (0..5_u64, 0..12_u64).prop_map(|(sender, nonce)| Step::Remove { sender, nonce }),
        1 => (0..5_u64, 0..12_u64).prop_map(|(sender, nonce)| Step::SetNonce { sender, nonce }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_pool_is_what_a_plain_map_would_be(steps in proptest::collection::vec(step(), 1..80)) {
        let limits = limits();
        let mut pool = pool(limits);
        // Accounts as decided, and what waits by sender and nonce.
        let mut nonces = BTreeMap::<u64, u64>::new();
        let mut model = BTreeMap::<(u64, u64), Arc<SignedTransaction>>::new();
        let addresses: BTreeMap<Address, u64> = (0..5).map(|number| (key(number).public(), number)).collect();
        for (step, height) in steps.into_iter().zip(1_u64..) {
            match step {
                Step::Insert { sender, nonce, fee } => {
                    let transaction = Arc::new(transfer(&key(sender), nonce, fee, key(99).public(), 1));
                    let account = Account { nonce: nonces.get(&sender).copied().unwrap_or(0), ..RICH };
                    let of_sender = model.keys().filter(|(other, _)| *other == sender).count();
                    let fits = nonce >= account.nonce
                        && nonce - account.nonce <= limits.max_nonce_gap
                        && !model.contains_key(&(sender, nonce))
                        && of_sender < limits.max_transactions_per_sender
                        && model.len() < limits.max_transactions;
                    // Kept young, so that nothing expires: that has its own test.
                    let result = pool.insert(Arc::clone(&transaction), &account, height);
                    prop_assert_eq!(result.is_ok(), fits, "{:?}", result);
                    if fits {
                        model.insert((sender, nonce), transaction);
                    }
                }
                Step::Commit { count } => {
                    let taken = pool.take(count, usize::MAX);
                    for transaction in &taken {
                        let nonce = transaction.decode_body().unwrap().nonce;
                        let expected = nonces.entry(addresses[&transaction.signer]).or_default();
                        prop_assert_eq!(nonce, *expected, "a transaction that cannot apply was taken");
                        *expected += 1;
                    }
                    pool.remove_committed(0, &taken);
                }
                Step::CommitOther { sender, nonce } => {
                    if nonces.get(&sender).copied().unwrap_or(0) == nonce {
                        nonces.insert(sender, nonce + 1);
                        pool.remove_committed(0, &[pay(sender, nonce)]);
                        // A sender with nothing waiting is not remembered; its account tells the nonce.
                        pool.set_nonce(&key(sender).public(), nonce + 1);
                    }
                }
                Step::Remove { sender, nonce } => {
                    if let Some(transaction) = model.remove(&(sender, nonce)) {
                        pool.remove(&transaction);
                    }
                }
                Step::SetNonce { sender, nonce } => {
                    let known = nonces.entry(sender).or_default();
                    *known = nonce.max(*known);
                    pool.set_nonce(&key(sender).public(), *known);
                }
            }
            model.retain(|(sender, nonce), _| *nonce >= nonces.get(sender).copied().unwrap_or(0));
            prop_assert_eq!(pool.len(), model.len());
            prop_assert_eq!(pool.bytes(), model.values().map(|t| t.encoded_len()).sum::<usize>());
            prop_assert!(model.values().all(|transaction| pool.contains(&transaction.id())));
            // Everything ready is taken once, in the order of nonces, and nothing else.
            let taken: Vec<(u64, u64)> = turns(&pool, usize::MAX);
            let mut ready = BTreeSet::new();
            for sender in 0..5 {
                let from = nonces.get(&sender).copied().unwrap_or(0);
                ready.extend((from..).take_while(|nonce| model.contains_key(&(sender, *nonce))).map(|nonce| (sender, nonce)));
            }
            prop_assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), ready);
            prop_assert_eq!(taken.len(), taken.iter().collect::<BTreeSet<_>>().len());
            for pair in taken.iter().enumerate().filter(|(_, turn)| turn.1 > 0) {
                let (position, (sender, nonce)) = pair;
                let before = taken[..position].contains(&(*sender, nonce - 1));
                prop_assert!(before || nonces.get(sender).copied().unwrap_or(0) == *nonce);
            }
        }
    }
}
