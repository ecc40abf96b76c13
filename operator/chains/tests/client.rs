//! The client against a stand-in node at the wire.

mod fake;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fake::{Chain, FakeNode, Link};
use futures::{FutureExt, StreamExt};
use netsplit_chains::netsplit::Netsplit;
use netsplit_chains::{
    BlocksQuery, Chain as _, ChainClient, ClientError, Connector, Health, RefusalKind, StartAt, Submission,
};
use tokio::time::{Instant, sleep, timeout};

fn node() -> (Arc<Chain>, Arc<FakeNode>, Arc<dyn ChainClient>) {
    let chain = Chain::new();
    let node = FakeNode::start("validator-0", &chain);
    let client = Netsplit.client("validator-0", node.connector());
    (chain, node, client)
}

fn from(height: u64) -> BlocksQuery {
    BlocksQuery { from: StartAt::Height(height), transaction_ids: false, state_roots: false }
}

#[tokio::test(start_paused = true)]
async fn asks_everything_over_one_connection() {
    let (chain, node, _) = node();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let inner = node.connector();
    let connector: Connector = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        inner()
    });
    let client = Netsplit.client("validator-0", connector);
    chain.make_block(9);

    let state = client.status().await.unwrap();
    assert_eq!((state.name.as_str(), state.height, state.final_height), ("validator-0", 2, 1));
    assert!(state.final_id.unwrap().to_string().ends_with("090909"));
    let connected: Vec<_> = state.peers.iter().map(|peer| peer.connected).collect();
    assert_eq!(connected, [true, false]);
    assert_eq!(client.health().await.unwrap(), Health::Serving);
    let refused = client.submit(vec![Bytes::from_static(b"nonsense")]).await.unwrap();
    assert!(matches!(&refused[..], [Submission::Refused(why)] if why.kind == RefusalKind::Malformed));
    assert!(matches!(client.next_nonce("nobody").await, Err(ClientError::Refused { .. })));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_from_a_height_and_from_now() {
    let (chain, _node, client) = node();
    for _ in 0..5 {
        chain.make_block(0);
    }
    let mut old = client.blocks(from(3)).await.unwrap();
    let query = BlocksQuery { from: StartAt::Next, transaction_ids: true, state_roots: false };
    let mut new = client.blocks(query).await.unwrap();
    chain.make_block(0);
    for height in 3..=6 {
        let block = old.next().await.unwrap().unwrap();
        assert_eq!((block.height, block.final_at_ms), (height, None));
    }
    assert_eq!(new.next().await.unwrap().unwrap().height, 6);
}

#[tokio::test(start_paused = true)]
async fn a_pruned_height_is_told_apart() {
    let (chain, _node, client) = node();
    for _ in 0..5 {
        chain.make_block(0);
    }
    chain.prune(4);
    assert!(matches!(client.blocks(from(3)).await, Err(ClientError::Pruned { height: 3, .. })));
    assert!(client.blocks(from(4)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_ends_with_one_error() {
    let (chain, node, client) = node();
    chain.make_block(0);
    let mut blocks = client.blocks(from(1)).await.unwrap();
    assert!(blocks.next().await.unwrap().is_ok());
    node.set_link(Link::Down);
    assert!(matches!(blocks.next().await.unwrap(), Err(ClientError::Unreachable { .. })));
    assert!(blocks.next().await.is_none());
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
    node.set_link(Link::Up);
    assert!(client.status().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_noticed_within_its_keepalive() {
    let (chain, node, client) = node();
    chain.make_block(0);
    let mut blocks = client.blocks(from(1)).await.unwrap();
    assert!(blocks.next().await.unwrap().is_ok());
    node.set_link(Link::Silent);
    let before = Instant::now();
    let ended = timeout(Duration::from_secs(10), blocks.next()).await.expect("an end").unwrap();
    assert!(matches!(ended, Err(ClientError::Unreachable { .. })));
    assert!(before.elapsed() <= Duration::from_millis(3_500), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_died_costs_the_next_call_nothing() {
    let (_chain, node, client) = node();
    assert!(client.status().await.is_ok());
    node.set_link(Link::Silent);
    sleep(Duration::from_secs(4)).await;
    // New connections work; the old one stays silent.
    node.set_link(Link::Up);
    let before = Instant::now();
    assert!(client.status().await.is_ok());
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_comes_is_an_error() {
    let connector: Connector = Arc::new(|| std::future::pending().boxed());
    let client = Netsplit.client("validator-0", connector);
    let before = Instant::now();
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
    assert!(before.elapsed() <= Duration::from_millis(1_500), "{:?}", before.elapsed());

    let connector: Connector = Arc::new(|| async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed());
    let error = Netsplit.client("validator-0", connector).status().await.unwrap_err();
    assert_eq!(error.to_string(), "node `validator-0` cannot be reached for status");
}
