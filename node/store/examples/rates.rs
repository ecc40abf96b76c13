//! What building, checking and committing costs for each transfer, on either store: `cargo run --release --example rates`.
//!
//! Transfers between random accounts, all signatures verified on one thread; `known` is a check whose signatures the mempool had
//! verified.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netsplit_core::ledger::{GenesisParts, Limits};
use netsplit_core::mempool::{Mempool, MempoolLimits};
use netsplit_core::sign_bytes::{self, VoteKind};
use netsplit_core::{
    Action, Commit, Hash, SecretKey, SignedTransaction, TransactionBody, Validator, ValidatorSet,
};
use netsplit_store::{Chain, MemoryStore, Retention, Store};

const ACCOUNTS: usize = 1000;
const CHAIN: Hash = Hash::from_bytes([7; 32]);

fn key(number: usize) -> SecretKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    SecretKey::from_seed(seed)
}

fn genesis(keys: &[SecretKey]) -> GenesisParts {
    GenesisParts {
        chain_id: CHAIN,
        time_ms: 0,
        protocol_version: 1,
        limits: Limits {
            max_block_bytes: 8 << 20,
            max_block_transactions: 100_000,
            max_time_ahead_ms: 10_000,
        },
        validators: ValidatorSet::new(vec![Validator { address: key(0).public(), power: 1 }])
            .expect("one validator with power"),
        accounts: keys.iter().map(|key| (key.public(), 1 << 40)).collect(),
    }
}

/// Signed transfers for `blocks` blocks of `size`.
fn load(keys: &[SecretKey], blocks: usize, size: usize) -> Vec<Vec<Arc<SignedTransaction>>> {
    let mut nonces = vec![0; keys.len()];
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % ACCOUNTS
    };
    let mut transfer = || {
        let (from, to) = (random(), keys[random()].public());
        let action = Action::Transfer { to, amount: 1 };
        let body = TransactionBody { chain_id: CHAIN, nonce: nonces[from], fee: 1, gas_limit: 0, action };
        nonces[from] += 1;
        Arc::new(SignedTransaction::sign(&body, &keys[from]))
    };
    (0..blocks).map(|_| (0..size).map(|_| transfer()).collect()).collect()
}

fn measure<S: Store>(name: &str, store: S, keys: &[SecretKey], blocks: &[Vec<Arc<SignedTransaction>>]) {
    let chain = Chain::open(store, &genesis(keys)).expect("an empty store").with_threads(NonZeroUsize::MIN);
    let mut spent = [Duration::ZERO; 5];
    for transactions in blocks {
        let head = chain.head();
        let mut timed = [Instant::now(); 6];
        let last = chain.last_commit().expect("stored");
        let block =
            chain.build(key(0).public(), head.time_ms + 100, transactions.clone(), last).expect("builds");
        timed[1] = Instant::now();
        assert_eq!(block.transactions.len(), transactions.len());
        let checked = chain.check(&block, u64::MAX, &|_, _| false).expect("valid");
        timed[2] = Instant::now();
        chain.check(&block, u64::MAX, &|_, _| true).expect("valid");
        timed[3] = Instant::now();
        let message = sign_bytes::vote(&CHAIN, VoteKind::Precommit, head.height + 1, 0, Some(&checked.id()));
        let signature = key(0).sign(&message);
        let commit = Commit::new(head.height + 1, 0, checked.id(), vec![(key(0).public(), signature)]);
        chain.commit(checked, &commit).expect("commits");
        timed[4] = Instant::now();
        chain.prune(Retention { blocks: 20, states: 10 }).expect("prunes");
        timed[5] = Instant::now();
        for (total, pair) in spent.iter_mut().zip(timed.windows(2)) {
            *total += pair[1] - pair[0];
        }
    }
    let count: usize = blocks.iter().map(Vec::len).sum();
    let [build, check, known, commit, prune] = spent.map(|total| total.as_secs_f64() * 1e6 / count as f64);
    println!(
        "{name:>8}, {:>5} a block: build {build:5.1}, check {check:5.1}, known {known:5.1}, commit {commit:5.1}, prune {prune:5.1} us each",
        blocks[0].len()
    );
}

fn measure_mempool(transactions: &[Vec<Arc<SignedTransaction>>]) {
    let account = netsplit_core::ledger::Account { balance: 1 << 40, nonce: 0 };
    let mut pool = Mempool::new(CHAIN, MempoolLimits::default());
    let started = Instant::now();
    for transaction in transactions.iter().flatten() {
        pool.insert(Arc::clone(transaction), &account, 0).expect("there is room");
    }
    let (inserted, count) = (started.elapsed(), pool.len());
    let started = Instant::now();
    let taken = pool.take(1000, usize::MAX);
    let took = started.elapsed();
    let started = Instant::now();
    pool.remove_committed(1, &taken);
    let removed = started.elapsed();
    let each = |total: Duration, count: usize| total.as_secs_f64() * 1e6 / count as f64;
    println!(
        "mempool of {count}: insert {:.2}, take {:.2}, remove {:.2} us each",
        each(inserted, count),
        each(took, taken.len()),
        each(removed, taken.len())
    );
}

fn main() {
    let keys: Vec<SecretKey> = (1..=ACCOUNTS).map(key).collect();
    for (blocks, size) in [(100, 100), (40, 500), (20, 2000)] {
        let load = load(&keys, blocks, size);
        measure("memory", MemoryStore::new(), &keys, &load);
        #[cfg(feature = "rocksdb")]
        {
            let folder = std::env::temp_dir().join(format!("netsplit-rates-{}", std::process::id()));
            let store = netsplit_store::RocksStore::open(&folder).expect("a new folder");
            measure("rocksdb", store, &keys, &load);
            std::fs::remove_dir_all(&folder).expect("the folder made above");
        }
        if size == 2000 {
            measure_mempool(&load);
        }
    }
}
