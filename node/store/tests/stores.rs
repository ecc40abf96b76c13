//! What every store must do, run on each of them; and what only a disk can show.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod common;

use bytes::Bytes;
use netsplit_store::{Batch, Column, MemoryStore, Store};

fn contract(store: &impl Store) {
    let get = |column, key: &[u8]| store.get(column, key).unwrap();
    assert_eq!(get(Column::Meta, b"a"), None);
    let mut batch = Batch::default();
    for key in [&b"a"[..], b"ab", b"b", b"c"] {
        batch.put(Column::Blocks, key, key.to_vec());
    }
    batch.put(Column::State, "a", "another column");
    batch.put(Column::Meta, "empty", Bytes::new());
    store.commit(batch).unwrap();
    assert_eq!(get(Column::Blocks, b"a").as_deref(), Some(&b"a"[..]));
    assert_eq!(get(Column::State, b"a").as_deref(), Some(&b"another column"[..]));
    assert_eq!(get(Column::Meta, b"empty").as_deref(), Some(&b""[..]));
    assert_eq!(get(Column::Commits, b"a"), None);

    let keys = |from: &[u8], until: &[u8], limit| -> Vec<Bytes> {
        let pairs = store.scan(Column::Blocks, from, until, limit).unwrap();
        assert!(pairs.iter().all(|(key, value)| key == value));
        pairs.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(b"", b"z", 99), ["a", "ab", "b", "c"]);
    assert_eq!(keys(b"a", b"b", 99), ["a", "ab"]);
    assert_eq!(keys(b"aa", b"c", 99), ["ab", "b"]);
    assert_eq!(keys(b"", b"z", 2), ["a", "ab"]);
    assert_eq!(keys(b"", b"z", 0), [""; 0]);
    assert_eq!(keys(b"b", b"b", 9), [""; 0]);
    assert_eq!(keys(b"c", b"a", 9), [""; 0]);

    // In one batch the later operation wins.
    let mut batch = Batch::default();
    batch.delete(Column::Blocks, "a");
    batch.put(Column::Blocks, "b", "old");
    batch.put(Column::Blocks, "b", "b");
    batch.put(Column::Blocks, "c", "c");
    batch.delete(Column::Blocks, "c");
    batch.delete(Column::Blocks, "never there");
    store.commit(batch).unwrap();
    assert_eq!(keys(b"", b"z", 99), ["ab", "b"]);
    store.commit(Batch::default()).unwrap();
    store.sync().unwrap();
    assert_eq!(keys(b"", b"z", 99), ["ab", "b"]);
}

#[test]
fn memory_keeps_the_contract() {
    contract(&MemoryStore::new());
}

#[cfg(feature = "rocksdb")]
mod disk {
    use std::path::{Path, PathBuf};

    use netsplit_store::{Chain, Retention, RocksStore, StoreError};

    use super::common::*;
    use super::*;

    fn open(folder: &Path) -> RocksStore {
        RocksStore::open(folder).unwrap()
    }

    #[test]
    fn rocksdb_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        contract(&open(folder.path()));
    }

    /// Bytes of all files in a folder.
    fn size(folder: &Path) -> u64 {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    /// A node that is killed again and again writes many small files: what they delete must go all the same.
    #[test]
    fn a_store_that_is_opened_again_and_again_does_not_grow() {
        const KEPT: u64 = 1_000;
        const PAIRS: u64 = 60;
        const LENGTH: usize = 300;
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        // Cannot be compressed.
        let mut noise = 7_u64;
        let mut value = || -> Vec<u8> {
            let mut byte = || {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()[0]
            };
            (0..LENGTH).map(|_| byte()).collect()
        };
        let mut largest = 0;
        for height in 1..=8 * KEPT {
            if height % 20 == 0 {
                drop(store);
                store = open(folder.path());
                largest = largest.max(size(folder.path()));
            }
            let mut batch = Batch::default();
            for place in 0..PAIRS {
                let key = |height: u64| [height.to_be_bytes(), place.to_be_bytes()].concat();
                batch.put(Column::Blocks, key(height), value());
                if height > KEPT {
                    batch.delete(Column::Blocks, key(height - KEPT));
                }
            }
            store.commit(batch).unwrap();
        }
        let kept = KEPT * PAIRS * LENGTH as u64;
        assert!(largest < 4 * kept, "{largest} bytes hold {kept}");
    }

    #[test]
    fn a_chain_is_the_same_on_disk_and_in_memory_and_after_opening_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Chain::open(MemoryStore::new(), &genesis(10)).unwrap();
        let keep = Retention { blocks: 4, states: 2 };
        for round in 0..3_u64 {
            let chain = Chain::open(open(folder.path()), &genesis(10)).unwrap();
            assert_eq!(chain.head(), memory.head());
            for nonce in 5 * round..5 * round + 5 {
                let transactions = vec![transfer(0, nonce, 1, 1), transfer(1, nonce, 20 + nonce, 2)];
                advance(&memory, transactions.clone());
                advance(&chain, transactions);
                chain.prune(keep).unwrap();
                assert_eq!(chain.head(), memory.head());
            }
            if round == 1 {
                chain.sync().unwrap();
            }
            assert_eq!(chain.first_block(), chain.height() - 3);
            assert_eq!(chain.block(chain.height()).unwrap(), memory.block(chain.height()).unwrap());
            let account = account(0).public();
            assert_eq!(chain.account(&account).unwrap(), memory.account(&account).unwrap());
        }
    }

    #[test]
    fn a_database_is_open_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path());
        let error = RocksStore::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Backend { operation: "open the database", .. }), "{error}");
        drop(first);
        open(folder.path());
    }

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-v1")
    }

    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    /// The blocks of the fixture; its folder is made by `write_fixture`.
    fn fill<S: Store>(chain: &Chain<S>) {
        for nonce in chain.height()..6 {
            advance(chain, vec![transfer(0, nonce, 1, 1), transfer(1, nonce, 20 + nonce, 2)]);
        }
    }

    #[test]
    fn a_store_written_with_schema_1_is_opened() {
        if !fixture().exists() {
            write_fixture();
        }
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture(), folder.path());
        let chain = Chain::open(open(folder.path()), &genesis(10)).unwrap();
        let memory = Chain::open(MemoryStore::new(), &genesis(10)).unwrap();
        fill(&memory);
        assert_eq!(chain.head(), memory.head());
        for height in 1..=6 {
            assert_eq!(chain.block(height).unwrap(), memory.block(height).unwrap());
        }
        advance(&chain, vec![transfer(0, 6, 1, 1)]);
    }

    /// A new schema has no fixture yet: it is made once, and committed.
    fn write_fixture() {
        std::fs::create_dir_all(fixture()).unwrap();
        let chain = Chain::open(open(&fixture()), &genesis(10)).unwrap();
        fill(&chain);
        chain.sync().unwrap();
        panic!("wrote {}: commit it", fixture().display());
    }
}
