//! CometBFT: what is made of a plan, byte for byte, and the client against answers of a stand-in at the wire.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

mod golden;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use netsplit_chains::cometbft::Cometbft;
use netsplit_chains::{
    ArtifactsError, BlocksQuery, Chain as _, ChainArtifacts as _, ChainClient, ClientError, Connector,
    Health, NodeArtifacts, RefusalKind, StartAt, Submission,
};
use netsplit_plan::{TestnetPlan, plan_testnet};
use netsplit_spec::{Chain, Role, Testnet, Topology};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex,
};
use tokio::time::{Instant, timeout};

use self::golden::{hosts, text};

fn plan(validators: u32, full: u32, topology: Topology, seed: u64) -> TestnetPlan {
    let testnet = golden::testnet(Chain::Cometbft {}, validators, full, topology);
    plan_testnet(&Testnet { seed: Some(seed), ..testnet })
}

fn build(plan: &TestnetPlan) -> Vec<NodeArtifacts> {
    Cometbft.build(plan, &hosts(plan)).unwrap()
}

#[test]
fn two_validators_and_a_full_node() {
    let mut out = String::new();
    for node in build(&plan(2, 1, Topology::Mesh, 7)) {
        let environment: Vec<String> =
            node.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(out, "##### {}: {} {}", node.node, environment.join(" "), node.command.join(" ")).unwrap();
        for file in &node.files {
            let shown = match file.path.to_str().unwrap() {
                "config/genesis.json" if node.node != "validator-0" => "(as above)\n",
                path => text(&node, path),
            };
            write!(out, "=== {} {:04o}\n{shown}", file.path.display(), file.mode).unwrap();
        }
    }
    insta::assert_snapshot!(out);
}

#[test]
fn neighbours_are_those_of_the_topology_and_the_genesis_names_the_validators() {
    for topology in [Topology::Mesh, Topology::Ring, Topology::Star] {
        let plan = plan(4, 1, topology, 7);
        let built = build(&plan);
        let genesis: BTreeSet<_> = built.iter().map(|node| text(node, "config/genesis.json")).collect();
        assert_eq!(genesis.len(), 1);
        let genesis: Value = serde_json::from_str(genesis.first().unwrap()).unwrap();
        for (planned, node) in plan.nodes.iter().zip(&built) {
            let config: toml::Table = text(node, "config/config.toml").parse().unwrap();
            let peers = config["p2p"]["persistent_peers"].as_str().unwrap();
            let at: Vec<_> =
                peers.split(',').map(|peer| peer.split_once('@').unwrap().1.to_owned()).collect();
            let expected: Vec<_> =
                planned.peers.iter().map(|peer| format!("10.77.0.{}:26600", peer + 1)).collect();
            assert_eq!(at, expected, "{topology:?} {}", node.node);

            let key: Value = serde_json::from_str(text(node, "config/priv_validator_key.json")).unwrap();
            let listed =
                genesis["validators"].as_array().unwrap().iter().find(|v| v["name"] == planned.name.as_str());
            assert_eq!(listed.is_some(), planned.role == Role::Validator);
            if let Some(listed) = listed {
                assert_eq!((&listed["address"], &listed["pub_key"]), (&key["address"], &key["pub_key"]));
            }
        }
    }
}

#[test]
fn keys_are_for_their_owner_only_and_hang_on_seed_and_name() {
    let small = build(&plan(2, 1, Topology::Mesh, 7));
    let large = build(&plan(4, 1, Topology::Mesh, 7));
    let other = build(&plan(2, 1, Topology::Mesh, 8));
    for node in &small {
        let of = |built: &[NodeArtifacts], path: &str| {
            text(built.iter().find(|candidate| candidate.node == node.node).unwrap(), path).to_owned()
        };
        for path in ["config/node_key.json", "config/priv_validator_key.json"] {
            assert_eq!(node.files.iter().find(|file| file.path == Path::new(path)).unwrap().mode, 0o600);
            assert_eq!(text(node, path), of(&large, path));
            assert_ne!(text(node, path), of(&other, path));
        }
    }
}

#[test]
fn a_wrong_number_of_hosts_and_a_chain_without_validators_are_refused() {
    let all = plan(2, 1, Topology::Mesh, 7);
    assert!(matches!(Cometbft.build(&all, &hosts(&all)[1..]), Err(ArtifactsError::Hosts { .. })));
    let none = plan(0, 2, Topology::Mesh, 7);
    assert!(matches!(Cometbft.build(&none, &hosts(&none)), Err(ArtifactsError::NoValidator { .. })));
}

#[test]
fn writes_are_of_an_account_and_its_nonce() {
    let wallet = Cometbft.wallet(&plan(2, 1, Topology::Mesh, 7)).unwrap();
    assert_eq!((wallet.accounts(), wallet.address(2), wallet.is_checked()), (3, "account-2", false));
    let transfer = wallet.transfer(0, 0);
    assert_eq!(transfer.bytes, "account-0=0");
    // What a node of CometBFT has called it.
    assert_eq!(transfer.id.to_string(), "63650fd0e569df7cf518659fb5f70c9648ea520fbe4d0094d29446f7f7aa2552");
}

/// Answers as a node with so many blocks would. Each block holds one transaction, `account-0=HEIGHT`.
#[derive(Default)]
struct Stand {
    height: AtomicU64,
    earliest: AtomicU64,
    /// So many of the newest blocks have no results.
    unexecuted: AtomicU64,
    silent: AtomicBool,
    calls: Mutex<Vec<String>>,
}

impl Stand {
    fn start(height: u64) -> (Arc<Self>, Arc<dyn ChainClient>) {
        let stand = Arc::new(Self { height: height.into(), earliest: 1.into(), ..Self::default() });
        let served = Arc::clone(&stand);
        let connector: Connector = Arc::new(move || {
            let (ours, theirs) = duplex(1 << 16);
            tokio::spawn(Arc::clone(&served).serve(theirs));
            async move { Ok(Box::new(ours) as Box<dyn netsplit_chains::Io>) }.boxed()
        });
        (stand, Cometbft.client("validator-0", connector))
    }

    /// Requests over one connection, until it is closed.
    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        let mut stream = BufReader::new(stream);
        while let Some(body) = request(&mut stream).await {
            if self.silent.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let calls: Vec<Value> = serde_json::from_slice(&body).unwrap();
            let mut answers: Vec<Value> = calls.iter().map(|call| self.answer(call)).collect();
            let body = if answers.len() == 1 { answers.remove(0) } else { Value::Array(answers) }.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, call: &Value) -> Value {
        let method = call["method"].as_str().unwrap();
        self.calls.lock().unwrap().push(method.to_owned());
        let result = self.result(method, &call["params"]);
        let (field, value) = match result {
            Ok(value) => ("result", value),
            Err(data) => ("error", json!({ "code": -32603, "message": "Internal error", "data": data })),
        };
        json!({ "jsonrpc": "2.0", "id": call["id"], field: value })
    }

    fn result(&self, method: &str, params: &Value) -> Result<Value, &'static str> {
        let (height, earliest) = (self.height.load(Ordering::Relaxed), self.earliest.load(Ordering::Relaxed));
        let hash = |height: u64| if height == 0 { String::new() } else { format!("{height:064X}") };
        let number = |name: &str| params[name].as_str().unwrap().parse::<u64>().unwrap();
        let info = json!({ "id": "0f", "moniker": "validator-0", "version": "0.40.0" });
        Ok(match method {
            "status" => json!({ "node_info": info, "sync_info": {
                "latest_block_hash": hash(height), "latest_block_height": height.to_string(),
                "earliest_block_height": earliest.to_string(), "catching_up": false,
            } }),
            "net_info" => {
                json!({ "peers": [{ "node_info": { "id": "1e", "moniker": "full-0", "version": "0.40.0" } }] })
            }
            "num_unconfirmed_txs" => json!({ "total": "3" }),
            "blockchain" => {
                let first = number("minHeight").max(earliest);
                let last = number("maxHeight").min(height);
                let meta = |height: u64| {
                    json!({
                        "block_id": { "hash": hash(height) }, "num_txs": "1",
                        "header": { "height": height.to_string(), "time": "2026-11-29T01:20:00.5Z" },
                    })
                };
                if first > last {
                    return Err("min height can't be greater than max height");
                }
                json!({ "block_metas": (first..=last).rev().map(meta).collect::<Vec<_>>() })
            }
            "block_results" => {
                if number("height") > height - self.unexecuted.load(Ordering::Relaxed) {
                    return Err("could not find results for height");
                }
                json!({ "height": params["height"], "app_hash": STANDARD.encode(number("height").to_be_bytes()) })
            }
            "block" => {
                let transaction = STANDARD.encode(format!("account-0={}", number("height")));
                json!({ "block": { "data": { "txs": [transaction] } } })
            }
            "broadcast_tx_sync" if params["tx"] == STANDARD.encode("known=1") => {
                return Err("tx already exists in cache");
            }
            "broadcast_tx_sync" => json!({ "code": 0, "log": "", "hash": hash(1) }),
            _ => return Err("unknown method"),
        })
    }
}

/// The body of the next request.
async fn request(stream: &mut BufReader<DuplexStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

fn from(height: u64) -> BlocksQuery {
    BlocksQuery { from: StartAt::Height(height), transaction_ids: false, state_roots: false }
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_its_state() {
    let (stand, client) = Stand::start(7);
    let state = client.status().await.unwrap();
    assert_eq!(
        (state.name.as_str(), state.height, state.final_height, state.mempool),
        ("validator-0", 8, 7, 3)
    );
    assert!(state.final_id.unwrap().to_string().ends_with("07"));
    assert_eq!((state.peers.len(), state.peers[0].name.as_str()), (1, "full-0"));
    assert_eq!(client.health().await.unwrap(), Health::Serving);
    stand.height.store(0, Ordering::Relaxed);
    assert_eq!(client.status().await.unwrap().final_id, None);
}

#[tokio::test(start_paused = true)]
async fn blocks_are_streamed_from_a_height_over_many_answers_and_then_as_they_come() {
    let (stand, client) = Stand::start(50);
    let mut blocks = client.blocks(from(3)).await.unwrap();
    for height in 3..=50 {
        let block = blocks.next().await.unwrap().unwrap();
        assert_eq!((block.height, block.final_at_ms), (height, None));
    }
    assert!(timeout(Duration::from_secs(1), blocks.next()).await.is_err(), "there is no block 51");
    stand.height.store(51, Ordering::Relaxed);
    let before = Instant::now();
    assert_eq!(blocks.next().await.unwrap().unwrap().height, 51);
    assert!(before.elapsed() <= Duration::from_millis(60), "{:?}", before.elapsed());
}

/// A block is stored before it is executed.
#[tokio::test(start_paused = true)]
async fn a_block_comes_with_the_state_that_it_led_to() {
    let (stand, client) = Stand::start(3);
    stand.unexecuted.store(1, Ordering::Relaxed);
    let query = BlocksQuery { state_roots: true, ..from(1) };
    let mut blocks = client.blocks(query).await.unwrap();
    let root = |height: u64| Some(STANDARD.encode(height.to_be_bytes()).into());
    for height in 1..=2 {
        assert_eq!(blocks.next().await.unwrap().unwrap().state_root, root(height));
    }
    assert!(timeout(Duration::from_millis(500), blocks.next()).await.is_err(), "block 3 is not executed yet");
    stand.unexecuted.store(0, Ordering::Relaxed);
    let third = blocks.next().await.unwrap().unwrap();
    assert_eq!((third.height, third.state_root), (3, root(3)));
    // A node that keeps no results tells its blocks all the same: the first one late.
    stand.unexecuted.store(2, Ordering::Relaxed);
    stand.height.store(4, Ordering::Relaxed);
    let fourth = timeout(Duration::from_secs(6), blocks.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((fourth.height, fourth.state_root), (4, None));
    stand.height.store(5, Ordering::Relaxed);
    let fifth = timeout(Duration::from_millis(60), blocks.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((fifth.height, fifth.state_root), (5, None));
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_begin_before_the_first_block_and_above_the_newest() {
    for (height, begin) in [(0, 1), (2, 9)] {
        let (stand, client) = Stand::start(height);
        let mut blocks = client.blocks(from(begin)).await.unwrap();
        assert!(timeout(Duration::from_secs(1), blocks.next()).await.is_err());
        stand.height.store(10, Ordering::Relaxed);
        assert_eq!(blocks.next().await.unwrap().unwrap().height, begin);
    }
    let (stand, client) = Stand::start(4);
    let query = BlocksQuery { from: StartAt::Next, transaction_ids: true, state_roots: false };
    let mut blocks = client.blocks(query).await.unwrap();
    stand.height.store(5, Ordering::Relaxed);
    let block = blocks.next().await.unwrap().unwrap();
    let wallet = Cometbft.wallet(&plan(1, 0, Topology::Mesh, 7)).unwrap();
    assert_eq!((block.height, block.transaction_ids), (5, vec![wallet.transfer(0, 5).id]));
}

#[tokio::test(start_paused = true)]
async fn pruned_heights_are_told_apart_when_a_stream_opens_and_later() {
    let (stand, client) = Stand::start(50);
    stand.earliest.store(30, Ordering::Relaxed);
    assert!(matches!(client.blocks(from(29)).await, Err(ClientError::Pruned { height: 29, .. })));
    let mut blocks = client.blocks(from(30)).await.unwrap();
    assert_eq!(blocks.next().await.unwrap().unwrap().height, 30);
    while blocks.next().now_or_never().flatten().is_some() {}
    stand.height.store(90, Ordering::Relaxed);
    stand.earliest.store(80, Ordering::Relaxed);
    let ended = loop {
        match blocks.next().await.unwrap() {
            Ok(block) => assert!(block.height <= 50, "{}", block.height),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, ClientError::Pruned { .. } | ClientError::Refused { .. }), "{ended}");
    assert!(blocks.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_an_error_and_no_wait() {
    let (stand, client) = Stand::start(3);
    let mut blocks = client.blocks(from(1)).await.unwrap();
    assert_eq!(blocks.next().await.unwrap().unwrap().height, 1);
    stand.silent.store(true, Ordering::Relaxed);
    let before = Instant::now();
    while let Some(Ok(_)) = blocks.next().await {}
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
    assert!(before.elapsed() <= Duration::from_secs(11), "{:?}", before.elapsed());
    stand.silent.store(false, Ordering::Relaxed);
    assert!(client.status().await.is_ok(), "a new connection is made");

    let connector: Connector = Arc::new(|| std::future::pending().boxed());
    let before = Instant::now();
    let ended = Cometbft.client("validator-0", connector).status().await;
    assert!(matches!(ended, Err(ClientError::Unreachable { .. })));
    assert!(before.elapsed() <= Duration::from_millis(1_500), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn transactions_go_in_one_request_with_one_answer_each() {
    let (stand, client) = Stand::start(3);
    let transactions = ["new=1", "known=1", "new=2"].map(|text| Bytes::from_static(text.as_bytes()));
    let answers = client.submit(transactions.to_vec()).await.unwrap();
    assert!(matches!(
        &answers[..],
        [Submission::Accepted(_), Submission::Refused(why), Submission::Accepted(_)] if why.kind == RefusalKind::Duplicate
    ));
    assert_eq!(*stand.calls.lock().unwrap(), ["broadcast_tx_sync"; 3]);
}
