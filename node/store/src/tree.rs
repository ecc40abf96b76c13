//! The state tree: a Jellyfish Merkle tree with BLAKE3 whose versions are heights. It proves what the flat state holds; values are read
//! from the flat state, so the tree stores none.

use bytes::Bytes;
use jmt::storage::{LeafNode, NibblePath, Node, NodeKey, TreeReader};
use jmt::{JellyfishMerkleTree, KeyHash, OwnedValue, SimpleHasher};
use netsplit_core::ledger::Diff;
use netsplit_core::{Domain, Hash, Height};

use crate::error::StoreError;
use crate::store::{Batch, Column, Store};

/// BLAKE3 as the tree's hash. The tree separates its own leaves and nodes.
#[derive(Clone, Debug)]
struct Blake3(blake3::Hasher);

impl SimpleHasher for Blake3 {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Lays `changes` over the tree of `version - 1`, adds the nodes of `version` to `batch`, and returns the new root. Every version from
/// 0 on must be written, also those without changes.
pub(crate) fn update(
    store: &impl Store,
    version: Height,
    changes: &Diff,
    batch: &mut Batch,
) -> Result<Hash, StoreError> {
    let fail =
        |source: anyhow::Error| StoreError::Tree { operation: "updated", version, source: source.into() };
    let reader = Reader(store);
    let tree = JellyfishMerkleTree::<_, Blake3>::new(&reader);
    let leaves = changes.iter().map(|(key, value)| (key_hash(key), value.map(|value| value.to_vec())));
    let (root, update) = tree.put_value_set(leaves, version).map_err(fail)?;
    for (key, node) in update.node_batch.nodes() {
        let node = borsh::to_vec(node).map_err(|error| fail(error.into()))?;
        batch.put(Column::TreeNodes, node_key(key), node);
    }
    for stale in &update.stale_node_index_batch {
        mark_stale(batch, version, &node_key(&stale.node_key));
    }
    // A version without changes is a copy of the old root, which the tree then does not report as stale.
    if version > 0 {
        mark_stale(batch, version, &root_key(version - 1));
    }
    Ok(Hash::from_bytes(root.0))
}

/// The root at `version`.
pub(crate) fn root(store: &impl Store, version: Height) -> Result<Hash, StoreError> {
    let reader = Reader(store);
    JellyfishMerkleTree::<_, Blake3>::new(&reader)
        .get_root_hash(version)
        .map(|root| Hash::from_bytes(root.0))
        .map_err(|source| StoreError::Tree { operation: "read", version, source: source.into() })
}

/// The same, if that version is kept.
pub(crate) fn kept_root(store: &impl Store, version: Height) -> Result<Option<Hash>, StoreError> {
    let reader = Reader(store);
    JellyfishMerkleTree::<_, Blake3>::new(&reader)
        .get_root_hash_option(version)
        .map(|root| root.map(|root| Hash::from_bytes(root.0)))
        .map_err(|source| StoreError::Tree { operation: "read", version, source: source.into() })
}

/// Adds to `batch` the deletion of at most `limit` nodes that no version from `oldest` on needs. Returns how many.
pub(crate) fn prune(
    store: &impl Store,
    oldest: Height,
    limit: usize,
    batch: &mut Batch,
) -> Result<usize, StoreError> {
    let until = oldest.saturating_add(1).to_be_bytes();
    let stale = store.scan(Column::TreeStale, &[], &until, limit)?;
    for (key, _) in &stale {
        let node = key.get(8..).ok_or_else(|| StoreError::Missing {
            column: Column::TreeStale,
            what: "a node's key behind a version".into(),
        })?;
        batch.delete(Column::TreeNodes, node);
        batch.delete(Column::TreeStale, key.to_vec());
    }
    Ok(stale.len())
}

fn mark_stale(batch: &mut Batch, since: Height, node: &[u8]) {
    let mut key = since.to_be_bytes().to_vec();
    key.extend_from_slice(node);
    batch.put(Column::TreeStale, key, Bytes::new());
}

fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(*Hash::of(Domain::StateKey, key).as_bytes())
}

fn root_key(version: Height) -> Vec<u8> {
    node_key(&NodeKey::new(version, NibblePath::from_iter([])))
}

/// Version, then a byte for each nibble of the path, of which there are few: a version's nodes lie together.
fn node_key(key: &NodeKey) -> Vec<u8> {
    let path = key.nibble_path();
    let mut bytes = Vec::with_capacity(8 + path.num_nibbles());
    bytes.extend_from_slice(&key.version().to_be_bytes());
    bytes.extend(path.nibbles().map(u8::from));
    bytes
}

struct Reader<'a, S>(&'a S);

impl<S: Store> TreeReader for Reader<'_, S> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let bytes = self.0.get(Column::TreeNodes, &node_key(key))?;
        Ok(bytes.map(|bytes| borsh::from_slice(&bytes)).transpose()?)
    }

    fn get_value_option(&self, _max: u64, _key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        anyhow::bail!("values are not stored in the tree")
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        anyhow::bail!("restoring a tree is not supported")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemoryStore;

    type Change = (u8, Option<u8>);

    fn diff(changes: impl IntoIterator<Item = Change>) -> Diff {
        let mut diff = Diff::default();
        for (key, value) in changes {
            diff.set(vec![key], value.map(|value| Bytes::copy_from_slice(&[value])));
        }
        diff
    }

    fn apply(store: &MemoryStore, version: Height, changes: &Diff) -> Hash {
        let mut batch = Batch::default();
        let root = update(store, version, changes, &mut batch).unwrap();
        store.commit(batch).unwrap();
        root
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any history, deletions and versions without changes included.
        #[test]
        fn the_root_depends_on_the_state_and_not_on_its_history(
            versions in proptest::collection::vec(
                proptest::collection::vec((0..40_u8, proptest::option::weighted(0.7, any::<u8>())), 0..12),
                1..12,
            ),
            keep in 1..5_u64,
        ) {
            let store = MemoryStore::new();
            let mut state = BTreeMap::new();
            let mut roots = Vec::new();
            for (changes, version) in versions.iter().zip(0_u64..) {
                let changes = diff(changes.iter().copied());
                roots.push(apply(&store, version, &changes));
                for (key, value) in changes.iter() {
                    match value {
                        Some(value) => state.insert(key[0], value[0]),
                        None => state.remove(&key[0]),
                    };
                }
                let at_once = diff(state.iter().map(|(key, value)| (*key, Some(*value))));
                prop_assert_eq!(roots[version as usize], apply(&MemoryStore::new(), 0, &at_once));
                prop_assert_eq!(root(&store, version).unwrap(), roots[version as usize]);
                // Pruned on the way, every version that is kept has its root.
                let oldest = (version + 1).saturating_sub(keep);
                let mut batch = Batch::default();
                prune(&store, oldest, usize::MAX, &mut batch).unwrap();
                store.commit(batch).unwrap();
                for kept in oldest..=version {
                    prop_assert_eq!(root(&store, kept).unwrap(), roots[kept as usize]);
                }
                if oldest > 0 {
                    prop_assert!(root(&store, oldest - 1).is_err());
                }
            }
            // Only the last version kept: as many nodes as a tree that never had another.
            let mut batch = Batch::default();
            prune(&store, versions.len() as u64 - 1, usize::MAX, &mut batch).unwrap();
            store.commit(batch).unwrap();
            let fresh = MemoryStore::new();
            apply(&fresh, 0, &diff(state.into_iter().map(|(key, value)| (key, Some(value)))));
            prop_assert_eq!(store.len(Column::TreeNodes), fresh.len(Column::TreeNodes));
            prop_assert_eq!(store.len(Column::TreeStale), 0);
        }
    }
}
