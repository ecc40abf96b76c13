//! A machine that stops loses what was not synced, and nothing else; the same blocks then lead to the same state.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use std::sync::Arc;

use common::*;
use netsplit_core::{Block, Commit, Hash};
use netsplit_store::{Chain, Column, MemoryStore, Retention, Store};
use proptest::prelude::*;

fn open(store: &Arc<MemoryStore>) -> Chain<Arc<MemoryStore>> {
    Chain::open(Arc::clone(store), &genesis(6)).unwrap()
}

/// What every reader can see.
fn dump(store: &MemoryStore) -> Vec<(Column, Vec<u8>, Vec<u8>)> {
    let mut dump = Vec::new();
    for column in Column::ALL {
        let pairs = store.scan(column, &[], &[0xff; 80], usize::MAX).unwrap();
        dump.extend(pairs.into_iter().map(|(key, value)| (column, key.to_vec(), value.to_vec())));
    }
    dump
}

#[test]
fn what_was_not_synced_is_lost_and_the_chain_opens_at_an_older_height() {
    let store = Arc::new(MemoryStore::new());
    let chain = open(&store);
    for nonce in 0..3 {
        advance(&chain, vec![transfer(0, nonce, 1, 5)]);
    }
    chain.sync().unwrap();
    let (synced, before) = (chain.head(), dump(&store));
    for nonce in 3..7 {
        advance(&chain, vec![transfer(0, nonce, 1, 5)]);
    }
    assert_eq!(store.unsynced(), 4);
    store.crash();
    let chain = open(&store);
    assert_eq!(chain.head(), synced);
    assert_eq!(dump(&store), before);
    assert_eq!(chain.account(&account(0).public()).unwrap().nonce, 3);
    assert_eq!(chain.block(4).unwrap(), None);
    advance(&chain, vec![transfer(0, 3, 1, 5)]);
}

#[test]
fn a_crash_before_the_first_sync_leaves_nothing_half_done() {
    let store = Arc::new(MemoryStore::new());
    open(&store);
    store.crash();
    assert_eq!(open(&store).height(), 0, "a genesis is synced before it is used");
}

/// One way to run the chain: after each block, whether to sync, to prune, or to crash and how many unsynced batches survive.
#[derive(Clone, Debug)]
struct Turn {
    transfers: Vec<(u64, u64)>,
    sync: bool,
    prune: bool,
    crash: Option<usize>,
}

fn turn() -> impl Strategy<Value = Turn> {
    let transfers = proptest::collection::vec((0..6_u64, 0..8_u64), 0..6);
    (transfers, any::<bool>(), any::<bool>(), proptest::option::weighted(0.3, 0..4_usize))
        .prop_map(|(transfers, sync, prune, crash)| Turn { transfers, sync, prune, crash })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn crashing_and_committing_again_gives_the_same_roots(turns in proptest::collection::vec(turn(), 1..14)) {
        // The history, on a machine that never stops.
        let reference = Chain::open(MemoryStore::new(), &genesis(6)).unwrap();
        let mut history: Vec<(Block, Commit, Hash)> = Vec::new();
        for turn in &turns {
            let mut nonces: Vec<u64> =
                (0..6).map(|number| reference.account(&account(number).public()).unwrap().nonce).collect();
            let transactions = turn.transfers.iter().map(|(from, to)| {
                let nonce = nonces[*from as usize];
                nonces[*from as usize] += 1;
                transfer(*from, nonce, *to, 3)
            });
            let block = build(&reference, transactions.collect());
            let commit = commit_for(block.header.height, block.id());
            let applied = reference.commit(check(&reference, &block), &commit).unwrap();
            history.push((block, commit, applied.head.state_root));
        }
        // The same blocks on one that does, again and again.
        let store = Arc::new(MemoryStore::new());
        let mut chain = open(&store);
        for (turn, end) in turns.iter().zip(1_u64..) {
            // Up to here, from wherever the last crash left it.
            while chain.height() < end {
                let (block, commit, root) = &history[chain.height() as usize];
                let applied = chain.commit(check(&chain, block), commit).unwrap();
                prop_assert_eq!(&applied.head.state_root, root);
            }
            if turn.prune {
                chain.prune(Retention { blocks: 3, states: 2 }).unwrap();
            }
            if turn.sync {
                chain.sync().unwrap();
            }
            if let Some(kept) = turn.crash {
                store.crash_keeping(kept);
                chain = open(&store);
                let height = chain.height();
                let expected = height.checked_sub(1).map(|index| history[index as usize].2);
                prop_assert!(expected.is_none_or(|root| root == chain.head().state_root));
                for number in 0..8 {
                    chain.account(&account(number).public()).unwrap();
                }
                let stored = (chain.first_block()..=height).all(|height| chain.block(height).unwrap().is_some());
                prop_assert!(stored, "a block between first and head is missing");
            }
        }
        for (block, commit, _) in &history[chain.height() as usize..] {
            chain.commit(check(&chain, block), commit).unwrap();
        }
        prop_assert_eq!(chain.head(), reference.head());
    }
}
