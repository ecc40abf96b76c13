//! The configured peers and their current sessions: what the listener and the dialler share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use netsplit_core::PublicKey;
use netsplit_proto::peer::refusal::Reason;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::{NetConfig, StaticPeer};
use crate::handshake::HandshakeError;
use crate::log::LogBudget;
use crate::queue::SendError;
use crate::session::Session;
use crate::{Class, Direction, Inbound, NetEvent, PeerStatus};

/// Log lines a second about strangers.
const STRANGER_LINES: u32 = 5;

#[derive(Debug)]
pub(crate) struct Registry {
    pub config: NetConfig,
    /// Cancelled: everything ends.
    pub stop: CancellationToken,
    pub local_address: OnceLock<SocketAddr>,
    /// For lines about strangers.
    pub lines: LogBudget,
    peers: BTreeMap<PublicKey, Peer>,
    sinks: [Sink; 3],
    inbound_sessions: AtomicUsize,
    random: Mutex<SmallRng>,
}

#[derive(Debug)]
struct Peer {
    config: StaticPeer,
    session: Mutex<Option<Arc<Session>>>,
    last_error: Mutex<Option<String>>,
}

/// Where the frames of one class go.
#[derive(Debug)]
struct Sink {
    events: mpsc::Sender<NetEvent>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
}

/// Nothing that is done under these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    pub(crate) fn new(config: NetConfig) -> (Self, Inbound) {
        let sink = || {
            let (sender, receiver) = mpsc::channel(config.limits.inbound_frames);
            // At least one frame of the largest size must pass.
            let max_bytes = config.limits.inbound_bytes.max(crate::MAX_FRAME_BYTES);
            (Sink { events: sender, bytes: Arc::new(Semaphore::new(max_bytes)), max_bytes }, receiver)
        };
        let (consensus_sink, consensus) = sink();
        let (relay_sink, relay) = sink();
        let (bulk_sink, bulk) = sink();
        let peers = config
            .peers
            .iter()
            .map(|peer| {
                let state =
                    Peer { config: peer.clone(), session: Mutex::new(None), last_error: Mutex::new(None) };
                (peer.key, state)
            })
            .collect();
        let registry = Self {
            stop: CancellationToken::new(),
            local_address: OnceLock::new(),
            lines: LogBudget::new(STRANGER_LINES),
            peers,
            sinks: [consensus_sink, relay_sink, bulk_sink],
            inbound_sessions: AtomicUsize::new(0),
            random: Mutex::new(SmallRng::seed_from_u64(config.seed)),
            config,
        };
        (registry, Inbound { consensus, relay, bulk })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local_address.get().copied().unwrap_or(self.config.listen)
    }

    pub(crate) fn is_known(&self, key: &PublicKey) -> bool {
        self.peers.contains_key(key)
    }

    /// The peer's name in our configuration, or its key.
    pub(crate) fn name_of(&self, key: &PublicKey) -> String {
        self.peers.get(key).map_or_else(|| key.to_string(), |peer| peer.config.name.clone())
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut lock(&self.random))
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.random(RngExt::random)
    }

    /// How many sessions there can be: the peers to dial and those who may dial us.
    pub(crate) fn max_sessions(&self) -> usize {
        self.peers.len().min(self.config.limits.max_inbound_peers + self.dialled_peers().count()).max(1)
    }

    /// The smaller key dials, so that two peers never open two sessions at once.
    pub(crate) fn dialled_peers(&self) -> impl Iterator<Item = &StaticPeer> {
        let own = self.config.key.public();
        self.peers.values().map(|peer| &peer.config).filter(move |peer| own < peer.key)
    }

    /// Remembers why the last attempt with this peer failed; true when the reason is a new one.
    pub(crate) fn failed(&self, key: &PublicKey, error: &str) -> bool {
        let Some(peer) = self.peers.get(key) else { return false };
        let mut last = lock(&peer.last_error);
        let new = last.as_deref() != Some(error);
        if new {
            *last = Some(error.to_owned());
        }
        new
    }

    /// Makes a new session the peer's current one. A former one is closed: the peer is proven by its key, so the
    /// former is dead and only not noticed yet.
    pub(crate) fn begin(
        &self,
        key: &PublicKey,
        nonce: u64,
        direction: Direction,
        address: SocketAddr,
    ) -> Result<(Arc<Session>, Option<Arc<Session>>), HandshakeError> {
        let Some(peer) = self.peers.get(key) else {
            return Err(HandshakeError::refuse(
                Reason::UnknownKey,
                format!("the key {key} is not in the list of peers"),
            ));
        };
        let mut current = lock(&peer.session);
        let replaces_inbound =
            current.as_ref().is_some_and(|session| session.direction == Direction::Inbound);
        if direction == Direction::Inbound && !replaces_inbound {
            let max = self.config.limits.max_inbound_peers;
            if self.inbound_sessions.load(Ordering::Relaxed) >= max {
                let detail = format!("{max} peers are connected, no more are taken");
                return Err(HandshakeError::refuse(Reason::Full, detail));
            }
        }
        let limits = &self.config.limits;
        let session =
            Arc::new(Session::new(*key, nonce, direction, address, limits, self.stop.child_token()));
        let former = current.replace(session.clone());
        drop(current);
        if direction == Direction::Inbound {
            self.inbound_sessions.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(former) = &former {
            former.closed.cancel();
        }
        *lock(&peer.last_error) = None;
        Ok((session, former))
    }

    /// The counterpart of [`Registry::begin`].
    pub(crate) fn end(&self, session: &Arc<Session>) {
        session.closed.cancel();
        if session.direction == Direction::Inbound {
            self.inbound_sessions.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(peer) = self.peers.get(&session.peer) {
            let mut current = lock(&peer.session);
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
                *current = None;
            }
        }
    }

    pub(crate) fn session(&self, key: &PublicKey) -> Option<Arc<Session>> {
        lock(&self.peers.get(key)?.session).clone()
    }

    pub(crate) fn send(&self, key: &PublicKey, class: Class, bytes: Bytes) -> Result<(), SendError> {
        let peer = self.peers.get(key).ok_or(SendError::NotConnected)?;
        match &*lock(&peer.session) {
            Some(session) => session.queue(class).push(bytes),
            None => Err(SendError::NotConnected),
        }
    }

    pub(crate) fn connected(&self) -> Vec<PublicKey> {
        let up = |peer: &&Peer| lock(&peer.session).is_some();
        self.peers.values().filter(up).map(|peer| peer.config.key).collect()
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        let mut peers: Vec<_> = self.peers.values().map(Peer::status).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// Room for a received frame; waits while the node holds as many bytes as it may.
    pub(crate) async fn admit(&self, class: Class, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let sink = &self.sinks[class as usize];
        let bytes = bytes.clamp(1, sink.max_bytes);
        sink.bytes.clone().acquire_many_owned(bytes as u32).await.ok()
    }

    /// Hands an event on. Without a receiver the node is going down, and so do the sessions.
    pub(crate) async fn deliver(&self, class: Class, event: NetEvent) {
        if self.sinks[class as usize].events.send(event).await.is_err() {
            self.stop.cancel();
        }
    }
}

impl Peer {
    fn status(&self) -> PeerStatus {
        let session = lock(&self.session).clone();
        PeerStatus {
            name: self.config.name.clone(),
            key: self.config.key,
            address: session.as_ref().map(|session| session.address),
            classes: session.as_ref().map(|session| session.classes_up()).unwrap_or_default(),
            direction: session.as_ref().map(|session| session.direction),
            last_error: lock(&self.last_error).clone(),
        }
    }
}
