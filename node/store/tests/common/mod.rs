//! A small chain for the tests: four validators, some accounts, blocks that are really signed and committed.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use netsplit_core::ledger::{GenesisParts, Limits};
use netsplit_core::sign_bytes::{self, VoteKind};
use netsplit_core::{
    Action, Block, Commit, Hash, Height, SecretKey, SignedTransaction, TransactionBody, Validator,
    ValidatorSet,
};
use netsplit_store::{Applied, Chain, CheckedBlock, Store};

pub const CHAIN: Hash = Hash::from_bytes([7; 32]);
pub const VALIDATORS: u64 = 4;
pub const GENESIS_MS: u64 = 1_000_000;
const FIRST_ACCOUNT: u64 = 1000;

pub fn key(number: u64) -> SecretKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(seed)
}

pub fn account(number: u64) -> SecretKey {
    key(FIRST_ACCOUNT + number)
}

pub fn genesis(accounts: u64) -> GenesisParts {
    let validators = (0..VALIDATORS).map(|number| Validator { address: key(number).public(), power: 1 });
    GenesisParts {
        chain_id: CHAIN,
        time_ms: GENESIS_MS,
        protocol_version: 1,
        limits: Limits { max_block_bytes: 2 << 20, max_block_transactions: 5000, max_time_ahead_ms: 10_000 },
        validators: ValidatorSet::new(validators.collect()).unwrap(),
        accounts: (0..accounts).map(|number| (account(number).public(), 1_000_000)).collect(),
    }
}

pub fn transfer(from: u64, nonce: u64, to: u64, amount: u64) -> Arc<SignedTransaction> {
    let action = Action::Transfer { to: account(to).public(), amount };
    let body = TransactionBody { chain_id: CHAIN, nonce, fee: 1, gas_limit: 0, action };
    Arc::new(SignedTransaction::sign(&body, &account(from)))
}

/// The precommits of three of the four validators.
pub fn commit_for(height: Height, block: Hash) -> Commit {
    let message = sign_bytes::vote(&CHAIN, VoteKind::Precommit, height, 0, Some(&block));
    let signatures = (0..3).map(|number| (key(number).public(), key(number).sign(&message)));
    Commit::new(height, 0, block, signatures.collect())
}

pub fn unknown(_: &Hash, _: &SignedTransaction) -> bool {
    false
}

/// The next block, 100 ms after the one before.
pub fn build<S: Store>(chain: &Chain<S>, transactions: Vec<Arc<SignedTransaction>>) -> Block {
    let head = chain.head();
    let proposer = key(head.height % VALIDATORS).public();
    chain.build(proposer, head.time_ms + 100, transactions, chain.last_commit().unwrap()).unwrap()
}

pub fn check<S: Store>(chain: &Chain<S>, block: &Block) -> CheckedBlock {
    chain.check(block, u64::MAX, &unknown).unwrap()
}

/// Builds, checks and commits.
pub fn advance<S: Store>(chain: &Chain<S>, transactions: Vec<Arc<SignedTransaction>>) -> Applied {
    let block = build(chain, transactions);
    let commit = commit_for(block.header.height, block.id());
    chain.commit(check(chain, &block), &commit).unwrap()
}
