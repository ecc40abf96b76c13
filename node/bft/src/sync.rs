//! Value sync: decided blocks that this node has missed, fetched ahead from several neighbours at once.
//!
//! A block is believed because of its commit, which is checked when its turn comes, since only then its validators are
//! known. Until then memory bounds what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netsplit_core::{Commit, Height};

use crate::bodies::Pieces;
use crate::io::PeerId;
use crate::message::{SyncResponse, limits};

/// Heights fetched ahead at most, and bytes kept for them.
const WINDOW: u64 = 128;
const WINDOW_BYTES: usize = 32 * 1024 * 1024;
/// Heights asked of one peer at a time.
const IN_FLIGHT: usize = 32;
/// A peer that did not answer, or answered wrongly, is left out for so long.
const SILENT: Duration = Duration::from_secs(1);
const WRONG: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Fetch {
    peer: PeerId,
    deadline: Duration,
    commit: Option<Commit>,
    pieces: Option<Pieces>,
}

/// A block that arrived whole.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub bytes: Bytes,
    pub commit: Commit,
    pub peer: PeerId,
}

#[derive(Debug, Default)]
pub(crate) struct Sync {
    fetches: BTreeMap<Height, Fetch>,
    ready: BTreeMap<Height, Ready>,
    left_out: BTreeMap<PeerId, Duration>,
    /// Heights up to this one the peer does not have any more.
    floors: BTreeMap<PeerId, Height>,
    turn: usize,
    /// Size of the largest recent block, an estimate for those in flight.
    block_bytes: usize,
}

/// Ask `peer` for `count` blocks from `from` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub peer: PeerId,
    pub from: Height,
    pub count: u8,
}

impl Sync {
    /// `seed` rules which peer comes first.
    pub fn new(seed: u64) -> Self {
        Self { turn: seed as usize, ..Self::default() }
    }

    /// What to ask for, given the height being decided and the heights that neighbours decide.
    pub fn requests(
        &mut self,
        height: Height,
        peers: impl Iterator<Item = (PeerId, Height)>,
        now: Duration,
        patience: Duration,
    ) -> Vec<Request> {
        self.left_out.retain(|_, until| *until > now);
        let peers: Vec<_> =
            peers.filter(|(peer, at)| *at > height && !self.left_out.contains_key(peer)).collect();
        let Some(top) = peers.iter().map(|(_, at)| *at).max() else { return Vec::new() };
        let ahead = (WINDOW_BYTES / self.block_bytes.max(1)).clamp(4, WINDOW as usize) as u64;
        let mut requests: Vec<Request> = Vec::new();
        for at in height..top.min(height + ahead) {
            if self.fetches.contains_key(&at) || self.ready.contains_key(&at) {
                continue;
            }
            // A run of heights goes to one peer, as far as one request reaches.
            let last = requests
                .last_mut()
                .filter(|r| r.from + u64::from(r.count) == at && r.count < limits::SYNC_COUNT);
            let peer = match &last {
                Some(request) if self.can_ask(request.peer, at, &peers) => Some(request.peer),
                _ => self.next_peer(at, &peers),
            };
            let Some(peer) = peer else { break };
            match last {
                Some(request) if request.peer == peer => request.count += 1,
                _ => requests.push(Request { peer, from: at, count: 1 }),
            }
            self.fetches.insert(at, Fetch { peer, deadline: now + patience, commit: None, pieces: None });
        }
        requests
    }

    fn can_ask(&self, peer: PeerId, at: Height, peers: &[(PeerId, Height)]) -> bool {
        peers.iter().any(|(id, top)| *id == peer && *top > at)
            && self.floors.get(&peer).is_none_or(|floor| at > *floor)
            && self.fetches.values().filter(|fetch| fetch.peer == peer).count() < IN_FLIGHT
    }

    fn next_peer(&mut self, at: Height, peers: &[(PeerId, Height)]) -> Option<PeerId> {
        self.turn = self.turn.wrapping_add(1);
        let (turn, count) = (self.turn, peers.len());
        (0..count).map(|i| peers[(turn + i) % count].0).find(|peer| self.can_ask(*peer, at, peers))
    }

    /// The next moment at which [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.fetches.values().map(|fetch| fetch.deadline).min()
    }

    /// Gives up on answers that are overdue.
    pub fn expire(&mut self, now: Duration) {
        let late: BTreeSet<PeerId> =
            self.fetches.values().filter(|fetch| fetch.deadline <= now).map(|fetch| fetch.peer).collect();
        self.fetches.retain(|_, fetch| fetch.deadline > now);
        self.left_out.extend(late.into_iter().map(|peer| (peer, now + SILENT)));
    }

    /// Takes an answer. What was not asked of this peer is ignored.
    pub fn response(
        &mut self,
        from: PeerId,
        response: &Arc<SyncResponse>,
        now: Duration,
        patience: Duration,
        max_bytes: usize,
    ) {
        let Some(fetch) = self.fetches.get_mut(&response.height).filter(|fetch| fetch.peer == from) else {
            return;
        };
        if response.total == 0 {
            self.fetches.remove(&response.height);
            let floor = self.floors.entry(from).or_default();
            *floor = (*floor).max(response.height);
            return;
        }
        if fetch.pieces.is_none() {
            fetch.pieces = Pieces::new(response.total, max_bytes);
        }
        let Some(pieces) =
            fetch.pieces.as_mut().filter(|pieces| pieces.total() == usize::from(response.total))
        else {
            return;
        };
        if !pieces.add(response.index, response.bytes.clone()) {
            return;
        }
        if let Some(commit) = &response.commit {
            fetch.commit = Some(commit.clone());
        }
        fetch.deadline = now + patience;
        if let (Some(bytes), Some(commit)) = (pieces.join(), fetch.commit.clone()) {
            self.block_bytes = bytes.len().max(self.block_bytes / 2);
            self.fetches.remove(&response.height);
            self.ready.insert(response.height, Ready { bytes, commit, peer: from });
        }
        // A flow of answers keeps the later ones of the same peer alive, too.
        for fetch in self.fetches.values_mut().filter(|fetch| fetch.peer == from) {
            fetch.deadline = fetch.deadline.max(now + patience);
        }
    }

    pub fn take(&mut self, height: Height) -> Option<Ready> {
        self.ready.remove(&height)
    }

    pub fn is_ready(&self, height: Height) -> bool {
        self.ready.contains_key(&height)
    }

    /// The peer answered wrongly: whatever it sent is dropped, and it is asked nothing for a while.
    pub fn blame(&mut self, peer: PeerId, now: Duration) {
        self.ready.retain(|_, ready| ready.peer != peer);
        self.fetches.retain(|_, fetch| fetch.peer != peer);
        self.left_out.insert(peer, now + WRONG);
    }

    pub fn gone(&mut self, peer: &PeerId) {
        self.fetches.retain(|_, fetch| fetch.peer != *peer);
        self.floors.remove(peer);
    }

    /// Forgets heights below `height`.
    pub fn prune(&mut self, height: Height) {
        self.fetches.retain(|at, _| *at >= height);
        self.ready.retain(|at, _| *at >= height);
    }

    #[cfg(test)]
    fn kept_bytes(&self) -> usize {
        let pieces = self.fetches.values().filter_map(|fetch| fetch.pieces.as_ref()).map(Pieces::bytes);
        pieces.sum::<usize>() + self.ready.values().map(|ready| ready.bytes.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use netsplit_core::{Hash, SecretKey};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn peer(byte: u8) -> PeerId {
        SecretKey::from_seed([byte; 32]).public()
    }

    fn answer(height: Height, bytes: &'static [u8]) -> Arc<SyncResponse> {
        let commit = Some(Commit::new(height, 0, Hash::ZERO, Vec::new()));
        Arc::new(SyncResponse { height, index: 0, total: 1, commit, bytes: Bytes::from_static(bytes) })
    }

    #[test]
    fn heights_are_fetched_ahead_from_several_peers() {
        let mut sync = Sync::default();
        let peers = [(peer(1), 1000), (peer(2), 1000)];
        let requests = sync.requests(10, peers.into_iter(), Duration::ZERO, PATIENCE);
        let heights: u64 = requests.iter().map(|r| u64::from(r.count)).sum();
        assert_eq!(heights, 64, "32 in flight for each of two peers");
        assert!(requests.iter().any(|r| r.peer == peer(1)) && requests.iter().any(|r| r.peer == peer(2)));
        assert!(sync.requests(10, peers.into_iter(), Duration::ZERO, PATIENCE).is_empty());
        for height in 10..74 {
            for (from, _) in peers {
                sync.response(from, &answer(height, b"block"), Duration::ZERO, PATIENCE, 1 << 20);
            }
            assert!(sync.is_ready(height));
        }
        assert_eq!(sync.kept_bytes(), 64 * 5);
    }

    #[test]
    fn a_silent_peer_is_left_out_and_another_one_asked() {
        let mut sync = Sync::default();
        let both = [(peer(1), 12), (peer(2), 12)];
        let first = sync.requests(10, both.into_iter(), Duration::ZERO, PATIENCE);
        assert_eq!(first.len(), 1);
        sync.expire(PATIENCE);
        let second = sync.requests(10, both.into_iter(), PATIENCE, PATIENCE);
        assert_eq!(second.len(), 1);
        assert_ne!(first[0].peer, second[0].peer);
    }

    #[test]
    fn answers_that_were_not_asked_for_are_ignored() {
        let mut sync = Sync::default();
        sync.response(peer(1), &answer(10, b"block"), Duration::ZERO, PATIENCE, 1 << 20);
        assert!(!sync.is_ready(10));
        sync.requests(10, [(peer(2), 11)].into_iter(), Duration::ZERO, PATIENCE);
        sync.response(peer(1), &answer(10, b"block"), Duration::ZERO, PATIENCE, 1 << 20);
        assert!(!sync.is_ready(10));
    }

    #[test]
    fn large_blocks_shrink_the_window() {
        let mut sync = Sync { block_bytes: 8 * 1024 * 1024, ..Sync::default() };
        let requests = sync.requests(1, [(peer(1), 1000)].into_iter(), Duration::ZERO, PATIENCE);
        assert_eq!(requests.iter().map(|r| u64::from(r.count)).sum::<u64>(), 4);
    }

    #[test]
    fn a_peer_that_pruned_a_height_is_not_asked_again() {
        let mut sync = Sync::default();
        sync.requests(10, [(peer(1), 11)].into_iter(), Duration::ZERO, PATIENCE);
        let missing = SyncResponse { height: 10, index: 0, total: 0, commit: None, bytes: Bytes::new() };
        sync.response(peer(1), &Arc::new(missing), Duration::ZERO, PATIENCE, 1 << 20);
        assert!(sync.requests(10, [(peer(1), 11)].into_iter(), Duration::ZERO, PATIENCE).is_empty());
        assert_eq!(sync.requests(10, [(peer(2), 11)].into_iter(), Duration::ZERO, PATIENCE).len(), 1);
    }
}
