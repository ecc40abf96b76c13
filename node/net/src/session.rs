//! A session: what the three connections of one peer share, and how each of them is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use netsplit_core::PublicKey;
use netsplit_proto::peer as wire;
use netsplit_proto::peer::frame::Kind;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::info;

use crate::config::Limits;
use crate::queue::SendQueue;
use crate::registry::Registry;
use crate::{Class, Direction, Frame, MAX_FRAME_BYTES, NetEvent};

/// Up to this size a frame is copied out of the receive buffer: a small frame must not keep a large buffer alive.
const COPY_BELOW: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Session {
    pub peer: PublicKey,
    /// Ties the relay and bulk connections to the consensus connection.
    pub nonce: u64,
    pub direction: Direction,
    pub address: SocketAddr,
    /// Cancelled: all three connections end.
    pub closed: CancellationToken,
    /// Cancelled when `PeerDown` has been delivered.
    pub finished: CancellationToken,
    lanes: [Lane; 3],
}

/// One class of a session.
#[derive(Debug)]
struct Lane {
    queue: SendQueue,
    up: AtomicBool,
    /// Ends the connection that serves the lane now.
    connection: Mutex<CancellationToken>,
}

impl Session {
    pub(crate) fn new(
        peer: PublicKey,
        nonce: u64,
        direction: Direction,
        address: SocketAddr,
        limits: &Limits,
        closed: CancellationToken,
    ) -> Self {
        let lane = || Lane {
            queue: SendQueue::new(limits.send_queue_frames, limits.send_queue_bytes),
            up: AtomicBool::new(false),
            connection: Mutex::new(CancellationToken::new()),
        };
        let finished = CancellationToken::new();
        Self { peer, nonce, direction, address, closed, finished, lanes: [lane(), lane(), lane()] }
    }

    pub(crate) fn queue(&self, class: Class) -> &SendQueue {
        &self.lanes[class as usize].queue
    }

    pub(crate) fn classes_up(&self) -> Vec<Class> {
        let up = |class: &Class| self.lanes[*class as usize].up.load(Ordering::Relaxed);
        Class::ALL.into_iter().filter(up).collect()
    }

    /// Makes `close` the token of the lane's connection and ends the former one.
    pub(crate) fn take_lane(&self, class: Class, close: &CancellationToken) {
        let lane = &self.lanes[class as usize];
        let mut current = lane.connection.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, close.clone()).cancel();
    }
}

/// Lives as long as the session: whatever happens to the task that runs it, the registry forgets the session and a
/// successor that waits for its end goes on.
pub(crate) struct Running {
    registry: Arc<Registry>,
    session: Arc<Session>,
}

impl Running {
    pub(crate) fn new(registry: Arc<Registry>, session: Arc<Session>) -> Self {
        Self { registry, session }
    }

    /// Runs the consensus connection and with it the session. Ends when either does.
    pub(crate) async fn run(self, stream: Streaming<wire::Frame>, close: CancellationToken) {
        let (registry, session) = (&self.registry, &self.session);
        let name = registry.name_of(&session.peer);
        info!(peer = name, address = %session.address, direction = session.direction.name(), "peer is up");
        for class in Class::ALL {
            registry.deliver(class, NetEvent::PeerUp(session.peer)).await;
        }
        let why = run_lane(registry, session, Class::Consensus, stream, &close).await;
        session.closed.cancel();
        for class in Class::ALL {
            registry.deliver(class, NetEvent::PeerDown(session.peer)).await;
        }
        info!(peer = name, reason = why, "peer is down");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.registry.end(&self.session);
        self.session.finished.cancel();
    }
}

/// Reads one connection until it or the session ends, then closes the connection. Returns why.
pub(crate) async fn run_lane(
    registry: &Registry,
    session: &Session,
    class: Class,
    stream: Streaming<wire::Frame>,
    close: &CancellationToken,
) -> String {
    let lane = &session.lanes[class as usize];
    lane.up.store(true, Ordering::Relaxed);
    let why = tokio::select! {
        why = read(registry, session.peer, class, stream) => why,
        () = session.closed.cancelled() => "the session was closed".to_owned(),
        () = close.cancelled() => "the connection was closed".to_owned(),
    };
    lane.up.store(false, Ordering::Relaxed);
    close.cancel();
    why
}

async fn read(
    registry: &Registry,
    peer: PublicKey,
    class: Class,
    mut stream: Streaming<wire::Frame>,
) -> String {
    loop {
        let bytes = match stream.message().await {
            Ok(Some(wire::Frame { kind: Some(Kind::Data(data)) })) => data.bytes,
            Ok(Some(wire::Frame { kind: Some(Kind::Refusal(refusal)) })) => {
                return format!("the peer refused: {:.256}", refusal.detail);
            }
            Ok(Some(_)) => return "the peer sent a frame that has no place here".to_owned(),
            Ok(None) => return "the peer ended the session".to_owned(),
            Err(status) => return format!("the connection failed: {:.256}", status.message()),
        };
        if bytes.len() > MAX_FRAME_BYTES {
            return format!("the peer sent a frame of {} bytes, {MAX_FRAME_BYTES} are allowed", bytes.len());
        }
        let Some(permit) = registry.admit(class, bytes.len()).await else {
            return "the node is stopping".to_owned();
        };
        let bytes = if bytes.len() < COPY_BELOW { Bytes::copy_from_slice(&bytes) } else { bytes };
        let frame = Frame { peer, class, bytes, _permit: permit };
        registry.deliver(class, NetEvent::Frame(frame)).await;
    }
}
