//! State written by the last blocks, kept in memory beside the store.
//!
//! Only the writer fills it, from what it has stored: a reader that filled it could put back a value that a block in between replaced.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use netsplit_core::ledger::Diff;

/// Keys of one generation; two are held. An account takes about 150 bytes.
const GENERATION: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Recent(RwLock<Generations>);

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Vec<u8>, Option<Bytes>>,
    /// Looked up when `new` has no answer; forgotten when `new` is full.
    old: HashMap<Vec<u8>, Option<Bytes>>,
}

impl Recent {
    /// The value of `key`, `Some(None)` if it was removed; `None` if the store must be asked.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        generations.new.get(key).or_else(|| generations.old.get(key)).cloned()
    }

    /// Takes over what the store holds now.
    pub(super) fn wrote(&self, changes: &Diff) {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes.iter() {
            if generations.new.len() >= GENERATION {
                generations.old = std::mem::take(&mut generations.new);
            }
            generations.new.insert(key.to_vec(), value.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(keys: std::ops::Range<u32>, value: &'static [u8]) -> Diff {
        let mut diff = Diff::default();
        for key in keys {
            diff.set(key.to_be_bytes().to_vec(), Some(Bytes::from_static(value)));
        }
        diff
    }

    #[test]
    fn the_last_write_counts_across_generations_and_a_removal_is_known() {
        let recent = Recent::default();
        let key = 7_u32.to_be_bytes();
        assert_eq!(recent.get(&key), None);
        recent.wrote(&diff(0..10, b"a"));
        recent.wrote(&diff(10..GENERATION as u32 + 10, b"a"));
        recent.wrote(&diff(7..8, b"b"));
        assert_eq!(recent.get(&key), Some(Some(Bytes::from_static(b"b"))));
        let mut removal = Diff::default();
        removal.set(key.to_vec(), None);
        recent.wrote(&removal);
        assert_eq!(recent.get(&key), Some(None));
    }

    #[test]
    fn bounded() {
        let recent = Recent::default();
        recent.wrote(&diff(0..5 * GENERATION as u32, b"a"));
        let generations = recent.0.read().unwrap();
        assert!(generations.new.len() <= GENERATION && generations.old.len() <= GENERATION);
        drop(generations);
        assert_eq!(recent.get(&0_u32.to_be_bytes()), None);
    }
}
