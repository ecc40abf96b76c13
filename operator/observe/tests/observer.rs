//! The observer against stand-in nodes at the wire.

#[path = "../../chains/tests/fake/mod.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use fake::{Chain, FakeNode, Link};
use netsplit_chains::Chain as _;
use netsplit_chains::netsplit::Netsplit;
use netsplit_observe::{
    EventCursor, NodeEventKind, NodeView, Observer, ObserverConfig, ProcessState, Watch, now_ms,
};
use netsplit_plan::experiment::{FaultObserved, FinalBlock, NodeObserved};
use tokio::time::timeout;

fn observe(config: ObserverConfig, nodes: &[&Arc<FakeNode>]) -> Observer {
    let clients = nodes
        .iter()
        .map(|node| (node.name().to_owned(), Netsplit.client(node.name(), node.connector())))
        .collect();
    Observer::start_with(config, clients)
}

async fn until(observer: &Observer, what: &str, holds: impl FnMut(&[NodeView]) -> bool) {
    let waited = timeout(Duration::from_mins(1), observer.wait_until(holds)).await;
    assert!(waited.is_ok(), "{what} within a minute: {:#?}", observer.nodes());
}

async fn until_height(observer: &Observer, height: u64) {
    let what = format!("height {height}");
    until(observer, &what, |nodes| nodes.iter().all(|node| node.final_height >= height)).await;
}

fn up(nodes: &[&str]) -> Vec<ProcessState> {
    nodes.iter().map(|node| ProcessState { node: (*node).to_owned(), up: true, restarts: 0 }).collect()
}

fn snapshot(watch: &mut Watch) -> Vec<NodeObserved> {
    watch.snapshot(&up(&["a", "b"]), Vec::new()).nodes
}

fn heights(blocks: &[FinalBlock]) -> Vec<u64> {
    blocks.iter().map(|block| block.height).collect()
}

fn make_blocks(chain: &Chain, salt: u8, count: usize) {
    for _ in 0..count {
        chain.make_block(salt);
    }
}

#[tokio::test(start_paused = true)]
async fn broken_streams_are_resumed_without_gap_or_double() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    node.break_streams_after(3);
    make_blocks(&chain, 0, 20);
    let observer = observe(ObserverConfig::default(), &[&node]);
    let mut watch = observer.watch();
    until_height(&observer, 20).await;
    make_blocks(&chain, 0, 5);
    until_height(&observer, 25).await;
    let nodes = snapshot(&mut watch);
    assert_eq!(heights(&nodes[0].new_blocks), (1..=25).collect::<Vec<_>>());
    assert_eq!((nodes[0].lost_blocks, nodes[0].final_height), (0, 25));
    assert!(node.streams() >= 8, "{}", node.streams());
    // Nothing is reported twice.
    assert_eq!(snapshot(&mut watch)[0].new_blocks, []);
}

#[tokio::test(start_paused = true)]
async fn different_blocks_at_one_height_are_both_reported() {
    let (ours, theirs) = (Chain::new(), Chain::new());
    let (a, b) = (FakeNode::start("a", &ours), FakeNode::start("b", &theirs));
    let observer = observe(ObserverConfig::default(), &[&a, &b]);
    let mut watch = observer.watch();
    make_blocks(&ours, 1, 2);
    make_blocks(&theirs, 2, 2);
    until_height(&observer, 2).await;
    let nodes = snapshot(&mut watch);
    let [a, b] = [0, 1].map(|node| nodes[node].new_blocks[1].clone());
    assert_eq!((a.height, b.height), (2, 2));
    assert_ne!(a.id, b.id);
    assert_eq!((nodes[0].name.as_str(), nodes[1].name.as_str()), ("a", "b"));
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_the_state_after_a_block_as_it_computed_it() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    let observer = observe(ObserverConfig::default(), &[&node]);
    let mut watch = observer.watch();
    make_blocks(&chain, 0, 1);
    until_height(&observer, 1).await;
    assert_eq!(snapshot(&mut watch)[0].new_blocks[0].state_root, None, "it does not know");
    chain.set_executed_root([0xab; 32]);
    make_blocks(&chain, 0, 1);
    until_height(&observer, 2).await;
    assert_eq!(snapshot(&mut watch)[0].new_blocks[0].state_root, Some("ab".repeat(32)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_and_comes_back_is_told_as_such() {
    let chain = Chain::new();
    let (a, b) = (FakeNode::start("a", &chain), FakeNode::start("b", &chain));
    make_blocks(&chain, 0, 1);
    let observer = observe(ObserverConfig::default(), &[&a, &b]);
    let mut watch = observer.watch();
    until_height(&observer, 1).await;
    until(&observer, "both", |nodes| nodes.iter().all(|node| node.following)).await;
    a.set_link(Link::Down);
    until(&observer, "one", |nodes| !nodes[0].following && nodes[1].following).await;
    make_blocks(&chain, 0, 2);
    until(&observer, "height 3 of the other", |nodes| nodes[1].final_height == 3).await;
    until(&observer, "several attempts", |_| a.refused() >= 5).await;

    let nodes = watch.snapshot(&up(&["b"]), Vec::new()).nodes;
    assert_eq!((nodes[0].up, nodes[0].following, nodes[0].final_height), (false, false, 1));
    assert_eq!((nodes[1].up, nodes[1].following, nodes[1].final_height), (true, true, 3));
    assert!(observer.nodes()[0].error.as_ref().is_some_and(|error| error.contains("cannot be reached")));

    a.set_link(Link::Up);
    until_height(&observer, 3).await;
    let nodes = snapshot(&mut watch);
    assert_eq!(heights(&nodes[0].new_blocks), [2, 3]);
    assert_eq!((nodes[0].up, nodes[0].following, nodes[0].lost_blocks), (true, true, 0));
    assert_eq!(observer.nodes()[0].error, None);

    let (events, lost) = observer.events();
    assert_eq!(lost, 0);
    let of_a: Vec<_> = events.iter().filter(|event| event.node == "a").map(|event| &event.kind).collect();
    // However many attempts failed, it went once.
    assert!(
        matches!(
            &of_a[..],
            [
                NodeEventKind::Connected { from: 1 },
                NodeEventKind::Disconnected { .. },
                NodeEventKind::Connected { from: 2 }
            ]
        ),
        "{of_a:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_not_followed_any_more() {
    let chain = Chain::new();
    let (a, b) = (FakeNode::start("a", &chain), FakeNode::start("b", &chain));
    let observer = observe(ObserverConfig::default(), &[&a, &b]);
    make_blocks(&chain, 0, 1);
    until_height(&observer, 1).await;
    a.set_link(Link::Silent);
    until(&observer, "one", |nodes| !nodes[0].following && nodes[1].following).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_counted_for_each_watch() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    let observer = observe(ObserverConfig { blocks_kept: 4, ..ObserverConfig::default() }, &[&node]);
    let mut early = observer.watch();
    make_blocks(&chain, 0, 7);
    until_height(&observer, 7).await;
    let mut late = observer.watch();
    make_blocks(&chain, 0, 3);
    until_height(&observer, 10).await;
    let of_early = snapshot(&mut early).remove(0);
    assert_eq!((heights(&of_early.new_blocks), of_early.lost_blocks), (vec![7, 8, 9, 10], 6));
    let of_late = snapshot(&mut late).remove(0);
    assert_eq!((heights(&of_late.new_blocks), of_late.lost_blocks), (vec![8, 9, 10], 0));
    assert_eq!(snapshot(&mut early)[0].lost_blocks, 0);
}

#[tokio::test(start_paused = true)]
async fn pruned_blocks_are_counted_as_lost() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    make_blocks(&chain, 0, 10);
    chain.prune(6);
    let observer = observe(ObserverConfig::default(), &[&node]);
    let mut watch = observer.watch();
    until_height(&observer, 10).await;
    let seen = snapshot(&mut watch).remove(0);
    assert_eq!((heights(&seen.new_blocks), seen.lost_blocks), (vec![10], 9));
    let (events, _) = observer.events();
    assert!(events.iter().any(|event| event.kind == NodeEventKind::Skipped { from: 1, to: 9 }), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn the_nodes_own_time_of_finality_counts() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    let observer = observe(ObserverConfig::default(), &[&node]);
    let mut watch = observer.watch();
    let before = now_ms();
    make_blocks(&chain, 0, 1);
    until_height(&observer, 1).await;
    // It does not know: the observer's time stands in.
    let unknown = snapshot(&mut watch)[0].new_blocks[0].at_ms;
    assert!((before..=now_ms()).contains(&unknown), "{unknown}");

    chain.set_final_at_ms(before - 5_000);
    make_blocks(&chain, 0, 1);
    until_height(&observer, 2).await;
    assert_eq!(snapshot(&mut watch)[0].new_blocks[0].at_ms, before - 5_000);

    // No block was final after it was reported.
    chain.set_final_at_ms(before + 3_600_000);
    make_blocks(&chain, 0, 1);
    until_height(&observer, 3).await;
    let claimed = snapshot(&mut watch)[0].new_blocks[0].at_ms;
    assert!((before..=now_ms()).contains(&claimed), "{claimed}");
}

#[tokio::test(start_paused = true)]
async fn status_faults_and_processes_are_part_of_a_snapshot() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    make_blocks(&chain, 0, 3);
    let observer = observe(ObserverConfig::default(), &[&node]);
    let mut watch = observer.watch();
    until(&observer, "a status", |nodes| nodes[0].peers == 1 && nodes[0].final_height == 3).await;
    let view = observer.nodes().remove(0);
    assert_eq!((view.height, view.peers_wanted, view.version.as_str()), (4, 2, "test"));

    let fault = FaultObserved { id: "split".to_owned(), proven: true, ..FaultObserved::default() };
    let processes = [ProcessState { node: "a".to_owned(), up: true, restarts: 2 }];
    let observed = watch.snapshot(&processes, vec![fault.clone()]);
    assert_eq!(observed.faults, [fault]);
    assert_eq!((observed.nodes[0].restarts, observed.nodes[0].peers), (2, 1));
    assert_eq!(observed.abort, None);
    assert!(observed.host.lag_max_ms >= observed.host.lag_p99_ms);
}

#[tokio::test(start_paused = true)]
async fn events_are_bounded_and_read_once_each() {
    let chain = Chain::new();
    let node = FakeNode::start("a", &chain);
    node.break_streams_after(1);
    let observer = observe(ObserverConfig { events_kept: 4, ..ObserverConfig::default() }, &[&node]);
    let mut cursor = EventCursor::default();
    make_blocks(&chain, 0, 10);
    until_height(&observer, 10).await;
    let (events, lost) = observer.events_since(&mut cursor);
    assert_eq!(events.len(), 4);
    assert!(lost >= 10, "{lost}");
    assert_eq!(observer.events_since(&mut cursor), (Vec::new(), 0));
}
