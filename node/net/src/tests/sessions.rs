use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netsplit_core::{Hash, SecretKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Node, config, keys, pair, pair_with, until};
use crate::{Class, Direction, MAX_FRAME_BYTES, NetEvent, SendError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_class_arrive_in_order_both_ways() {
    let (mut dialler, mut listener, small, large) = pair().await;
    for class in Class::ALL {
        for number in 0..50_u32 {
            let bytes = Bytes::from(vec![number as u8; (number as usize + 1) * 1000]);
            dialler.handle().send(&large, class, bytes.clone()).unwrap();
            listener.handle().send(&small, class, bytes).unwrap();
        }
        for number in 0..50_u8 {
            let frame = listener.frame(class).await;
            assert_eq!((frame.peer, frame.class, frame.bytes[0]), (small, class, number));
            let frame = dialler.frame(class).await;
            assert_eq!((frame.peer, frame.bytes.len()), (large, (number as usize + 1) * 1000));
        }
    }
    let status = dialler.handle().peers().remove(0);
    assert_eq!(status.direction, Some(Direction::Outbound));
    assert_eq!(status.classes, Class::ALL);
    assert_eq!(status.last_error, None);
    assert_eq!(listener.handle().peers()[0].direction, Some(Direction::Inbound));
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let (dialler, mut listener, _, large) = pair().await;
    dialler.handle().send(&large, Class::Bulk, Bytes::from(vec![1; MAX_FRAME_BYTES])).unwrap();
    assert_eq!(listener.frame(Class::Bulk).await.bytes.len(), MAX_FRAME_BYTES);
}

#[tokio::test]
async fn a_peer_of_another_genesis_is_refused_and_both_know_why() {
    let (small, large) = keys();
    let listener = Node::start(config("large", &large, &[("small", small.public(), "127.0.0.1:1".into())]));
    let mut other = config("small", &small, &[("large", large.public(), listener.address())]);
    other.chain_id = Hash::from_bytes([4; 32]);
    let dialler = Node::start(other);
    for node in [&dialler, &listener] {
        let handle = node.handle();
        until("the reason", || {
            handle.peers()[0].last_error.as_ref().is_some_and(|error| error.contains("another genesis"))
        })
        .await;
        assert!(handle.connected().is_empty());
    }
}

#[tokio::test]
async fn an_unlisted_key_is_refused_with_a_reason() {
    let (small, large) = keys();
    let listener = Node::start(config("large", &large, &[]));
    let dialler = Node::start(config("small", &small, &[("large", large.public(), listener.address())]));
    let handle = dialler.handle();
    until("the reason", || {
        handle.peers()[0].last_error.as_ref().is_some_and(|error| error.contains("not in the list of peers"))
    })
    .await;
}

#[tokio::test]
async fn a_listener_with_another_key_is_refused() {
    let (small, large) = keys();
    let listener = Node::start(config("large", &large, &[("small", small.public(), "127.0.0.1:1".into())]));
    // Both candidates are larger than the dialler's key, so that it dials.
    let expected = (10..255)
        .map(|seed| SecretKey::from_seed([seed; 32]).public())
        .find(|key| *key > small.public())
        .expect("some key is larger");
    let dialler = Node::start(config("small", &small, &[("large", expected, listener.address())]));
    let handle = dialler.handle();
    until("the reason", || {
        handle.peers()[0].last_error.as_ref().is_some_and(|error| error.contains("the peer has the key"))
    })
    .await;
    assert!(listener.handle().connected().is_empty());
}

#[tokio::test]
async fn the_session_returns_after_the_listener_vanished() {
    let (mut dialler, listener, small, large) = pair().await;
    let address = listener.handle().local_address();
    listener.net.stop().await;
    dialler.down(large).await;
    assert_eq!(dialler.handle().send(&large, Class::Relay, Bytes::new()), Err(SendError::NotConnected));
    let mut again = config("large", &keys().1, &[("small", small, "127.0.0.1:1".into())]);
    again.listen = address;
    let started = Instant::now();
    let mut listener = Node::start(again);
    listener.up(small).await;
    dialler.up(large).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    dialler.handle().send(&large, Class::Consensus, Bytes::from_static(b"back")).unwrap();
    assert_eq!(listener.frame(Class::Consensus).await.bytes, "back");
    listener.all_classes_up(small).await;
}

#[tokio::test]
async fn a_restarted_dialler_replaces_its_former_session() {
    let (dialler, mut listener, small, large) = pair().await;
    let address = listener.address();
    // The former process is still there, silent: as after a crash that nobody has noticed.
    let mut again = config("small", &keys().0, &[("large", large, address)]);
    again.seed = 8;
    let mut second = Node::start(again);
    listener.down(small).await;
    listener.up(small).await;
    second.up(large).await;
    second.net.stop().await;
    dialler.net.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_one_class_holds_up_no_other() {
    let small_queues = |config: &mut crate::NetConfig| {
        config.limits.inbound_frames = 4;
        config.limits.send_queue_bytes = 1 << 20;
    };
    let (dialler, mut listener, _, large) = pair_with(small_queues, small_queues).await;
    let handle = dialler.handle();
    let mut sent = 0_usize;
    let deadline = Instant::now() + super::PATIENCE;
    // Nobody reads the relay class: windows and queues fill, then the sender is told.
    let full = loop {
        match handle.send(&large, Class::Relay, Bytes::from(vec![0; 64 << 10])) {
            Ok(()) => sent += 64 << 10,
            Err(error) => {
                // The queue may only be ahead of the socket: full for a while means that nothing flows.
                tokio::time::sleep(Duration::from_millis(200)).await;
                if handle.send(&large, Class::Relay, Bytes::from(vec![0; 64 << 10])).is_err() {
                    break error;
                }
                sent += 64 << 10;
            }
        }
        assert!(Instant::now() < deadline, "{sent} bytes and no end");
    };
    assert_eq!(full, SendError::QueueFull);
    // Sender's queue, one stream window, the receiver's queue, socket buffers.
    assert!(sent < 32 << 20, "{sent} bytes are held somewhere");
    handle.send(&large, Class::Consensus, Bytes::from_static(b"vote")).unwrap();
    assert_eq!(listener.frame(Class::Consensus).await.bytes, "vote");
    handle.send(&large, Class::Bulk, Bytes::from_static(b"block")).unwrap();
    assert_eq!(listener.frame(Class::Bulk).await.bytes, "block");
}

#[tokio::test]
async fn a_frame_counts_until_it_is_dropped() {
    let bounded = |config: &mut crate::NetConfig| config.limits.inbound_bytes = MAX_FRAME_BYTES;
    let (dialler, mut listener, _, large) = pair_with(|_| {}, bounded).await;
    for _ in 0..2 {
        dialler.handle().send(&large, Class::Bulk, Bytes::from(vec![0; MAX_FRAME_BYTES])).unwrap();
    }
    let held = listener.frame(Class::Bulk).await;
    let second = tokio::time::timeout(Duration::from_millis(300), listener.inbound.bulk.recv()).await;
    assert!(second.is_err(), "{second:?} came although the first is still held");
    drop(held);
    assert!(matches!(listener.event(Class::Bulk).await, NetEvent::Frame(_)));
}

/// Forwards connections to `target`; while `frozen` nothing moves, as behind a cut link.
async fn link(target: SocketAddr, frozen: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(target).await else { continue };
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(forward(near_read, far_write, frozen.clone()));
            tokio::spawn(forward(far_read, near_write, frozen.clone()));
        }
    });
    address
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frozen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await
        && length > 0
    {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_link_is_noticed_by_both_and_the_session_returns_after_it_heals() {
    let (small, large) = keys();
    let mut listener =
        Node::start(config("large", &large, &[("small", small.public(), "127.0.0.1:1".into())]));
    let (freeze, frozen) = watch::channel(false);
    let link = link(listener.handle().local_address(), frozen).await;
    let mut dialler = Node::start(config("small", &small, &[("large", large.public(), link.to_string())]));
    listener.up(small.public()).await;
    dialler.up(large.public()).await;
    freeze.send(true).unwrap();
    let cut = Instant::now();
    dialler.down(large.public()).await;
    listener.down(small.public()).await;
    // Interval 1 s and timeout 2 s.
    assert!(cut.elapsed() < Duration::from_secs(5), "noticed after {:?}", cut.elapsed());
    freeze.send(false).unwrap();
    let healed = Instant::now();
    dialler.up(large.public()).await;
    listener.up(small.public()).await;
    assert!(healed.elapsed() < Duration::from_secs(2), "back after {:?}", healed.elapsed());
    dialler.handle().send(&large.public(), Class::Consensus, Bytes::from_static(b"vote")).unwrap();
    assert_eq!(listener.frame(Class::Consensus).await.bytes, "vote");
}
