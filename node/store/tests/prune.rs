//! Retention: what is old goes, a bounded amount at a time, and what is kept stays whole.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::sync::Arc;

use common::*;
use netsplit_store::{Chain, Column, MemoryStore, Pruned, Retention};

const KEEP: Retention = Retention { blocks: 5, states: 3 };

#[test]
fn a_pruned_store_stops_growing_and_has_the_same_state() {
    let (pruned, whole) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let open = |store: &Arc<MemoryStore>| Chain::open(Arc::clone(store), &genesis(20)).unwrap();
    let (chain, reference) = (open(&pruned), open(&whole));
    let mut sizes = Vec::new();
    for height in 1..=60_u64 {
        // Every third block is empty, and one account is paid for the first time in each other.
        let transactions = || {
            if height % 3 == 0 {
                vec![]
            } else {
                vec![transfer(
                    height % 20,
                    chain.account(&account(height % 20).public()).unwrap().nonce,
                    100 + height,
                    1,
                )]
            }
        };
        let transactions = transactions();
        advance(&reference, transactions.clone());
        advance(&chain, transactions);
        chain.prune(KEEP).unwrap();
        assert_eq!(chain.head(), reference.head());
        let column = |column| pruned.len(column);
        sizes.push([
            column(Column::Blocks),
            column(Column::Commits),
            column(Column::Transactions),
            column(Column::TreeStale),
        ]);
    }
    assert_eq!(chain.first_block(), 56);
    assert_eq!(pruned.len(Column::Blocks), 5);
    assert_eq!(pruned.len(Column::Commits), 5);
    assert!(pruned.len(Column::Transactions) <= 5);
    assert!(sizes[20..].iter().all(|size| size[3] <= 40), "{sizes:?}");
    // A tree of 64 leaves has few inner nodes; the whole history has hundreds.
    assert!(pruned.len(Column::TreeNodes) < 120, "{}", pruned.len(Column::TreeNodes));
    assert!(whole.len(Column::TreeNodes) > 250, "{}", whole.len(Column::TreeNodes));
    assert!(chain.block(55).unwrap().is_none());
    assert!(chain.block(56).unwrap().is_some());
    assert_eq!(chain.state_root(60).unwrap(), Some(reference.head().state_root));
    assert_eq!(chain.state_root(58).unwrap(), Some(reference.header(59).unwrap().unwrap().state_root));
    assert_eq!((chain.state_root(57).unwrap(), chain.state_root(61).unwrap()), (None, None));
    drop(chain);
    let chain = open(&pruned);
    assert_eq!((chain.head(), chain.first_block()), (reference.head(), 56));
    advance(&chain, Vec::new());
}

#[test]
fn one_call_does_a_bounded_amount() {
    let chain = Chain::open(MemoryStore::new(), &genesis(5)).unwrap();
    for _ in 0..30 {
        advance(&chain, Vec::new());
    }
    let mut calls = 0;
    loop {
        let pruned = chain.prune(KEEP).unwrap();
        if pruned == Pruned::default() {
            break;
        }
        assert!(pruned.blocks <= 4, "{pruned:?}");
        calls += 1;
        assert!(calls < 30);
    }
    assert!(calls >= 25 / 4, "{calls}");
    assert_eq!(chain.first_block(), 26);
}

#[test]
fn the_head_always_stays() {
    let chain = Chain::open(MemoryStore::new(), &genesis(5)).unwrap();
    chain.prune(Retention { blocks: 0, states: 0 }).unwrap();
    for nonce in 0..4 {
        advance(&chain, vec![transfer(0, nonce, 1, 1)]);
        chain.prune(Retention { blocks: 0, states: 0 }).unwrap();
    }
    assert!(chain.block(4).unwrap().is_some());
    assert_eq!(chain.first_block(), 4);
    advance(&chain, vec![transfer(0, 4, 1, 1)]);
}
