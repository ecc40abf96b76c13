//! The accepting side: limits before TLS, one HTTP/2 server for each class, the handshake's answer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::Map;
use netsplit_proto::peer as wire;
use netsplit_proto::peer::peer_server::{Peer, PeerServer};
use netsplit_proto::peer::refusal::Reason;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, error, info, warn};

use crate::config::{Limits, NetConfig};
use crate::handshake::{self, HandshakeError};
use crate::io::{Connection, PeerIo};
use crate::queue::Outgoing;
use crate::registry::Registry;
use crate::session::{Running, run_lane};
use crate::tls::{Tls, class_of, key_of};
use crate::{Class, Direction, MAX_FRAME_BYTES};

/// A frame and its protobuf framing.
pub(crate) const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 64;
/// Request headers of one stream; ours are a few hundred bytes.
pub(crate) const MAX_HEADER_BYTES: u32 = 8 << 10;
/// One session a connection; a second stream waits for the end of the first.
const MAX_STREAMS: u32 = 1;
const BACKLOG: u32 = 1024;

/// Binds the configured address.
pub(crate) fn bind(config: &NetConfig) -> io::Result<TcpListener> {
    let socket = if config.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node must get its port back while old connections linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(config.listen)?;
    socket.listen(BACKLOG)
}

/// Settings of every peer socket, whoever opened it.
pub(crate) fn prepare(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let timeout = user_timeout.as_millis() as u32;
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &timeout)?;
    Ok(())
}

pub(crate) fn spawn(registry: &Arc<Registry>, tls: &Arc<Tls>, listener: TcpListener, tracker: &TaskTracker) {
    if let Ok(address) = listener.local_addr() {
        registry.local_address.get_or_init(|| address);
    }
    let mut servers = Vec::with_capacity(3);
    for class in Class::ALL {
        let (connections, incoming) = mpsc::channel(16);
        servers.push(connections);
        let service = PeerService { registry: registry.clone(), tracker: tracker.clone() };
        let service = PeerServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let server = server(registry, class).serve_with_incoming(service, ReceiverStream::new(incoming));
        let stop = registry.stop.clone();
        tracker.spawn(async move {
            tokio::select! {
                result = server => if let Err(source) = result {
                    error!(class = class.name(), %source, "the peer server ended");
                    stop.cancel();
                },
                () = stop.cancelled() => {}
            }
        });
    }
    let door = Arc::new(Door {
        registry: registry.clone(),
        acceptor: tls.acceptor(),
        servers,
        pending: PendingLimit::new(&registry.config.limits),
    });
    tracker.spawn(accept(door, listener, tracker.clone()));
}

fn server(registry: &Registry, class: Class) -> tonic::transport::Server {
    let windows = registry.config.limits.windows(class, registry.max_sessions());
    let timing = &registry.config.timing;
    let keepalive = (class == Class::Consensus).then_some(timing.keepalive_interval);
    tonic::transport::Server::builder()
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(8))
        .http2_keepalive_interval(keepalive)
        .http2_keepalive_timeout(Some(timing.keepalive_timeout))
}

/// What every accepted connection passes through.
struct Door {
    registry: Arc<Registry>,
    acceptor: TlsAcceptor,
    servers: Vec<mpsc::Sender<io::Result<PeerIo>>>,
    pending: Arc<PendingLimit>,
}

async fn accept(door: Arc<Door>, listener: TcpListener, tracker: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.registry.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some(pending) = door.pending.admit(address.ip()) {
                    tracker.spawn(door.clone().greet(stream, address, pending));
                } else {
                    door.stranger(address, "too many connections without a session");
                }
            }
            Err(source) => {
                // Out of file descriptors, most often: give the others a chance to close some.
                if let Some(left_out) = door.registry.lines.take(Instant::now()) {
                    warn!(%source, left_out, "cannot accept a peer connection");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Door {
    fn stranger(&self, address: SocketAddr, reason: &str) {
        if let Some(left_out) = self.registry.lines.take(Instant::now()) {
            info!(%address, reason, left_out, "connection refused");
        }
    }

    async fn greet(self: Arc<Self>, stream: TcpStream, address: SocketAddr, pending: Pending) {
        let timing = &self.registry.config.timing;
        let close = self.registry.stop.child_token();
        let secured = async {
            prepare(&stream, timing.user_timeout)?;
            self.acceptor.accept(stream).await
        };
        let stream = tokio::select! {
            secured = tokio::time::timeout(timing.handshake_timeout, secured) => match secured {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return self.stranger(address, &format!("TLS failed: {error}")),
                Err(_) => return self.stranger(address, "TLS was not finished in time"),
            },
            () = close.cancelled() => return,
        };
        let (_, state) = stream.get_ref();
        let class = state.server_name().and_then(class_of);
        let peer = state.peer_certificates().and_then(|chain| key_of(chain.first()?));
        let (Some(class), Some(peer)) = (class, peer) else {
            return self.stranger(address, "no class of traffic or no key was named");
        };
        let watch = pending.clone();
        let connection = Connection { peer, class, address, close: close.clone(), pending };
        let io = PeerIo::new(stream.into(), close.clone(), Some(connection));
        if self.servers[class as usize].send(Ok(io)).await.is_err() {
            return;
        }
        // A connection that begins no session in time is closed, however busy it keeps itself.
        tokio::select! {
            () = tokio::time::sleep(timing.handshake_timeout) => {}
            () = close.cancelled() => return,
        }
        if !watch.session_began() {
            close.cancel();
        }
    }
}

/// Counts the connections that have no session, by address and in all.
struct PendingLimit {
    max_per_ip: usize,
    max: usize,
    count: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

impl PendingLimit {
    fn new(limits: &Limits) -> Arc<Self> {
        let (max_per_ip, max) = (limits.max_pending_per_ip, limits.max_pending);
        Arc::new(Self { max_per_ip, max, count: Mutex::default() })
    }

    fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Pending> {
        let ip = host(ip);
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_ip) = &mut *count;
        if *all >= self.max || by_ip.get(&ip).copied().unwrap_or(0) >= self.max_per_ip {
            return None;
        }
        *all += 1;
        *by_ip.entry(ip).or_default() += 1;
        Some(Pending(Arc::new(Slot { limit: self.clone(), ip, given_back: AtomicBool::new(false) })))
    }
}

/// One machine usually has a whole /64 of IPv6.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A place among the connections without a session, given back by [`Pending::begin_session`] or the last clone's drop.
#[derive(Clone)]
pub(crate) struct Pending(Arc<Slot>);

struct Slot {
    limit: Arc<PendingLimit>,
    ip: IpAddr,
    given_back: AtomicBool,
}

impl Pending {
    fn begin_session(&self) {
        self.0.give_back();
    }

    fn session_began(&self) -> bool {
        self.0.given_back.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("ip", &self.0.ip).finish_non_exhaustive()
    }
}

impl Slot {
    fn give_back(&self) {
        if self.given_back.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut count = self.limit.count.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_ip) = &mut *count;
        *all = all.saturating_sub(1);
        if let Some(of_ip) = by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_back();
    }
}

type ToResult = fn(wire::Frame) -> Result<wire::Frame, Status>;

struct PeerService {
    registry: Arc<Registry>,
    tracker: TaskTracker,
}

#[async_trait::async_trait]
impl Peer for PeerService {
    type SessionStream = Map<Outgoing, ToResult>;

    async fn session(
        &self,
        request: Request<Streaming<wire::Frame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let connection = request
            .extensions()
            .get::<Option<Connection>>()
            .cloned()
            .flatten()
            .ok_or_else(|| Status::internal("the connection has no identity"))?;
        let outgoing = match self.answer(&connection, request.into_inner()).await {
            Ok(outgoing) => outgoing,
            Err(HandshakeError::Refused { reason, detail }) => {
                self.log_failure(&connection, &format!("refused: {detail}"));
                Outgoing::last(handshake::refusal(reason, &detail))
            }
            Err(error) => {
                self.log_failure(&connection, &error.to_string());
                connection.close.cancel();
                return Err(Status::aborted(error.to_string()));
            }
        };
        Ok(Response::new(outgoing.map(Ok as ToResult)))
    }
}

impl PeerService {
    async fn answer(
        &self,
        connection: &Connection,
        mut stream: Streaming<wire::Frame>,
    ) -> Result<Outgoing, HandshakeError> {
        let registry = &self.registry;
        let Connection { peer, class, address, close, pending } = connection;
        if !registry.is_known(peer) {
            let detail = format!("the key {peer} is not in the list of peers");
            return Err(HandshakeError::refuse(Reason::UnknownKey, detail));
        }
        let hello = handshake::receive(&registry.config, *class, &mut stream).await?;
        debug!(node = hello.node_name, agent = hello.agent, class = class.name(), "greeting");
        if *class == Class::Consensus {
            let (session, former) = registry.begin(peer, hello.nonce, Direction::Inbound, *address)?;
            let running = Running::new(registry.clone(), session.clone());
            if let Some(former) = former {
                former.finished.cancelled().await;
            }
            session.take_lane(*class, close);
            let drain = session.queue(*class).drain().await;
            pending.begin_session();
            self.tracker.spawn(running.run(stream, close.clone()));
            let first = handshake::hello(&registry.config, *class, hello.nonce);
            return Ok(Outgoing::session(first, drain));
        }
        let session = registry
            .session(peer)
            .filter(|session| session.nonce == hello.nonce && session.direction == Direction::Inbound)
            .ok_or_else(|| HandshakeError::refuse(Reason::Duplicate, "no session has this nonce"))?;
        session.take_lane(*class, close);
        let drain = session.queue(*class).drain().await;
        pending.begin_session();
        let (registry, class, close) = (registry.clone(), *class, close.clone());
        let first = handshake::hello(&registry.config, class, hello.nonce);
        self.tracker.spawn(async move {
            let why = run_lane(&registry, &session, class, stream, &close).await;
            debug!(peer = registry.name_of(&session.peer), class = class.name(), why, "connection ended");
        });
        Ok(Outgoing::session(first, drain))
    }

    fn log_failure(&self, connection: &Connection, error: &str) {
        let (peer, address) = (&connection.peer, connection.address);
        let class = connection.class.name();
        if self.registry.is_known(peer) {
            if self.registry.failed(peer, error) {
                warn!(peer = self.registry.name_of(peer), %address, class, reason = error, "no session");
            }
        } else if let Some(left_out) = self.registry.lines.take(Instant::now()) {
            info!(%peer, %address, class, reason = error, left_out, "no session");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Arc<PendingLimit> {
        PendingLimit::new(&Limits { max_pending_per_ip: 2, max_pending: 3, ..Limits::default() })
    }

    #[test]
    fn bounded_by_address_and_in_all() {
        let limit = limit();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = limit.admit(a).unwrap();
        let _second = limit.admit(a).unwrap();
        assert!(limit.admit(a).is_none());
        let _third = limit.admit(b).unwrap();
        assert!(limit.admit(b).is_none());
        first.begin_session();
        assert!(first.session_began());
        assert!(limit.admit(b).is_some());
    }

    #[test]
    fn a_place_is_given_back_once() {
        let limit = limit();
        let ip = IpAddr::from([10, 0, 0, 1]);
        let first = limit.admit(ip).unwrap();
        let _second = limit.admit(ip).unwrap();
        first.begin_session();
        drop(first);
        assert_eq!(limit.count.lock().unwrap().0, 1);
    }

    #[test]
    fn one_ipv6_network_is_one_host() {
        let (a, b) = ("2001:db8::1", "2001:db8::2:0:0:1");
        assert_eq!(host(a.parse().unwrap()), host(b.parse().unwrap()));
        assert_ne!(host(a.parse().unwrap()), host("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(host("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
