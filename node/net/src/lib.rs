//! Authenticated sessions between nodes.
//!
//! A session with a peer is three TCP connections, one for each [`Class`] of traffic, so that a slow reader of
//! one class never holds up another. Each is gRPC over TLS 1.3 with a raw ed25519 key on both sides: a peer is
//! its key, an address is only where to find it. The consensus connection decides: it is opened first, it alone
//! is probed while idle, and its loss closes the other two.
//!
//! Of two peers the one with the smaller key dials. Everything that a peer can make this node hold is bounded:
//! frames, bytes waiting to be sent or read, connections before and after the handshake ([`Limits`]).
//!
//! ```text
//! send(peer, class, bytes) -> queue -> Session stream ~~~ Session stream -> Inbound -> NetEvent::Frame
//! ```

mod config;
mod dial;
mod handshake;
mod io;
mod listen;
mod log;
mod queue;
mod registry;
mod session;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use netsplit_core::PublicKey;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Limits, NetConfig, StaticPeer, Timing};
pub use queue::SendError;

/// Protocol versions that this crate speaks.
pub const PROTOCOL_VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

/// Longest frame in either direction, in bytes of payload.
pub const MAX_FRAME_BYTES: usize = 256 << 10;

/// The class of traffic that a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Votes, proposals, block parts, certificates.
    Consensus = 0,
    /// Transactions.
    Relay = 1,
    /// Value sync, later files and snapshots.
    Bulk = 2,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Consensus, Self::Relay, Self::Bulk];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Relay => "relay",
            Self::Bulk => "bulk",
        }
    }
}

/// What happens on the sessions. For each peer: `PeerUp`, any number of `Frame`s, `PeerDown`, in this order, and
/// so again after each reconnection.
#[derive(Debug)]
pub enum NetEvent {
    PeerUp(PublicKey),
    PeerDown(PublicKey),
    Frame(Frame),
}

/// Bytes from a peer. They count against [`Limits::inbound_bytes`] until the frame is dropped.
#[derive(Debug)]
pub struct Frame {
    pub peer: PublicKey,
    pub class: Class,
    pub bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// Where events arrive, one receiver for each class. `PeerUp` and `PeerDown` come on all three. A receiver that
/// is not read holds up its class on every session (by flow control, not by memory), so read all three.
#[derive(Debug)]
pub struct Inbound {
    pub consensus: mpsc::Receiver<NetEvent>,
    pub relay: mpsc::Receiver<NetEvent>,
    pub bulk: mpsc::Receiver<NetEvent>,
}

/// One configured peer and the state of its session.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub name: String,
    pub key: PublicKey,
    /// Other end of the consensus connection; `None` without a session.
    pub address: Option<SocketAddr>,
    /// The connections that are up.
    pub classes: Vec<Class>,
    pub direction: Option<Direction>,
    /// Why the last attempt failed; `None` after a success.
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen for peers on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot set up TLS for the node key")]
    Tls(#[source] rustls::Error),
}

/// The running network: listener, dialler, sessions.
#[derive(Debug)]
pub struct Net {
    handle: NetHandle,
    tracker: TaskTracker,
}

/// A cheap handle to send and to ask for the state of peers.
#[derive(Clone, Debug)]
pub struct NetHandle(Arc<registry::Registry>);

impl Net {
    /// Listens, and dials the configured peers for ever. Panics outside a tokio runtime.
    pub fn start(config: NetConfig) -> Result<(Self, Inbound), StartError> {
        let tls = Arc::new(tls::Tls::new(&config.key).map_err(StartError::Tls)?);
        let listener =
            listen::bind(&config).map_err(|source| StartError::Listen { address: config.listen, source })?;
        let (registry, inbound) = registry::Registry::new(config);
        let registry = Arc::new(registry);
        let tracker = TaskTracker::new();
        listen::spawn(&registry, &tls, listener, &tracker);
        dial::spawn(&registry, &tls, &tracker);
        tracker.close();
        Ok((Self { handle: NetHandle(registry), tracker }, inbound))
    }

    pub fn handle(&self) -> NetHandle {
        self.handle.clone()
    }

    /// Closes every session and stops listening; returns when all has ended.
    pub async fn stop(self) {
        self.handle.0.stop.cancel();
        self.tracker.wait().await;
    }

    /// Ends when the network has been told to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.handle.0.stop.clone()
    }
}

impl NetHandle {
    /// Queues `bytes` for `peer`. Never waits: a full queue is an error, and the caller decides what to drop.
    pub fn send(&self, peer: &PublicKey, class: Class, bytes: Bytes) -> Result<(), SendError> {
        self.0.send(peer, class, bytes)
    }

    /// Keys of the peers whose session is up.
    pub fn connected(&self) -> Vec<PublicKey> {
        self.0.connected()
    }

    /// All configured peers, by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.0.peers()
    }

    /// The address that the listener is bound to (the port is chosen when the configuration says 0).
    pub fn local_address(&self) -> SocketAddr {
        self.0.local_address()
    }
}
