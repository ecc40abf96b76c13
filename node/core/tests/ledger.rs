//! The rules of transfers: supply is conserved, a transaction applies wholly or not at all, overlays stack.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::CHAIN;
use netsplit_core::ledger::{
    Account, BlockContext, Diff, EmptyState, ExecuteError, GenesisError, GenesisParts, Limits, Overlay,
    StateError, StateView, TransactionError, execute_transaction, read_account,
};
use netsplit_core::{Action, Address, Hash, TransactionBody, Validator, ValidatorSet};
use proptest::prelude::*;

/// Accounts 0 to 4 exist, 5 does not; 0 is the proposer.
const BALANCES: [u64; 5] = [100, 1000, 7, 0, 1 << 40];

/// Nothing is signed here, so any bytes are an address.
fn address(number: u64) -> Address {
    Address::ed25519([number as u8; 32])
}

fn genesis(accounts: &[(Address, u64)]) -> GenesisParts {
    let validators = vec![Validator { address: address(0), power: 1 }];
    GenesisParts {
        chain_id: CHAIN,
        time_ms: 0,
        protocol_version: 1,
        limits: Limits { max_block_bytes: 1 << 20, max_block_transactions: 10, max_time_ahead_ms: 1 },
        validators: ValidatorSet::new(validators).unwrap(),
        accounts: accounts.to_vec(),
    }
}

fn start() -> Diff {
    let accounts: Vec<_> =
        BALANCES.iter().zip(0..).map(|(balance, number)| (address(number), *balance)).collect();
    genesis(&accounts).state().unwrap()
}

fn context(proposer: u64) -> BlockContext {
    BlockContext { chain_id: CHAIN, height: 1, time_ms: 1, proposer: address(proposer) }
}

fn body(nonce: u64, fee: u64, to: u64, amount: u64) -> TransactionBody {
    let action = Action::Transfer { to: address(to), amount };
    TransactionBody { chain_id: CHAIN, nonce, fee, gas_limit: 0, action }
}

fn supply(view: &impl StateView) -> u128 {
    (0..10).map(|number| u128::from(read_account(view, &address(number)).unwrap().balance)).sum()
}

fn run<V: StateView>(
    state: &mut Overlay<V>,
    proposer: u64,
    signer: u64,
    body: &TransactionBody,
) -> Result<(), TransactionError> {
    match execute_transaction(state, &context(proposer), &address(signer), body) {
        Ok(()) => Ok(()),
        Err(ExecuteError::Transaction(error)) => Err(error),
        Err(ExecuteError::State(error)) => panic!("{error}"),
    }
}

#[test]
fn signer_receiver_and_proposer_may_be_one() {
    // (signer, receiver, proposer) to the balances of 0, 1 and 2 after 1 paid 10 and a fee of 3.
    let cases = [
        ((1, 2, 0), [103, 987, 17]),
        ((1, 1, 0), [103, 997, 7]),
        ((1, 2, 1), [100, 990, 17]),
        ((1, 2, 2), [100, 987, 20]),
        ((1, 1, 1), [100, 1000, 7]),
    ];
    for ((signer, receiver, proposer), expected) in cases {
        let mut state = Overlay::with_diff(EmptyState, start());
        run(&mut state, proposer, signer, &body(0, 3, receiver, 10)).unwrap();
        let balances = [0, 1, 2].map(|number| read_account(&state, &address(number)).unwrap().balance);
        assert_eq!(balances, expected, "{signer} to {receiver}, proposed by {proposer}");
        assert_eq!(read_account(&state, &address(1)).unwrap().nonce, 1);
    }
}

#[test]
fn what_does_not_apply_changes_nothing() {
    let mut state = Overlay::with_diff(EmptyState, start());
    let before = state.diff().clone();
    let other_chain = TransactionBody { chain_id: Hash::ZERO, ..body(0, 1, 2, 1) };
    let cases = [
        (1, other_chain, TransactionError::Chain { expected: CHAIN, actual: Hash::ZERO }),
        (1, body(1, 1, 2, 1), TransactionError::Nonce { expected: 0, actual: 1 }),
        (1, body(0, 1, 2, 1000), TransactionError::Balance { cost: 1001, balance: 1000 }),
        (
            1,
            body(0, u64::MAX, 2, u64::MAX),
            TransactionError::Balance { cost: 2 * u128::from(u64::MAX), balance: 1000 },
        ),
        (5, body(0, 0, 2, 1), TransactionError::Balance { cost: 1, balance: 0 }),
    ];
    for (signer, body, expected) in cases {
        assert_eq!(run(&mut state, 0, signer, &body), Err(expected));
        assert_eq!(state.diff(), &before);
    }
    // To the last unit, and then the nonce is used up.
    run(&mut state, 0, 1, &body(0, 1, 2, 999)).unwrap();
    assert_eq!(
        run(&mut state, 0, 1, &body(0, 0, 2, 0)),
        Err(TransactionError::Nonce { expected: 1, actual: 0 })
    );
}

#[test]
fn an_overflow_in_the_last_step_undoes_the_first() {
    // Cannot come from a genesis, whose supply is bounded; the ledger holds without that too.
    let rich = Account { balance: u64::MAX, nonce: 0 };
    let mut diff = start();
    diff.set(netsplit_core::ledger::account_key(&address(0)), Some(netsplit_core::encode(&rich)));
    let mut state = Overlay::with_diff(EmptyState, diff.clone());
    assert_eq!(run(&mut state, 0, 1, &body(0, 1, 2, 10)), Err(TransactionError::Overflow(address(0))));
    assert_eq!(state.diff(), &diff);
}

#[test]
fn a_free_transaction_leaves_no_account_of_its_proposer() {
    let mut state = Overlay::with_diff(EmptyState, start());
    let accounts = state.diff().len();
    run(&mut state, 9, 1, &body(0, 0, 8, 0)).unwrap();
    assert_eq!(state.diff().len(), accounts);
    run(&mut state, 9, 1, &body(1, 1, 8, 1)).unwrap();
    assert_eq!(state.diff().len(), accounts + 2);
}

#[test]
fn a_genesis_supply_fits_64_bits_and_accounts_are_distinct() {
    assert!(genesis(&[(address(1), u64::MAX), (address(2), 0)]).state().is_ok());
    assert_eq!(genesis(&[(address(1), u64::MAX), (address(2), 1)]).state(), Err(GenesisError::Supply));
    assert_eq!(
        genesis(&[(address(1), 1), (address(2), 1), (address(1), 2)]).state(),
        Err(GenesisError::DuplicateAccount(address(1)))
    );
}

/// Fails on every read.
struct Broken;

impl StateView for Broken {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Err(StateError::new("broken"))
    }
}

#[test]
fn a_state_that_cannot_be_read_is_not_the_transactions_fault() {
    let mut state = Overlay::new(Broken);
    let result = execute_transaction(&mut state, &context(0), &address(1), &body(0, 1, 2, 1));
    assert!(matches!(result, Err(ExecuteError::State(_))));
}

/// Signer, nonce (as a difference to the right one), fee, receiver, amount, proposer.
fn random_transfer() -> impl Strategy<Value = (u64, u64, u64, u64, u64, u64)> {
    let amount = prop_oneof![0..50_u64, any::<u64>(), Just(u64::MAX)];
    let fee = prop_oneof![0..5_u64, Just(u64::MAX)];
    (0..7_u64, prop_oneof![9 => Just(0_u64), 1 => 0..3_u64], fee, 0..7_u64, amount, 0..7_u64)
}

proptest! {
    #[test]
    fn supply_is_conserved_and_nonces_count(transfers in proptest::collection::vec(random_transfer(), 1..60)) {
        let base = Overlay::with_diff(EmptyState, start());
        let total = supply(&base);
        let mut state = Overlay::new(&base);
        let mut applied = BTreeMap::<u64, u64>::new();
        for (signer, nonce, fee, to, amount, proposer) in transfers {
            let before = state.diff().clone();
            let next = applied.get(&signer).copied().unwrap_or(0);
            if run(&mut state, proposer, signer, &body(next + nonce, fee, to, amount)).is_ok() {
                prop_assert_eq!(nonce, 0);
                *applied.entry(signer).or_default() += 1;
            } else {
                prop_assert_eq!(state.diff(), &before);
            }
            prop_assert_eq!(supply(&state), total);
        }
        for number in 0..7 {
            let nonce = read_account(&state, &address(number)).unwrap().nonce;
            prop_assert_eq!(nonce, applied.get(&number).copied().unwrap_or(0));
        }
    }

    #[test]
    fn a_stack_of_overlays_is_their_merged_diff(
        layers in proptest::collection::vec(
            proptest::collection::btree_map(0..12_u8, proptest::option::of(any::<u8>()), 0..8),
            1..4,
        )
    ) {
        let diffs: Vec<Diff> = layers
            .iter()
            .map(|layer| {
                let mut diff = Diff::default();
                for (key, value) in layer {
                    diff.set(vec![*key], value.map(|value| Bytes::copy_from_slice(&[value])));
                }
                diff
            })
            .collect();
        let mut merged = Diff::default();
        let mut stack: Box<dyn StateView> = Box::new(EmptyState);
        for diff in diffs {
            merged.merge(diff.clone());
            stack = Box::new(Layer(stack, diff));
        }
        let merged = Overlay::with_diff(EmptyState, merged);
        for key in 0..12_u8 {
            prop_assert_eq!(stack.get(&[key]).unwrap(), merged.get(&[key]).unwrap());
        }
    }
}

struct Layer(Box<dyn StateView>, Diff);

impl StateView for Layer {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Overlay::with_diff(&*self.0, self.1.clone()).get(key)
    }
}
