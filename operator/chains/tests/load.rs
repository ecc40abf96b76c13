//! The load generator against stand-in nodes. Where time is paused it runs as fast as the work is done, and
//! every wait is exact.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

mod fake;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use fake::{Chain, FakeNode, Link};
use netsplit_chains::netsplit::Netsplit;
use netsplit_chains::{
    Chain as _, ChainArtifacts, ChainClient, LoadConfig, LoadError, LoadGenerator, LoadReport, Wallet,
};
use netsplit_plan::{TestnetPlan, plan_testnet};
use netsplit_spec::{Consensus, Load, NodeGroup, Role, Testnet, Timeouts, Topology};
use tokio::time::{Instant, sleep, timeout};

fn plan(accounts: u32) -> TestnetPlan {
    plan_testnet(&Testnet {
        name: "load".to_owned(),
        seed: Some(1),
        chain: netsplit_spec::Chain::Netsplit,
        consensus: Consensus::Bft { block_time: Duration::from_millis(500), timeouts: Timeouts::default() },
        nodes: vec![NodeGroup {
            name: "validator".to_owned(),
            role: Role::Validator,
            count: 4,
            regions: Vec::new(),
        }],
        topology: Topology::Mesh,
        links: None,
        load: Some(Load { transfers_per_second: 100, accounts }),
        retention: None,
        faults: true,
        storage: None,
        origin: netsplit_spec::Origin::default(),
    })
}

struct Net {
    chain: Arc<Chain>,
    nodes: Vec<Arc<FakeNode>>,
    clients: Vec<Arc<dyn ChainClient>>,
    wallet: Arc<dyn Wallet>,
}

impl Net {
    fn start(nodes: usize, accounts: u32) -> Self {
        let chain = Chain::new();
        let nodes: Vec<_> = (0..nodes).map(|n| FakeNode::start(&format!("validator-{n}"), &chain)).collect();
        let clients = nodes.iter().map(|node| Netsplit.client(node.name(), node.connector())).collect();
        let wallet = Netsplit.wallet(&plan(accounts)).unwrap();
        Self { chain, nodes, clients, wallet }
    }

    fn load(&self, config: LoadConfig) -> LoadGenerator {
        LoadGenerator::start(config, Arc::clone(&self.wallet), self.clients.clone()).unwrap()
    }
}

async fn until(load: &LoadGenerator, what: &str, holds: impl FnMut(&LoadReport) -> bool) {
    let mut live = load.live();
    let waited = timeout(Duration::from_mins(1), live.wait_for(holds)).await.is_ok();
    let report = load.live().borrow().clone();
    assert!(waited, "{what} within a minute: {report:?}");
}

/// Whatever happened, the counts must add up.
fn check_sums(report: &LoadReport) {
    assert_eq!(report.offered, report.submitted + report.dropped_total(), "{report:?}");
    assert_eq!(report.submitted, report.accepted + report.refused_total() + report.unanswered, "{report:?}");
    assert_eq!(report.latency.samples, report.committed, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_its_rate_in_real_time() {
    let net = Net::start(4, 200);
    net.chain.produce(Duration::from_millis(50));
    let report = net.load(LoadConfig::new(1_000).lasting(Duration::from_secs(2))).finish().await;
    check_sums(&report);
    assert_eq!(report.offered, 2_000);
    assert!((1_900..=2_100).contains(&report.submitted), "{report:?}");
    assert_eq!(report.accepted, report.submitted, "{report:?}");
    assert_eq!(report.committed, report.accepted, "{report:?}");
    assert!((1.99..2.1).contains(&report.seconds), "{report:?}");
    assert!((900.0..1_100.0).contains(&report.committed_per_second), "{report:?}");
    assert_eq!(net.chain.committed(), report.committed);
    let latency = &report.latency;
    assert!(latency.p50_ms > 0.0 && latency.p50_ms <= latency.p90_ms && latency.p90_ms <= latency.p99_ms);
    assert!(latency.p99_ms <= latency.max_ms && latency.p50_ms < 1_000.0, "{report:?}");
    // A batch each 10 ms and node, and not a call for each transfer.
    let batches: usize = net.nodes.iter().map(|node| node.submits()).sum();
    assert!(batches <= 850, "{batches}");
}

#[tokio::test(start_paused = true)]
async fn measures_latency_from_submit_to_final() {
    let net = Net::start(1, 50);
    net.chain.produce(Duration::from_millis(400));
    let report = net.load(LoadConfig::new(500).lasting(Duration::from_secs(20))).finish().await;
    check_sums(&report);
    assert_eq!(report.committed, 10_000, "{report:?}");
    // Spread evenly over the 400 ms between two blocks, but for the 10 ms of a tick.
    assert!((190.0..=210.0).contains(&report.latency.p50_ms), "{report:?}");
    assert!((345.0..=365.0).contains(&report.latency.p90_ms), "{report:?}");
    assert!((390.0..=410.0).contains(&report.latency.max_ms), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn continues_where_the_accounts_stand() {
    let net = Net::start(2, 10);
    net.chain.produce(Duration::from_millis(100));
    for run in 1..=3 {
        // Far more than that are in earlier blocks.
        let config = LoadConfig { max_in_flight: 5, ..LoadConfig::new(100) };
        let report = net.load(config.lasting(Duration::from_secs(1))).finish().await;
        check_sums(&report);
        assert_eq!((report.committed, report.refused_total()), (100, 0), "{report:?}");
        assert_eq!(net.chain.committed(), run * 100);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_transfers_are_counted_and_sent_again() {
    let net = Net::start(2, 20);
    net.chain.produce(Duration::from_millis(100));
    // Room for half of what comes between two blocks.
    net.chain.set_capacity(Some(10));
    let load = net.load(LoadConfig::new(200));
    until(&load, "200 refusals", |report| report.refused.get("full").is_some_and(|count| *count >= 200))
        .await;
    net.chain.set_capacity(None);
    let (before, since) = (load.live().borrow().committed, Instant::now());
    until(&load, "1,000 more", |report| report.committed >= before + 1_000).await;
    // At once, and not after a look for what was lost.
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    load.stop();
    let report = load.finish().await;
    check_sums(&report);
    // Nothing that was accepted is lost behind a gap.
    assert_eq!(report.accepted, report.committed, "{report:?}");
    assert_eq!(net.chain.committed(), report.committed);
    // What was taken behind a refused one is sent again with it.
    assert!(report.refused.keys().all(|reason| reason == "full" || reason == "duplicate"), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_waited_for() {
    let net = Net::start(1, 10);
    net.chain.produce(Duration::from_millis(100));
    net.chain.set_capacity(Some(0));
    let start = Instant::now();
    let report = net.load(LoadConfig::new(100).lasting(Duration::from_secs(1))).finish().await;
    check_sums(&report);
    assert_eq!(report.refused.get("full"), Some(&100), "{report:?}");
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
}

async fn survives(link: Link) {
    let net = Net::start(2, 40);
    net.chain.produce(Duration::from_millis(100));
    let load = net.load(LoadConfig::new(200));
    until(&load, "a start", |report| report.committed >= 200).await;
    // The first one is also the one whose stream is followed.
    net.nodes[0].set_link(link);
    until(&load, "drops", |report| report.dropped.get("node unreachable").is_some_and(|n| *n >= 500)).await;
    let meanwhile = load.live().borrow().clone();
    assert!(meanwhile.offered - meanwhile.submitted >= 500);
    // The other node's share goes on all the time.
    assert!(meanwhile.committed >= 500, "{meanwhile:?}");

    net.nodes[0].set_link(Link::Down);
    net.nodes[0].set_link(Link::Up);
    let since = Instant::now();
    let before = net.nodes[0].submits();
    until(&load, "the first node again", |_| net.nodes[0].submits() >= before + 50).await;
    // What was lost with the connection leaves no gap: only two blocks' worth is under way.
    let three = Duration::from_secs(3);
    let no_gap = |report: &LoadReport| since.elapsed() >= three && report.accepted <= report.committed + 40;
    until(&load, "no gap", no_gap).await;
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    load.stop();
    let report = load.finish().await;
    check_sums(&report);
    assert_eq!(net.chain.committed(), report.committed, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanishes_costs_only_its_share() {
    survives(Link::Down).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_costs_only_its_share() {
    survives(Link::Silent).await;
}

#[tokio::test(start_paused = true)]
async fn starts_without_any_node_and_goes_on_when_one_is_there() {
    let net = Net::start(1, 10);
    net.chain.produce(Duration::from_millis(100));
    net.nodes[0].set_link(Link::Down);
    let load = net.load(LoadConfig::new(100));
    until(&load, "drops", |report| report.dropped_total() >= 100).await;
    net.nodes[0].set_link(Link::Up);
    until(&load, "commits", |report| report.committed >= 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_stands_still_bounds_what_is_in_flight() {
    let net = Net::start(2, 10);
    let load = net.load(LoadConfig { max_in_flight: 5, ..LoadConfig::new(100) });
    until(&load, "drops", |report| report.dropped.get("too many in flight").is_some_and(|n| *n >= 1_000))
        .await;
    assert_eq!(load.live().borrow().accepted, 50);
    net.chain.produce(Duration::from_millis(100));
    until(&load, "commits", |report| report.committed >= 500).await;
    load.stop();
    let report = load.finish().await;
    check_sums(&report);
    assert_eq!(report.accepted, report.committed);
}

#[tokio::test(start_paused = true)]
async fn transfers_that_a_node_lost_are_sent_again() {
    let net = Net::start(1, 10);
    let producer = net.chain.produce(Duration::from_millis(100));
    let load = net.load(LoadConfig { max_in_flight: 8, ..LoadConfig::new(100) });
    until(&load, "a start", |report| report.committed >= 100).await;
    producer.abort();
    until(&load, "a full mempool", |report| report.dropped_total() >= 10).await;
    assert_eq!(net.chain.lose_mempool(), 80);
    net.chain.produce(Duration::from_millis(100));
    let before = load.live().borrow().committed;
    until(&load, "commits", |report| report.committed >= before + 500).await;
    load.stop();
    let report = load.finish().await;
    check_sums(&report);
    // The lost ones were accepted twice and committed once.
    assert_eq!(report.accepted, report.committed + 80, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn changing_the_followed_node_misses_no_block() {
    let net = Net::start(3, 30);
    net.chain.produce(Duration::from_millis(100));
    for node in &net.nodes {
        node.break_streams_after(3);
    }
    let report = net.load(LoadConfig::new(300).lasting(Duration::from_secs(5))).finish().await;
    check_sums(&report);
    assert_eq!((report.committed, report.accepted), (1_500, 1_500), "{report:?}");
    let streams: usize = net.nodes.iter().map(|node| node.streams()).sum();
    assert!(streams >= 10, "{streams}");
}

#[tokio::test(start_paused = true)]
async fn stops_when_asked() {
    let net = Net::start(1, 10);
    net.chain.produce(Duration::from_millis(100));
    let load = net.load(LoadConfig::new(100));
    sleep(Duration::from_secs(2)).await;
    load.stop();
    let report = timeout(Duration::from_secs(5), load.finish()).await.expect("a prompt end");
    check_sums(&report);
    assert!((150..=200).contains(&report.committed), "{report:?}");
    let height = net.chain.height();
    let committed = net.chain.committed();
    while net.chain.height() < height + 5 {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(net.chain.committed(), committed);
}

#[tokio::test]
async fn refuses_what_makes_no_sense() {
    let net = Net::start(2, 1);
    let start = |rate, clients| LoadGenerator::start(LoadConfig::new(rate), Arc::clone(&net.wallet), clients);
    let refused = |result: Result<LoadGenerator, LoadError>| result.unwrap_err();
    assert_eq!(refused(start(0, net.clients.clone())), LoadError::Rate { rate: 0 });
    assert_eq!(refused(start(1, vec![])), LoadError::NoNodes);
    assert_eq!(refused(start(1, net.clients.clone())), LoadError::TooFewAccounts { accounts: 1, nodes: 2 });
}

#[test]
fn addresses_do_not_change_who_is_funded() {
    let plan = plan(5);
    let build = |net: u8| {
        let hosts: Vec<_> = (0..4).map(|n| IpAddr::V4(Ipv4Addr::new(10, net, 0, n)).into()).collect();
        Netsplit.build(&plan, &hosts).unwrap()[0].files[0].clone()
    };
    assert_eq!(build(1), build(2));
}
