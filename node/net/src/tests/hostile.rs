use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use netsplit_core::SecretKey;
use netsplit_proto::peer as wire;
use netsplit_proto::peer::frame::Kind;
use netsplit_proto::peer::peer_client::PeerClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Node, config, keys, pair, until};
use crate::tls::{Tls, server_name};
use crate::{Class, MAX_FRAME_BYTES, NetEvent, handshake};

/// A listener that knows `small`, and its address.
fn listener() -> (Node, SocketAddr) {
    let (small, large) = keys();
    let node = Node::start(config("large", &large, &[("small", small.public(), "127.0.0.1:1".into())]));
    let address = node.handle().local_address();
    (node, address)
}

/// A well-behaved pair still works with the node at `listener`.
async fn a_good_peer_gets_through(listener: &mut Node, address: SocketAddr) {
    let (small, large) = keys();
    let mut dialler = Node::start(config("small", &small, &[("large", large.public(), address.to_string())]));
    dialler.up(large.public()).await;
    listener.up(small.public()).await;
    dialler.handle().send(&large.public(), Class::Consensus, Bytes::from_static(b"ok")).unwrap();
    assert_eq!(listener.frame(Class::Consensus).await.bytes, "ok");
}

/// An HTTP/2 client with a key of its choice, which can then say anything.
async fn client(key: &SecretKey, address: SocketAddr, class: Class) -> PeerClient<Channel> {
    let tls = Tls::new(key).unwrap();
    let connector = tls.connector(&keys().1.public()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect(server_name(class), stream).await.unwrap();
    let mut io = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let io = io.take();
        async move { io.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let channel =
        Endpoint::from_static("http://x").connect_with_connector(connector).await.expect("HTTP/2 is up");
    PeerClient::new(channel)
}

fn data(length: usize) -> wire::Frame {
    wire::Frame { kind: Some(Kind::Data(wire::Data { bytes: Bytes::from(vec![0; length]) })) }
}

fn hello(class: Class) -> wire::Frame {
    let (small, _) = keys();
    handshake::hello(&config("small", &small, &[]), class, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_connections_keep_no_peer_out_for_long() {
    let (mut node, address) = listener();
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(address).await.expect("the kernel accepts"));
    }
    a_good_peer_gets_through(&mut node, address).await;
    // Each silent one is closed by the node, at once or after the handshake time.
    for mut stream in silent {
        let mut byte = [0];
        let closed =
            tokio::time::timeout(super::PATIENCE, stream.read(&mut byte)).await.expect("closed in time");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
}

#[tokio::test]
async fn garbage_is_closed() {
    let (mut node, address) = listener();
    let long = vec![0xff; 100_000];
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &long, b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The node may close before it has read all of it.
        stream.write_all(garbage).await.ok();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(super::PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "still open");
    }
    a_good_peer_gets_through(&mut node, address).await;
}

#[tokio::test]
async fn tls_without_a_session_is_closed() {
    let (mut node, address) = listener();
    let tls = Tls::new(&keys().0).unwrap();
    let connector = tls.connector(&keys().1.public()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect(server_name(Class::Relay), stream).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "still open");
    drop(stream);
    a_good_peer_gets_through(&mut node, address).await;
}

#[tokio::test]
async fn data_before_the_greeting_is_refused() {
    let (_node, address) = listener();
    let mut client = client(&keys().0, address, Class::Consensus).await;
    let mut answers = client.session(tokio_stream::iter([data(10)])).await.unwrap().into_inner();
    match answers.message().await.unwrap().and_then(|frame| frame.kind) {
        Some(Kind::Refusal(refusal)) => assert!(refusal.detail.contains("greeting"), "{refusal:?}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_hears_why() {
    let (_node, address) = listener();
    let stranger = SecretKey::from_seed([77; 32]);
    let mut client = client(&stranger, address, Class::Consensus).await;
    let mut answers =
        client.session(tokio_stream::iter([hello(Class::Consensus)])).await.unwrap().into_inner();
    match answers.message().await.unwrap().and_then(|frame| frame.kind) {
        Some(Kind::Refusal(refusal)) => assert_eq!(refusal.reason(), wire::refusal::Reason::UnknownKey),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_relay_connection_needs_its_session() {
    let (_node, address) = listener();
    let mut client = client(&keys().0, address, Class::Relay).await;
    let mut answers = client.session(tokio_stream::iter([hello(Class::Relay)])).await.unwrap().into_inner();
    match answers.message().await.unwrap().and_then(|frame| frame.kind) {
        Some(Kind::Refusal(refusal)) => assert_eq!(refusal.reason(), wire::refusal::Reason::Duplicate),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn an_oversized_frame_ends_the_session() {
    let (mut node, address) = listener();
    let small = keys().0.public();
    let mut client = client(&keys().0, address, Class::Consensus).await;
    let (sender, frames) = tokio::sync::mpsc::channel(4);
    sender.send(hello(Class::Consensus)).await.unwrap();
    let mut answers = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
    assert!(matches!(answers.message().await.unwrap().unwrap().kind, Some(Kind::Hello(_))));
    node.up(small).await;
    sender.send(data(MAX_FRAME_BYTES + 1)).await.unwrap();
    node.down(small).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_that_nobody_reads_is_held_up_by_flow_control() {
    let (mut node, address) = listener();
    let small = keys().0.public();
    let mut client = client(&keys().0, address, Class::Consensus).await;
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    sender.send(hello(Class::Consensus)).await.unwrap();
    let mut answers = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
    assert!(matches!(answers.message().await.unwrap().unwrap().kind, Some(Kind::Hello(_))));
    node.up(small).await;
    let mut sent = 0_usize;
    let full = Duration::from_millis(500);
    while tokio::time::timeout(full, sender.send(data(128 << 10))).await.is_ok_and(|sent| sent.is_ok()) {
        sent += 128 << 10;
        assert!(sent < 64 << 20, "{sent} bytes taken and not read");
    }
    // The node still holds the session, and reads on when it has time.
    let mut received = 0;
    while received < sent {
        match node.event(Class::Consensus).await {
            NetEvent::Frame(frame) => received += frame.bytes.len(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn many_sessions_of_one_key_leave_one() {
    let (mut node, address) = listener();
    let small = keys().0.public();
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = client(&keys().0, address, Class::Consensus).await;
        let (sender, frames) = tokio::sync::mpsc::channel(1);
        sender.send(hello(Class::Consensus)).await.unwrap();
        let mut answers = client.session(ReceiverStream::new(frames)).await.unwrap().into_inner();
        assert!(matches!(answers.message().await.unwrap().unwrap().kind, Some(Kind::Hello(_))));
        if !held.is_empty() {
            node.down(small).await;
        }
        node.up(small).await;
        held.push((sender, answers, client));
    }
    let open = Arc::new(node.handle());
    until("one session", || open.connected().len() == 1).await;
    let (sender, ..) = held.remove(0);
    until("the first is closed", || sender.is_closed()).await;
}

#[tokio::test]
async fn a_session_survives_garbage_beside_it() {
    let (dialler, mut listener, _, large) = pair().await;
    let address = listener.handle().local_address();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[0xee; 1000]).await.ok();
    }
    dialler.handle().send(&large, Class::Consensus, Bytes::from_static(b"vote")).unwrap();
    assert_eq!(listener.frame(Class::Consensus).await.bytes, "vote");
}
