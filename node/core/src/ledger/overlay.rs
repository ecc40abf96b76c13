//! State as layers: a view at the bottom, diffs above it.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;

/// The state could not be read. What failed below is the source; the node cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the ledger's state cannot be read")]
pub struct StateError(#[source] Box<dyn Error + Send + Sync>);

impl StateError {
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// A state that can be read.
pub trait StateView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;
}

impl<V: StateView + ?Sized> StateView for &V {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        (**self).get(key)
    }
}

/// The state before genesis.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyState;

impl StateView for EmptyState {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(None)
    }
}

/// Changes of some keys, in the order of the keys; `None` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    changes: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl Diff {
    pub fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.changes.insert(key, value);
    }

    /// The change of `key`: `None` if it has none, `Some(None)` if it is removed.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.changes.get(key)
    }

    /// Lays `upper` over this.
    pub fn merge(&mut self, upper: Self) {
        self.changes.extend(upper.changes);
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&Bytes>)> {
        self.changes.iter().map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A diff over a base; itself a view, so overlays stack.
#[derive(Debug)]
pub struct Overlay<V> {
    base: V,
    diff: Diff,
}

impl<V: StateView> Overlay<V> {
    pub fn new(base: V) -> Self {
        Self::with_diff(base, Diff::default())
    }

    /// An overlay that holds changes made before.
    pub fn with_diff(base: V, diff: Diff) -> Self {
        Self { base, diff }
    }

    pub fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.diff.set(key, value);
    }

    /// Takes over the changes of an overlay over this one.
    pub fn merge(&mut self, upper: Diff) {
        self.diff.merge(upper);
    }

    pub fn diff(&self) -> &Diff {
        &self.diff
    }

    pub fn into_diff(self) -> Diff {
        self.diff
    }
}

impl<V: StateView> StateView for Overlay<V> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match self.diff.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }
}
