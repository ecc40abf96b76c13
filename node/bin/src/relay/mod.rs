//! Transactions travel by announcement: a node tells ids in batches, and a peer that lacks some asks one of those who
//! announced them, the next one if the answer does not come. What comes unasked is dropped.

mod asked;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use netsplit_bft::PeerId;
use netsplit_core::{Hash, SignedTransaction};
use netsplit_net::{Class, NetEvent, NetHandle, SendError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use crate::admission::{Accepted, Entrance};
use crate::metrics::Metrics;
use crate::pool::{Generations, Pool};
use asked::Asked;
use wire::RelayMessage;

/// How long ids are collected before they are announced.
const COLLECT: Duration = Duration::from_millis(20);
/// So many ids are announced at once, without waiting for more.
const ENOUGH: usize = 512;
/// Ids that wait to be announced to one peer; beyond, the oldest news is not told.
const MAX_NEWS: usize = 20_000;
/// Ids that a peer is known to know, twice as many at most (8 bytes each).
const MAX_KNOWN: usize = 16_384;
/// How long a peer has to answer.
const ANSWER: Duration = Duration::from_millis(500);

struct Peer {
    /// Ids not worth telling: told, or heard from it.
    known: Generations,
    news: Vec<Hash>,
}

pub(crate) struct Relay {
    pub net: NetHandle,
    pub pool: Arc<Pool>,
    pub entrance: Entrance,
    pub metrics: Arc<Metrics>,
    peers: HashMap<PeerId, Peer>,
    asked: Asked,
}

impl Relay {
    pub(crate) fn new(net: NetHandle, pool: Arc<Pool>, entrance: Entrance, metrics: Arc<Metrics>) -> Self {
        Self { net, pool, entrance, metrics, peers: HashMap::new(), asked: Asked::default() }
    }

    /// Runs until the network or the admission ends.
    pub(crate) async fn run(
        mut self,
        mut frames: mpsc::Receiver<NetEvent>,
        mut accepted: mpsc::Receiver<Accepted>,
    ) {
        // Set while something waits to be told; an idle node sleeps.
        let mut flush_at: Option<Instant> = None;
        loop {
            let wake = [flush_at, self.asked.next_deadline()].into_iter().flatten().min();
            tokio::select! {
                event = frames.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                news = accepted.recv() => match news {
                    Some(news) => self.on_accepted(&news),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            let now = Instant::now();
            self.ask_again(now);
            let most = self.peers.values().map(|peer| peer.news.len()).max().unwrap_or(0);
            if most >= ENOUGH || flush_at.is_some_and(|at| at <= now) {
                self.announce();
                flush_at = None;
            } else if most > 0 {
                flush_at = flush_at.or(Some(now + COLLECT));
            }
        }
    }

    fn on_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::PeerUp(key) => {
                // After a partition each side has what the other lacks.
                let news = self.pool.ids(MAX_NEWS);
                self.peers.insert(key, Peer { known: Generations::new(MAX_KNOWN), news });
            }
            NetEvent::PeerDown(key) => {
                self.peers.remove(&key);
            }
            NetEvent::Frame(frame) => match RelayMessage::from_bytes(&frame.bytes) {
                Ok(RelayMessage::Announce(ids)) => self.on_announce(frame.peer, &ids),
                Ok(RelayMessage::Want(ids)) => self.on_want(frame.peer, &ids),
                Ok(RelayMessage::Transactions(transactions)) => {
                    self.on_transactions(frame.peer, transactions);
                }
                Err(error) => {
                    self.metrics.malformed.inc();
                    debug!(peer = %frame.peer, %error, "relay frame dropped");
                }
            },
        }
    }

    fn on_accepted(&mut self, accepted: &Accepted) {
        accepted.ids.iter().for_each(|id| self.asked.admitted(id));
        for (key, peer) in &mut self.peers {
            if accepted.from == Some(*key) {
                continue;
            }
            for id in &accepted.ids {
                if peer.news.len() < MAX_NEWS && peer.known.insert(id) {
                    peer.news.push(*id);
                }
            }
        }
    }

    fn on_announce(&mut self, from: PeerId, ids: &[Hash]) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        for id in ids {
            peer.known.insert(id);
        }
        let now = Instant::now();
        let unknown = self.pool.unknown(ids);
        let want: Vec<Hash> =
            unknown.into_iter().filter(|id| self.asked.announced(*id, from, now + ANSWER)).collect();
        self.want(from, &want);
    }

    fn want(&mut self, from: PeerId, ids: &[Hash]) {
        for chunk in ids.chunks(wire::MAX_IDS) {
            if self.send(from, wire::want(chunk)).is_err() {
                return;
            }
        }
    }

    fn on_want(&mut self, from: PeerId, ids: &[Hash]) {
        let transactions = self.pool.get_many(ids);
        for frame in wire::transactions(&transactions) {
            if self.send(from, frame).is_err() {
                return;
            }
        }
    }

    fn on_transactions(&mut self, from: PeerId, transactions: Vec<SignedTransaction>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let asked_for: Vec<SignedTransaction> = transactions
            .into_iter()
            .filter(|transaction| {
                let id = transaction.id();
                peer.known.insert(&id);
                self.asked.came(&id)
            })
            .collect();
        if !self.entrance.relayed(from, asked_for) {
            self.metrics.relay_dropped.inc();
        }
    }

    fn ask_again(&mut self, now: Instant) {
        let mut again: HashMap<PeerId, Vec<Hash>> = HashMap::new();
        for (id, peer) in self.asked.overdue(now, now + ANSWER) {
            again.entry(peer).or_default().push(id);
        }
        for (peer, ids) in again {
            let still_unknown = self.pool.unknown(&ids);
            self.want(peer, &still_unknown);
        }
    }

    fn announce(&mut self) {
        for (key, peer) in &mut self.peers {
            let news = std::mem::take(&mut peer.news);
            for chunk in news.chunks(wire::MAX_IDS) {
                // A peer that does not read hears of these from another one, or in a block.
                if self.net.send(key, Class::Relay, wire::announce(chunk)).is_err() {
                    self.metrics.dropped(Class::Relay);
                    break;
                }
            }
        }
    }

    fn send(&self, to: PeerId, bytes: bytes::Bytes) -> Result<(), SendError> {
        self.net.send(&to, Class::Relay, bytes).inspect_err(|_| self.metrics.dropped(Class::Relay))
    }
}
