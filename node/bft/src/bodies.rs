//! Blocks of the current height and the next: those held, and those being put together from parts.
//!
//! A block is put together from the parts of one peer, so that a peer whose parts do not form the block is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use borsh::BorshDeserialize;
use bytes::{Bytes, BytesMut};
use netsplit_core::{Block, Hash, Header, Height};

use crate::io::PeerId;
use crate::message::{BlockPart, limits};

/// Blocks announced by one peer that wait for a proposal.
const MAX_ANNOUNCED: usize = 8;
/// Peers that push parts of one block without having been asked.
const MAX_PUSHERS: usize = 4;
/// Bytes of unfinished blocks, in blocks of full size, above which only parts that were asked for are kept.
const MAX_UNFINISHED: usize = 8;

/// A block that matches its id.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub bytes: Bytes,
    /// What the application said, once its height had begun.
    pub valid: Option<bool>,
    pub logged: bool,
}

/// A block that a proposal names and that is not held yet.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Whom it was asked for last, if anybody.
    pub asked: Option<PeerId>,
    /// When a part last arrived.
    pub progress: Duration,
    parts: BTreeMap<PeerId, Pieces>,
    /// Peers whose parts did not form the block.
    refused: BTreeSet<PeerId>,
}

impl Fetch {
    fn bytes(&self) -> usize {
        self.parts.values().map(Pieces::bytes).sum()
    }
}

/// The pieces of one block from one peer.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    slots: Vec<Option<Bytes>>,
    missing: usize,
    /// Bytes that there is room for.
    room: usize,
}

impl Pieces {
    /// `total` pieces, of `max_bytes` together at most.
    pub fn new(total: u8, max_bytes: usize) -> Option<Self> {
        let total = usize::from(total);
        (1..=limits::PARTS).contains(&total).then(|| Self {
            slots: vec![None; total],
            missing: total,
            room: max_bytes,
        })
    }

    pub fn total(&self) -> usize {
        self.slots.len()
    }

    /// True if the piece was missing.
    pub fn add(&mut self, index: u8, bytes: Bytes) -> bool {
        match self.slots.get_mut(usize::from(index)) {
            Some(slot @ None) if bytes.len() <= self.room => {
                self.room -= bytes.len();
                *slot = Some(bytes);
                self.missing -= 1;
                true
            }
            _ => false,
        }
    }

    /// All of it, when every piece is there.
    pub fn join(&self) -> Option<Bytes> {
        if self.missing > 0 {
            return None;
        }
        if let [Some(only)] = &self.slots[..] {
            return Some(only.clone());
        }
        let mut joined = BytesMut::new();
        self.slots.iter().flatten().for_each(|piece| joined.extend_from_slice(piece));
        Some(joined.freeze())
    }

    /// Bit `i`: piece `i` is missing.
    pub fn missing(&self) -> u128 {
        let bit = |(i, piece): (usize, &Option<Bytes>)| if piece.is_none() { 1u128 << i } else { 0 };
        self.slots.iter().enumerate().map(bit).sum()
    }

    pub fn bytes(&self) -> usize {
        self.slots.iter().flatten().map(Bytes::len).sum()
    }
}

/// Cuts an encoded block into pieces of `size` bytes (larger ones if there would be too many): index, number of pieces,
/// bytes.
pub(crate) fn cut(bytes: &Bytes, size: usize) -> impl Iterator<Item = (u8, u8, Bytes)> + '_ {
    let size = size.max(bytes.len().div_ceil(limits::PARTS)).max(1);
    let total = bytes.len().div_ceil(size).max(1);
    (0..total).map(move |index| {
        let start = index * size;
        let end = (start + size).min(bytes.len());
        (index as u8, total as u8, bytes.slice(start..end))
    })
}

/// The header of an encoded block.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    Header::deserialize(&mut &bytes[..]).ok()
}

/// Whether these bytes are the block that `id` names: a header of that id and height, and the body that it commits to.
pub(crate) fn matches(bytes: &[u8], height: Height, id: &Hash) -> bool {
    // The header first: it is cheap, and most wrong blocks fail there.
    header(bytes).is_some_and(|header| header.height == height && header.id() == *id)
        && Block::from_bytes(bytes).is_ok_and(|block| block.check_body().is_ok())
}

#[derive(Debug, Default)]
pub(crate) struct Bodies {
    held: BTreeMap<(Height, Hash), Body>,
    fetches: BTreeMap<(Height, Hash), Fetch>,
    announced: BTreeMap<(Height, Hash), BTreeSet<PeerId>>,
}

/// What a part led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Ignored,
    Stored,
    Complete(Bytes),
    /// The peer's parts form something else.
    Wrong,
}

impl Bodies {
    pub fn get(&self, height: Height, id: &Hash) -> Option<&Body> {
        self.held.get(&(height, *id))
    }

    pub fn get_mut(&mut self, height: Height, id: &Hash) -> Option<&mut Body> {
        self.held.get_mut(&(height, *id))
    }

    pub fn at(&self, height: Height) -> impl Iterator<Item = (&Hash, &Body)> {
        let range = (height, Hash::ZERO)..=(height, Hash::from_bytes([0xFF; 32]));
        self.held.range(range).map(|(key, body)| (&key.1, body))
    }

    /// Adds a block that matches its id.
    pub fn hold(&mut self, height: Height, id: Hash, body: Body) {
        self.fetches.remove(&(height, id));
        self.announced.remove(&(height, id));
        self.held.insert((height, id), body);
    }

    /// Begins to look for a block, unless it is held or looked for already. True if it begins.
    pub fn seek(&mut self, height: Height, id: Hash, now: Duration) -> bool {
        if self.held.contains_key(&(height, id)) || self.fetches.contains_key(&(height, id)) {
            return false;
        }
        let fetch = Fetch { asked: None, progress: now, parts: BTreeMap::new(), refused: BTreeSet::new() };
        self.fetches.insert((height, id), fetch);
        true
    }

    pub fn fetch(&self, height: Height, id: &Hash) -> Option<&Fetch> {
        self.fetches.get(&(height, *id))
    }

    /// Notes that `peer` has a block. Bounded for each peer, since no proposal may ever name it.
    pub fn announce(&mut self, height: Height, id: Hash, peer: PeerId) {
        let wanted = self.fetches.contains_key(&(height, id));
        let others = self.announced.values().filter(|peers| peers.contains(&peer)).count();
        if wanted || others < MAX_ANNOUNCED {
            self.announced.entry((height, id)).or_default().insert(peer);
        }
    }

    /// The next peer to ask for a block: one that said it has it, or `fallback`; another than last time if there is one.
    pub fn whom(&self, height: Height, id: &Hash, fallback: Option<PeerId>) -> Option<PeerId> {
        let fetch = self.fetches.get(&(height, *id))?;
        let mut peers: BTreeSet<PeerId> = self.announced.get(&(height, *id)).cloned().unwrap_or_default();
        peers.extend(fallback);
        peers.retain(|peer| !fetch.refused.contains(peer));
        let after = |last: PeerId| peers.iter().find(|peer| **peer > last).copied();
        fetch.asked.and_then(after).or_else(|| peers.first().copied())
    }

    /// Notes that `peer` is being asked, and returns the parts to ask for.
    pub fn ask(&mut self, height: Height, id: &Hash, peer: PeerId, now: Duration) -> u128 {
        let Some(fetch) = self.fetches.get_mut(&(height, *id)) else { return 0 };
        fetch.asked = Some(peer);
        fetch.progress = now;
        fetch.parts.get(&peer).map_or(u128::MAX, Pieces::missing)
    }

    pub fn arrived(&mut self, part: BlockPart, from: PeerId, now: Duration, max_bytes: usize) -> Arrived {
        let crowded = self.fetches.values().map(Fetch::bytes).sum::<usize>() > MAX_UNFINISHED * max_bytes;
        let Some(fetch) = self.fetches.get_mut(&(part.height, part.id)) else { return Arrived::Ignored };
        let pushed = fetch.asked != Some(from);
        let room = !crowded && (fetch.parts.contains_key(&from) || fetch.parts.len() < MAX_PUSHERS);
        if fetch.refused.contains(&from) || (pushed && !room) {
            return Arrived::Ignored;
        }
        if !pushed {
            // The one that is asked now takes the place of those that came to nothing.
            fetch.parts.retain(|peer, _| *peer == from || room);
        }
        let pieces = match fetch.parts.entry(from) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => match Pieces::new(part.total, max_bytes) {
                Some(pieces) => entry.insert(pieces),
                None => return Arrived::Ignored,
            },
        };
        if pieces.total() != usize::from(part.total) || !pieces.add(part.index, part.bytes) {
            return Arrived::Ignored;
        }
        fetch.progress = now;
        let Some(bytes) = pieces.join() else { return Arrived::Stored };
        if matches(&bytes, part.height, &part.id) {
            return Arrived::Complete(bytes);
        }
        fetch.parts.remove(&from);
        fetch.refused.insert(from);
        Arrived::Wrong
    }

    /// Forgets what a session that ended had begun.
    pub fn gone(&mut self, peer: &PeerId) {
        self.announced.retain(|_, peers| {
            peers.remove(peer);
            !peers.is_empty()
        });
        for fetch in self.fetches.values_mut() {
            fetch.parts.remove(peer);
        }
    }

    /// Forgets heights below `height`.
    pub fn prune(&mut self, height: Height) {
        self.held.retain(|key, _| key.0 >= height);
        self.fetches.retain(|key, _| key.0 >= height);
        self.announced.retain(|key, _| key.0 >= height);
    }
}
