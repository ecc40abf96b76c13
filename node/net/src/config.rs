//! What a network is started with. Defaults suit links of 0-100 ms; a slow link needs longer times, not other code.

use std::net::SocketAddr;
use std::time::Duration;

use netsplit_core::{Hash, PublicKey, SecretKey};

use crate::Class;

/// A peer known by configuration.
#[derive(Clone, Debug)]
pub struct StaticPeer {
    pub name: String,
    pub key: PublicKey,
    /// `host:port`; a name is looked up again at each attempt.
    pub address: String,
}

#[derive(Clone, Debug)]
pub struct NetConfig {
    /// The node key: this node's identity among its peers.
    pub key: SecretKey,
    /// For the peers' logs.
    pub name: String,
    /// Software and version, for the peers' logs.
    pub agent: String,
    /// The genesis hash; a peer of another chain is refused.
    pub chain_id: Hash,
    pub chain_name: String,
    /// With a specific address, outgoing connections leave from it too.
    pub listen: SocketAddr,
    /// Only these keys are accepted, whoever dials.
    pub peers: Vec<StaticPeer>,
    pub limits: Limits,
    pub timing: Timing,
    /// Seeds session nonces and retry jitter; must differ between two starts of one node.
    pub seed: u64,
}

/// Bounds on what peers can make this node hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions that others dialled.
    pub max_inbound_peers: usize,
    /// Connections in the TLS handshake, or after it without a session, from one IP address.
    pub max_pending_per_ip: usize,
    /// The same, from all addresses.
    pub max_pending: usize,
    /// Bytes that wait to be sent to one peer, for one class.
    pub send_queue_bytes: usize,
    /// Frames that wait to be sent to one peer, for one class.
    pub send_queue_frames: usize,
    /// Bytes of received frames, of one class and all peers, that the node has not yet dropped.
    pub inbound_bytes: usize,
    /// Received frames of one class that wait to be taken.
    pub inbound_frames: usize,
    /// Sum of the HTTP/2 connection windows of all peers: what can lie unread in this process.
    pub window_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_inbound_peers: 128,
            max_pending_per_ip: 16,
            max_pending: 128,
            send_queue_bytes: 8 << 20,
            send_queue_frames: 4096,
            inbound_bytes: 8 << 20,
            inbound_frames: 1024,
            window_bytes: 128 << 20,
        }
    }
}

/// HTTP/2 flow-control windows of one connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub stream: u32,
    pub connection: u32,
}

/// The connection window is this many stream windows: one unread stream must not close the connection for others.
const STREAMS_PER_CONNECTION: u32 = 4;

impl Limits {
    /// Windows of a class when `peers` sessions share [`Limits::window_bytes`].
    pub(crate) fn windows(&self, class: Class, peers: usize) -> Windows {
        // The stream window bounds what a link of a given round trip carries: 512 KiB is 5 MiB/s at 100 ms.
        let stream: u32 = match class {
            Class::Consensus => 512 << 10,
            Class::Relay => 256 << 10,
            Class::Bulk => 1 << 20,
        };
        let wanted: usize = (512 + 256 + 1024) * 1024 * STREAMS_PER_CONNECTION as usize * peers.max(1);
        let shrink = wanted.div_ceil(self.window_bytes.max(1)).max(1);
        // Below one HTTP/2 default window a stream cannot even hold the largest frame in pieces at a useful rate.
        let stream = (stream / shrink as u32).max(65_535);
        Windows { stream, connection: stream * STREAMS_PER_CONNECTION }
    }
}

#[derive(Clone, Debug)]
pub struct Timing {
    pub connect_timeout: Duration,
    /// For TLS, and then again for the session to begin.
    pub handshake_timeout: Duration,
    /// Between attempts, chosen uniformly.
    pub retry: std::ops::Range<Duration>,
    /// Between attempts after a refusal, which another try will rarely change.
    pub retry_refused: std::ops::Range<Duration>,
    /// The consensus connection is probed after this time without a received byte,
    pub keepalive_interval: Duration,
    /// and lost when the answer takes longer than this.
    pub keepalive_timeout: Duration,
    /// How long sent bytes may stay unacknowledged on any connection (TCP_USER_TIMEOUT).
    pub user_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            handshake_timeout: Duration::from_secs(2),
            retry: Duration::from_millis(100)..Duration::from_millis(300),
            retry_refused: Duration::from_secs(1)..Duration::from_secs(3),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(2),
            user_timeout: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_all_peers_stay_under_the_cap() {
        let limits = Limits::default();
        for peers in [1, 4, 16, 18] {
            let sum: usize = Class::ALL
                .iter()
                .map(|&class| limits.windows(class, peers).connection as usize * peers)
                .sum();
            assert!(sum <= limits.window_bytes, "{peers} peers: {sum}");
        }
        assert_eq!(limits.windows(Class::Bulk, 4).stream, 1 << 20);
    }

    #[test]
    fn connection_window_is_several_stream_windows() {
        for peers in [1, 16, 128, 10_000] {
            for class in Class::ALL {
                let windows = Limits::default().windows(class, peers);
                assert!(windows.connection >= 4 * windows.stream);
                assert!(windows.stream >= 65_535);
            }
        }
    }
}
