//! Building, checking and committing blocks over a store in memory.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use netsplit_core::ledger::TransactionError;
use netsplit_core::sign_bytes::VoteKind;
use netsplit_core::{
    Block, BodyMismatch, Commit, CommitError, Evidence, EvidenceError, Hash, Seal, Signature,
    SignedTransaction, SignedVote,
};
use netsplit_store::{
    Batch, Chain, CheckError, Column, InvalidBlock, MemoryStore, Refused, Store, StoreError,
};

fn chain() -> Chain<MemoryStore> {
    Chain::open(MemoryStore::new(), &genesis(10)).unwrap()
}

#[test]
fn transfers_move_money_and_are_found_again() {
    let chain = chain();
    let first = transfer(0, 0, 1, 500);
    let applied = advance(&chain, vec![Arc::clone(&first), transfer(0, 1, 2, 100), transfer(1, 0, 0, 7)]);
    assert_eq!((chain.height(), applied.head), (1, chain.head()));
    assert_eq!(applied.transactions.len(), 3);
    let balance = |number| chain.account(&account(number).public()).unwrap().balance;
    assert_eq!(balance(0), 1_000_000 - 500 - 1 - 100 - 1 + 7);
    assert_eq!(balance(1), 1_000_000 + 500 - 7 - 1);
    // The proposer of block 1 is the validator with number 0.
    assert_eq!(chain.account(&key(0).public()).unwrap().balance, 3);
    assert_eq!(chain.account(&account(0).public()).unwrap().nonce, 2);
    assert_eq!(chain.transaction(&first.id()).unwrap(), Some((1, 0)));
    assert_eq!(chain.transaction(&Hash::ZERO).unwrap(), None);
    let (bytes, commit) = chain.block(1).unwrap().unwrap();
    let block = Block::from_bytes(&bytes).unwrap();
    assert_eq!((block.id(), commit.block), (chain.head().id, chain.head().id));
    assert_eq!(chain.header(1).unwrap().unwrap(), block.header);
    assert_eq!(chain.block(2).unwrap(), None);
    assert_eq!(chain.block(0).unwrap(), None);
}

#[test]
fn a_header_carries_the_state_after_the_block_before() {
    let chain = chain();
    let at_genesis = chain.head().state_root;
    advance(&chain, vec![transfer(0, 0, 1, 500)]);
    let after_one = chain.head().state_root;
    assert_ne!(at_genesis, after_one);
    advance(&chain, Vec::new());
    assert_eq!(chain.head().state_root, after_one, "an empty block changes nothing");
    assert_eq!(chain.header(1).unwrap().unwrap().state_root, at_genesis);
    assert_eq!(chain.header(2).unwrap().unwrap().state_root, after_one);
    let other = Chain::open(MemoryStore::new(), &genesis(11)).unwrap();
    assert_ne!(other.head().state_root, at_genesis);
}

#[test]
fn build_leaves_out_what_does_not_apply() {
    let chain = chain();
    let (good, gap, poor) = (transfer(0, 0, 1, 1), transfer(0, 2, 1, 1), transfer(1, 0, 0, 1_000_001));
    let mut refused = Vec::new();
    let block = chain
        .build_reporting(
            key(0).public(),
            GENESIS_MS + 1,
            vec![Arc::clone(&gap), Arc::clone(&good), Arc::clone(&poor)],
            Commit::genesis(CHAIN),
            &mut |transaction, reason| refused.push((transaction.id(), reason)),
        )
        .unwrap();
    assert_eq!(block.transactions, [good]);
    assert_eq!(refused.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [gap.id(), poor.id()]);
    assert!(matches!(refused[0].1, Refused::DoesNotApply(TransactionError::Nonce { .. })));
    assert!(matches!(refused[1].1, Refused::DoesNotApply(TransactionError::Balance { .. })));
    check(&chain, &block);
}

#[test]
fn build_keeps_the_limits_and_its_time_rises() {
    let mut small = genesis(10);
    small.limits.max_block_transactions = 3;
    let chain = Chain::open(MemoryStore::new(), &small).unwrap();
    let five = || (0..5).map(|nonce| transfer(0, nonce, 1, 1)).collect::<Vec<_>>();
    let block = build(&chain, five());
    assert_eq!(block.transactions.len(), 3);
    check(&chain, &block);

    // Room for exactly two transactions.
    small.limits.max_block_transactions = 100;
    small.limits.max_block_bytes = build(&chain, five()[..2].to_vec()).to_bytes().len();
    let chain = Chain::open(MemoryStore::new(), &small).unwrap();
    let block = build(&chain, five());
    assert_eq!(block.to_bytes().len(), small.limits.max_block_bytes);
    check(&chain, &block);
    small.limits.max_block_bytes -= 1;
    let chain = Chain::open(MemoryStore::new(), &small).unwrap();
    assert_eq!(build(&chain, five()).transactions.len(), 1);
    let error = chain.check(&block, u64::MAX, &unknown).unwrap_err();
    assert!(matches!(error, CheckError::Invalid(InvalidBlock::TooLarge { what: "bytes", .. })), "{error:?}");

    // The proposer's clock stands behind the parent.
    let late = chain.build(key(0).public(), 5, Vec::new(), Commit::genesis(CHAIN)).unwrap();
    assert_eq!(late.header.time_ms, GENESIS_MS + 1);
}

/// Why `change` makes a valid second block invalid. The roots are set right again, so that the rule itself must object.
fn rejected(change: impl FnOnce(&mut Block)) -> InvalidBlock {
    let chain = chain();
    advance(&chain, vec![transfer(0, 0, 1, 5)]);
    let mut block = build(&chain, vec![transfer(0, 1, 1, 5), transfer(2, 0, 1, 5), transfer(3, 0, 1, 5)]);
    check(&chain, &block);
    change(&mut block);
    block.header.tx_root = Block::tx_root(&block.transactions);
    block.header.last_commit_hash = block.last_commit.hash();
    block.header.evidence_root = Block::evidence_root(&block.evidence);
    let now = chain.head().time_ms + 100;
    match chain.check(&block, now, &unknown) {
        Err(CheckError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn field_of(change: impl FnOnce(&mut Block)) -> &'static str {
    match rejected(change) {
        InvalidBlock::Field { field, .. } => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_rule_of_the_header_is_checked() {
    assert_eq!(field_of(|block| block.header.protocol_version = 2), "protocol version");
    assert_eq!(field_of(|block| block.header.chain_id = Hash::ZERO), "chain id");
    assert_eq!(field_of(|block| block.header.parent = Hash::ZERO), "parent");
    assert_eq!(field_of(|block| block.header.state_root = Hash::ZERO), "state root");
    assert_eq!(field_of(|block| block.header.validators_hash = Hash::ZERO), "validators hash");
    assert_eq!(field_of(|block| block.header.next_validators_hash = Hash::ZERO), "next validators hash");
    assert_eq!(field_of(|block| block.header.seal = Seal::Pow { bits: 0, nonce: 0 }), "seal");
    assert_eq!(field_of(|block| block.header.proposer = account(0).public()), "proposer");
    for height in [1, 3] {
        let reason = rejected(|block| block.header.height = height);
        assert!(matches!(reason, InvalidBlock::Height { expected: 2, .. }), "{reason:?}");
    }
}

#[test]
fn a_blocks_time_is_after_its_parents_and_near_the_clock() {
    let reason = rejected(|block| block.header.time_ms -= 100);
    assert!(matches!(reason, InvalidBlock::TimeNotAfterParent { .. }), "{reason:?}");
    let reason = rejected(|block| block.header.time_ms += 10_001);
    assert!(matches!(reason, InvalidBlock::TimeAhead { .. }), "{reason:?}");
    let chain = chain();
    let mut block = build(&chain, Vec::new());
    block.header.time_ms = GENESIS_MS + 10_000;
    assert!(chain.check(&block, GENESIS_MS, &unknown).is_ok());
    assert!(chain.check(&block, GENESIS_MS - 1, &unknown).is_err());
    assert!(chain.check(&block, u64::MAX, &unknown).is_ok());
}

#[test]
fn each_rule_of_the_body_is_checked() {
    let chain = chain();
    let mut block = build(&chain, vec![transfer(0, 0, 1, 5)]);
    block.transactions.clear();
    let error = chain.check(&block, u64::MAX, &unknown).unwrap_err();
    let body = matches!(
        error,
        CheckError::Invalid(InvalidBlock::Body(BodyMismatch { field: "transaction root", .. }))
    );
    assert!(body, "{error:?}");

    let reason = rejected(|block| block.last_commit.signatures.truncate(2));
    assert!(matches!(reason, InvalidBlock::LastCommit(CommitError::Power { power: 2, .. })), "{reason:?}");
    let reason = rejected(|block| block.last_commit = Commit::genesis(CHAIN));
    assert!(matches!(reason, InvalidBlock::LastCommit(CommitError::Height { .. })), "{reason:?}");
    let reason = rejected(|block| {
        Arc::make_mut(&mut block.transactions[1]).signature = Signature::from_bytes([1; 64]);
    });
    assert!(matches!(reason, InvalidBlock::Signature { index: 1 }), "{reason:?}");
    let reason = rejected(|block| block.transactions[2] = transfer(3, 1, 1, 5));
    assert!(matches!(reason, InvalidBlock::Transaction { index: 2, .. }), "{reason:?}");
    let reason = rejected(|block| {
        let again = Arc::clone(&block.transactions[0]);
        block.transactions.push(again);
    });
    assert!(matches!(reason, InvalidBlock::Transaction { index: 3, .. }), "{reason:?}");
    let reason = rejected(|block| {
        let mut odd = (*block.transactions[0]).clone();
        odd.body = bytes::Bytes::from_static(b"rubbish");
        odd.signature = account(0).sign(&netsplit_core::sign_bytes::transaction(&odd.id()));
        block.transactions[0] = Arc::new(odd);
    });
    assert!(matches!(reason, InvalidBlock::Malformed { index: 0, .. }), "{reason:?}");
}

#[test]
fn evidence_is_checked() {
    let vote = |height, block| SignedVote::sign(&CHAIN, VoteKind::Prevote, height, 0, block, &key(1));
    let at = |height| Evidence::new(vote(height, None), vote(height, Some(Hash::ZERO))).unwrap();
    for height in [0, 2] {
        let reason = rejected(|block| block.evidence.push(at(height)));
        assert!(matches!(reason, InvalidBlock::EvidenceHeight { .. }), "{reason:?}");
    }
    let reason = rejected(|block| {
        let mut forged = at(1);
        forged.first.signature = forged.second.signature;
        block.evidence.push(forged);
    });
    let forged = matches!(reason, InvalidBlock::Evidence { index: 0, source: EvidenceError::Signature(_) });
    assert!(forged, "{reason:?}");
    let chain = chain();
    advance(&chain, Vec::new());
    let mut block = build(&chain, Vec::new());
    block.evidence.push(at(1));
    block.header.evidence_root = Block::evidence_root(&block.evidence);
    check(&chain, &block);
}

#[test]
fn only_unknown_signatures_are_verified() {
    let chain = chain();
    let mut forged = (*transfer(0, 0, 1, 5)).clone();
    forged.signature = Signature::from_bytes([1; 64]);
    let block = build(&chain, vec![Arc::new(forged.clone())]);
    assert!(chain.check(&block, u64::MAX, &unknown).is_err());
    let held = |id: &Hash, transaction: &SignedTransaction| *id == forged.id() && *transaction == forged;
    assert!(chain.check(&block, u64::MAX, &held).is_ok());
}

#[test]
fn only_the_next_block_is_committed() {
    let chain = chain();
    let first = build(&chain, vec![transfer(0, 0, 1, 5)]);
    let other = build(&chain, vec![transfer(1, 0, 1, 5)]);
    let (checked, checked_other) = (check(&chain, &first), check(&chain, &other));
    let commit = commit_for(1, first.id());

    let error = chain.commit(checked.clone(), &commit_for(1, other.id())).unwrap_err();
    assert!(matches!(error, StoreError::OtherCommit { .. }), "{error}");
    chain.commit(checked.clone(), &commit).unwrap();
    let error = chain.commit(checked, &commit).unwrap_err();
    assert!(matches!(error, StoreError::AlreadyStored { height: 1, head: 1 }), "{error}");
    let error = chain.commit(checked_other.clone(), &commit_for(1, other.id())).unwrap_err();
    assert!(matches!(error, StoreError::AlreadyStored { .. }), "{error}");

    // Checked against another history.
    let fork = self::chain();
    fork.commit(checked_other, &commit_for(1, other.id())).unwrap();
    let second = build(&fork, Vec::new());
    let error = chain.commit(check(&fork, &second), &commit_for(2, second.id())).unwrap_err();
    assert!(matches!(error, StoreError::MissingParent { height: 2, head: 1, .. }), "{error}");
    assert_eq!(chain.height(), 1);
    advance(&chain, Vec::new());
}

#[test]
fn a_failed_write_is_an_error_and_moves_nothing() {
    let chain = chain();
    chain.store().fail_writes();
    let block = build(&chain, Vec::new());
    let error = chain.commit(check(&chain, &block), &commit_for(1, block.id())).unwrap_err();
    assert!(matches!(error, StoreError::Backend { .. }), "{error}");
    assert_eq!(chain.height(), 0);
    assert!(chain.sync().is_err());
}

#[test]
fn readers_see_whole_blocks_while_one_commits() {
    let chain = Arc::new(chain());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !done.load(Ordering::Acquire) || seen < chain.height() {
                        let height = chain.height();
                        assert!(height >= seen);
                        seen = height;
                        if height > 0 {
                            let (block, commit) = chain.block(height).unwrap().unwrap();
                            let block = Block::from_bytes(&block).unwrap();
                            assert_eq!((block.header.height, block.id()), (height, commit.block));
                            let id = block.transactions[0].id();
                            assert_eq!(chain.transaction(&id).unwrap(), Some((height, 0)));
                            assert!(chain.account(&account(0).public()).unwrap().nonce >= height);
                        }
                    }
                })
            })
            .collect();
        for nonce in 0..30 {
            advance(&chain, vec![transfer(0, nonce, 1, 1)]);
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_store_of_another_chain_or_of_the_future_is_refused() {
    let store = Arc::new(MemoryStore::new());
    drop(Chain::open(Arc::clone(&store), &genesis(10)).unwrap());
    let mut other = genesis(10);
    other.chain_id = Hash::ZERO;
    let error = Chain::open(Arc::clone(&store), &other).unwrap_err();
    assert!(matches!(error, StoreError::OtherChain { .. }), "{error}");

    let mut batch = Batch::default();
    batch.put(Column::Meta, "schema", 2_u32.to_be_bytes().to_vec());
    store.commit(batch).unwrap();
    let error = Chain::open(Arc::clone(&store), &genesis(10)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store has schema version 2, this program knows 1 at most; use a newer program"
    );
}

#[test]
fn a_damaged_store_is_refused() {
    let damaged = |damage: &dyn Fn(&MemoryStore, &mut Batch)| {
        let store = Arc::new(MemoryStore::new());
        advance(&Chain::open(Arc::clone(&store), &genesis(10)).unwrap(), vec![transfer(0, 0, 1, 5)]);
        let mut batch = Batch::default();
        damage(&store, &mut batch);
        store.commit(batch).unwrap();
        Chain::open(store, &genesis(10)).unwrap_err()
    };
    let error = damaged(&|_, batch| batch.delete(Column::Meta, "head"));
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    let error = damaged(&|_, batch| batch.put(Column::Meta, "head", vec![1, 2]));
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let error = damaged(&|_, batch| batch.delete(Column::TreeNodes, 1_u64.to_be_bytes()));
    assert!(matches!(error, StoreError::Tree { .. }), "{error}");
    // The root of version 0 in the place of that of version 1.
    let error = damaged(&|store, batch| {
        let old = store.get(Column::TreeNodes, &0_u64.to_be_bytes()).unwrap().unwrap();
        batch.put(Column::TreeNodes, 1_u64.to_be_bytes(), old);
    });
    assert!(matches!(error, StoreError::RootMismatch { .. }), "{error}");
}
