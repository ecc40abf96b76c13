//! The dialling side: one task for each peer whose key is larger than ours, for ever.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use netsplit_proto::peer as wire;
use netsplit_proto::peer::peer_client::PeerClient;
use rand::RngExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};
use tracing::{debug, warn};

use crate::config::{NetConfig, StaticPeer};
use crate::handshake::{self, HandshakeError};
use crate::io::PeerIo;
use crate::listen::{MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, prepare};
use crate::queue::{Go, Outgoing};
use crate::registry::Registry;
use crate::session::{Running, Session, run_lane};
use crate::tls::{Tls, server_name};
use crate::{Class, Direction};

/// Why an attempt made no session.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot resolve {0:?}: {1}")]
    Resolve(String, io::Error),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("TLS with {0} failed: {1}")]
    Tls(SocketAddr, io::Error),
    #[error("no HTTP/2 connection: {0}")]
    Http2(String),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the session is closed")]
    Closed,
}

impl DialError {
    /// Another attempt will rarely end differently.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake(error) => error.is_refusal(),
            // A key that is not the expected one; a broken connection has another kind.
            Self::Tls(_, error) => error.kind() == io::ErrorKind::InvalidData,
            _ => false,
        }
    }
}

pub(crate) fn spawn(registry: &Arc<Registry>, tls: &Arc<Tls>, tracker: &TaskTracker) {
    for peer in registry.dialled_peers() {
        let dialler = Dialler {
            registry: registry.clone(),
            tls: tls.clone(),
            peer: peer.clone(),
            tracker: tracker.clone(),
        };
        let stop = registry.stop.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = dialler.run() => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

#[derive(Clone)]
struct Dialler {
    registry: Arc<Registry>,
    tls: Arc<Tls>,
    peer: StaticPeer,
    tracker: TaskTracker,
}

/// A connection whose handshake succeeded on our side; it starts when `go` is told so.
struct Dialled {
    stream: Streaming<wire::Frame>,
    go: oneshot::Sender<Go>,
    address: SocketAddr,
    close: CancellationToken,
    /// The HTTP/2 connection ends with it.
    channel: Channel,
}

impl Dialler {
    async fn run(self) {
        let timing = self.registry.config.timing.clone();
        loop {
            let refused = match self.session().await {
                Ok(()) => false,
                Err(error) => {
                    let text = error.to_string();
                    if self.registry.failed(&self.peer.key, &text) {
                        warn!(
                            peer = self.peer.name,
                            address = self.peer.address,
                            reason = text,
                            "no session"
                        );
                    }
                    error.is_refusal()
                }
            };
            self.pause(if refused { &timing.retry_refused } else { &timing.retry }).await;
        }
    }

    async fn pause(&self, range: &Range<Duration>) {
        let span = range.end.saturating_sub(range.start);
        let share: f64 = self.registry.random(RngExt::random);
        tokio::time::sleep(range.start + span.mul_f64(share)).await;
    }

    /// One session from the first connection to the loss of it.
    async fn session(&self) -> Result<(), DialError> {
        let nonce = self.registry.nonce();
        let dialled = self.dial(Class::Consensus, nonce).await?;
        let begun = self.registry.begin(&self.peer.key, nonce, Direction::Outbound, dialled.address);
        let (session, former) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                refuse(dialled.go, &error);
                return Err(error.into());
            }
        };
        let running = Running::new(self.registry.clone(), session.clone());
        if let Some(former) = former {
            former.finished.cancelled().await;
        }
        session.take_lane(Class::Consensus, &dialled.close);
        let drain = session.queue(Class::Consensus).drain().await;
        dialled.go.send(Go::Session(drain)).map_err(|_| DialError::Closed)?;
        for class in [Class::Relay, Class::Bulk] {
            self.tracker.spawn(self.clone().lane(session.clone(), class));
        }
        // Its own task: it must deliver `PeerDown` even when this one is stopped.
        let run = self.tracker.spawn(running.run(dialled.stream, dialled.close));
        if let Err(error) = run.await {
            warn!(peer = self.peer.name, %error, "the session's task failed");
        }
        drop(dialled.channel);
        Ok(())
    }

    /// Keeps one further connection of the session up.
    async fn lane(self, session: Arc<Session>, class: Class) {
        while !session.closed.is_cancelled() {
            let attempt = async {
                let dialled = self.dial(class, session.nonce).await?;
                session.take_lane(class, &dialled.close);
                let drain = session.queue(class).drain().await;
                dialled.go.send(Go::Session(drain)).map_err(|_| DialError::Closed)?;
                let why = run_lane(&self.registry, &session, class, dialled.stream, &dialled.close).await;
                drop(dialled.channel);
                Ok::<_, DialError>(why)
            };
            let why = tokio::select! {
                ended = attempt => ended.unwrap_or_else(|error| error.to_string()),
                () = session.closed.cancelled() => return,
            };
            debug!(peer = self.peer.name, class = class.name(), why, "connection ended");
            tokio::select! {
                () = self.pause(&self.registry.config.timing.retry) => {}
                () = session.closed.cancelled() => return,
            }
        }
    }

    /// Connects, secures and greets.
    async fn dial(&self, class: Class, nonce: u64) -> Result<Dialled, DialError> {
        let config = &self.registry.config;
        let (tcp, address) = connect(config, &self.peer.address).await?;
        let close = self.registry.stop.child_token();
        let io = self.secure(tcp, address, class, &close).await?;
        let channel = self.http2(io, class).await?;
        let (go, decided) = oneshot::channel();
        let outgoing = Outgoing::greeting(handshake::hello(config, class, nonce), decided);
        let mut client = PeerClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let wait = config.timing.handshake_timeout;
        let mut stream = tokio::time::timeout(wait, client.session(outgoing))
            .await
            .map_err(|_| HandshakeError::Timeout(wait))?
            .map_err(|status| HandshakeError::Stream(format!("{:.256}", status.message())))?
            .into_inner();
        match handshake::receive(config, class, &mut stream).await {
            Ok(hello) => {
                debug!(node = hello.node_name, agent = hello.agent, class = class.name(), "greeting");
                Ok(Dialled { stream, go, address, close, channel })
            }
            Err(error) => {
                refuse(go, &error);
                if matches!(error, HandshakeError::Refused { .. }) {
                    // The peer ends the stream when it has read the reason; dropping it now would overtake that.
                    tokio::time::timeout(wait, stream.message()).await.ok();
                }
                Err(error.into())
            }
        }
    }

    async fn secure(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        class: Class,
        close: &CancellationToken,
    ) -> Result<PeerIo, DialError> {
        let invalid = |error: rustls::Error| {
            DialError::Tls(address, io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        let connector: TlsConnector = self.tls.connector(&self.peer.key).map_err(invalid)?;
        let wait = self.registry.config.timing.handshake_timeout;
        let stream = tokio::time::timeout(wait, connector.connect(server_name(class), tcp))
            .await
            .map_err(|_| DialError::Tls(address, io::ErrorKind::TimedOut.into()))?
            .map_err(|error| DialError::Tls(address, error))?;
        Ok(PeerIo::new(stream.into(), close.clone(), None))
    }

    async fn http2(&self, io: PeerIo, class: Class) -> Result<Channel, DialError> {
        let config = &self.registry.config;
        let windows = config.limits.windows(class, self.registry.max_sessions());
        let mut endpoint = Endpoint::from_static("http://netsplit.peer")
            .initial_stream_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .buffer_size(4_usize);
        if class == Class::Consensus {
            endpoint = endpoint
                .http2_keep_alive_interval(config.timing.keepalive_interval)
                .keep_alive_timeout(config.timing.keepalive_timeout)
                .keep_alive_while_idle(true);
        }
        // One connection, made already: when it is lost the whole attempt starts again.
        let mut io = Some(io);
        let connector = tower::service_fn(move |_: Uri| {
            let io = io.take().map(TokioIo::new);
            async move { io.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| DialError::Http2(chain(&error)))
    }
}

/// Tells the peer why we end this, as far as it is us who end it.
fn refuse(go: oneshot::Sender<Go>, error: &HandshakeError) {
    if let HandshakeError::Refused { reason, detail } = error {
        // A failed send means that the stream is gone, and with it the reader of the reason.
        go.send(Go::Refuse(handshake::refusal(*reason, detail))).ok();
    }
}

async fn connect(config: &NetConfig, target: &str) -> Result<(TcpStream, SocketAddr), DialError> {
    let resolve = |error| DialError::Resolve(target.to_owned(), error);
    let wait = config.timing.connect_timeout;
    let addresses: Vec<_> = match target.parse::<SocketAddr>() {
        Ok(address) => vec![address],
        Err(_) => tokio::time::timeout(wait, tokio::net::lookup_host(target))
            .await
            .map_err(|_| resolve(io::ErrorKind::TimedOut.into()))?
            .map_err(resolve)?
            .collect(),
    };
    let mut last = resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        match tokio::time::timeout(wait, connect_to(config, address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = DialError::Connect(address, error),
            Err(_) => last = DialError::Connect(address, io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

async fn connect_to(config: &NetConfig, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let own = config.listen.ip();
    if !own.is_unspecified() && own.is_ipv4() == address.is_ipv4() {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    let stream = socket.connect(address).await?;
    prepare(&stream, config.timing.user_timeout)?;
    Ok(stream)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if write!(text, ": {error}").is_err() {
            break;
        }
        source = error.source();
    }
    text
}
