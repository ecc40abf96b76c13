//! One node from its configuration to its end.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use netsplit_bft::wal::file::FileStorage;
use netsplit_bft::{Engine, EngineConfig, Timeouts};
use netsplit_config::{ConsensusParams, Genesis, NodeConfig, PeerLimits};
use netsplit_core::{Hash, SecretKey};
use netsplit_net::{Limits, Net, NetConfig, StaticPeer, Timing};
use netsplit_proto::node::node_server::NodeServer;
use netsplit_store::{Chain, Retention, RocksStore};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::admission::{self, Admission};
use crate::api::{self, ApiContext, NodeService};
use crate::application::ChainApplication;
use crate::clock::Clock;
use crate::engine::{self, EngineHandle, Links};
use crate::feed::Feed;
use crate::http::{self, HttpContext};
use crate::limit;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::relay::Relay;
use crate::wal::Measured;

/// Batches of accepted transactions that may wait for the relay.
const MAX_ACCEPTED: usize = 1024;
/// How often readiness is looked at.
const READY_EVERY: Duration = Duration::from_millis(250);

/// The node's keys.
#[derive(Debug)]
pub struct Identity {
    pub node: SecretKey,
    pub validator: Option<SecretKey>,
}

impl Identity {
    /// Reads the key files that the configuration names.
    pub fn load(config: &NodeConfig) -> anyhow::Result<Self> {
        let node = read_key(&config.node_key_file)?;
        let validator = config.validator_key_file.as_deref().map(read_key).transpose()?;
        Ok(Self { node, validator })
    }
}

fn read_key(file: &Path) -> anyhow::Result<SecretKey> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the key file {}", file.display()))?;
    SecretKey::from_file_text(&text).with_context(|| format!("{} is no key file", file.display()))
}

/// Runs a node until `stop` is cancelled, or until its store, log or consensus fails, which is an error.
pub async fn run(
    config: NodeConfig,
    genesis: Genesis,
    identity: Identity,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let chain_id = genesis.hash();
    let parts = genesis.parts().map_err(|problems| anyhow!("the genesis breaks its rules: {problems:?}"))?;
    let data = &config.data_dir;
    std::fs::create_dir_all(data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let store = RocksStore::open(&data.join("db"))
        .with_context(|| format!("cannot open the database in {}", data.display()))?;
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let chain = Chain::open(store, &parts)
        .with_context(|| format!("cannot open the chain in {}", data.display()))?
        .with_threads(cores);
    let chain = Arc::new(chain);
    let log = FileStorage::open(&data.join("wal"))
        .with_context(|| format!("cannot open the consensus log in {}", data.display()))?;

    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry)?);
    let pool = Arc::new(Pool::new(chain_id, config.mempool));
    let feed = Arc::new(Feed::new(chain.height()));
    metrics.height.set(chain.height() as i64);
    let api_listener = limit::bind(config.api.listen)
        .with_context(|| format!("cannot listen for the API on {}", config.api.listen))?;
    let http_listener = limit::bind(config.http.listen)
        .with_context(|| format!("cannot listen for HTTP on {}", config.http.listen))?;
    let (net, inbound) = Net::start(net_config(&config, &genesis, &identity, chain_id))?;
    let validator = identity.validator.as_ref().map(SecretKey::public);
    info!(
        name = config.name,
        chain = genesis.chain_name,
        genesis = %chain_id,
        height = chain.height(),
        node_key = %identity.node.public(),
        validator = validator.map(|key| key.to_string()),
        peers = config.peer.peers.len(),
        "node starts"
    );

    let engine_config = engine_config(&genesis, &chain, identity.validator.clone());
    let application = ChainApplication {
        chain: chain.clone(),
        pool: pool.clone(),
        feed: feed.clone(),
        metrics: metrics.clone(),
        clock,
        proposer: validator,
        retention: Retention { blocks: config.retention.blocks, states: config.retention.states },
        checked: Vec::new(),
    };
    let log = Measured { inner: log, metrics: metrics.clone() };
    let links = Links {
        consensus: inbound.consensus,
        bulk: inbound.bulk,
        net: net.handle(),
        metrics: metrics.clone(),
    };
    let make = move || Engine::new(engine_config, application, log);
    let mut engine = engine::spawn(make, links, tokio::runtime::Handle::current())?;

    let (accepted, news) = mpsc::channel(MAX_ACCEPTED);
    let context =
        admission::Context { chain: chain.clone(), pool: pool.clone(), metrics: metrics.clone(), accepted };
    let admission = Admission::start(&context, cores.get().min(4)).context("cannot start a thread")?;
    let relay = Relay::new(net.handle(), pool.clone(), admission.entrance(), metrics.clone());
    let relay = tokio::spawn(relay.run(inbound.relay, news));

    let health = HealthReporter::new();
    health.set_not_serving::<NodeServer<NodeService<RocksStore>>>().await;
    health.set_service_status("", ServingStatus::NotServing).await;
    let ready = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(watch_readiness(
        chain.clone(),
        engine.handle.clone(),
        health.clone(),
        ready.clone(),
        stop.clone(),
    ));
    let api_context = Arc::new(ApiContext {
        chain: chain.clone(),
        pool: pool.clone(),
        feed,
        entrance: admission.entrance(),
        engine: engine.handle.clone(),
        net: net.handle(),
        started,
        name: config.name.clone(),
        roles: config.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect(),
        chain_name: genesis.chain_name.clone(),
        node_key: identity.node.public(),
        validator,
    });
    let http_context = Arc::new(HttpContext {
        registry,
        metrics,
        chain: chain.clone(),
        pool,
        net: net.handle(),
        engine: engine.handle.clone(),
        ready,
    });
    let api = tokio::spawn(api::serve(api_listener, api_context, health, stop.clone()));
    let http = tokio::spawn(http::serve(http_listener, http_context, stop.clone()));

    let net_ended = net.stopping();
    let mut failure = tokio::select! {
        () = stop.cancelled() => None,
        () = net_ended.cancelled() => Some(anyhow!("the peer network ended")),
        ended = &mut engine.ended => Some(match ended {
            Ok(Ok(())) => anyhow!("consensus ended"),
            Ok(Err(fatal)) => anyhow::Error::new(fatal).context("consensus stopped"),
            Err(_) => anyhow!("the consensus thread panicked"),
        }),
    };
    stop.cancel();
    if failure.is_none() {
        info!("node stops");
        engine.handle.stop().await;
        if let Ok(Err(fatal)) = (&mut engine.ended).await {
            failure = Some(anyhow::Error::new(fatal).context("the chain could not be made durable"));
        }
    }
    if tokio::task::spawn_blocking(move || engine.thread.join()).await.is_ok_and(|joined| joined.is_err()) {
        error!("the consensus thread panicked");
    }
    relay.abort();
    net.stop().await;
    finish("API", api).await;
    finish("HTTP", http).await;
    watch.abort();
    // Its threads end, then the last reader of the chain has gone and the database is closed.
    drop((admission, context));
    chain.sync().context("the chain could not be made durable")?;
    failure.map_or(Ok(()), Err)
}

async fn finish(what: &str, task: JoinHandle<anyhow::Result<()>>) {
    match task.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(what, error = format!("{error:#}"), "a server ended badly"),
        Err(error) => warn!(what, %error, "a server's task failed"),
    }
}

/// Ready once a block is final here, and while no neighbour is far ahead.
async fn watch_readiness(
    chain: Arc<Chain<RocksStore>>,
    engine: EngineHandle,
    health: HealthReporter,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(READY_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => {
                health.set_not_serving::<NodeServer<NodeService<RocksStore>>>().await;
                health.set_service_status("", ServingStatus::NotServing).await;
                return;
            }
        }
        let Some(round) = engine.round_state().await else { continue };
        let height = chain.height();
        let now = height > 0 && !api::is_behind(height, round.best_peer_height);
        if ready.swap(now, Ordering::Relaxed) == now {
            continue;
        }
        info!(ready = now, height, "readiness changed");
        let status = if now { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status("", status).await;
        if now {
            health.set_serving::<NodeServer<NodeService<RocksStore>>>().await;
        } else {
            health.set_not_serving::<NodeServer<NodeService<RocksStore>>>().await;
        }
    }
}

fn engine_config(genesis: &Genesis, chain: &Chain<RocksStore>, key: Option<SecretKey>) -> EngineConfig {
    let validators = (*chain.validators(chain.height() + 1)).clone();
    let ms = Duration::from_millis;
    let ConsensusParams {
        block_time_ms,
        propose_timeout_ms,
        prevote_timeout_ms,
        precommit_timeout_ms,
        timeout_delta_ms,
        max_block_bytes,
        ..
    } = genesis.consensus;
    let defaults = Timeouts::default();
    let longest = propose_timeout_ms.max(prevote_timeout_ms).max(precommit_timeout_ms);
    let mut config = EngineConfig::new(chain.chain_id(), validators);
    config.validator_key = key;
    config.block_time = ms(block_time_ms);
    config.max_block_bytes = max_block_bytes as usize;
    config.seed = rand::random();
    config.timeouts = Timeouts {
        // A block is offered when its time has come, and only then can its round begin to be late.
        propose: ms(propose_timeout_ms + block_time_ms),
        propose_delta: ms(timeout_delta_ms),
        prevote: ms(prevote_timeout_ms),
        prevote_delta: ms(timeout_delta_ms),
        precommit: ms(precommit_timeout_ms),
        precommit_delta: ms(timeout_delta_ms),
        max: defaults.max.max(ms(longest + block_time_ms)),
        ..defaults
    };
    config
}

fn net_config(config: &NodeConfig, genesis: &Genesis, identity: &Identity, chain_id: Hash) -> NetConfig {
    let PeerLimits {
        max_peers,
        connect_timeout_ms,
        keepalive_interval_ms,
        keepalive_timeout_ms,
        reconnect_min_ms,
        reconnect_max_ms,
        ..
    } = config.peer.limits;
    let ms = Duration::from_millis;
    let peers = config.peer.peers.iter().map(|peer| StaticPeer {
        name: peer.name.clone(),
        key: peer.key,
        address: peer.address.clone(),
    });
    NetConfig {
        key: identity.node.clone(),
        name: config.name.clone(),
        agent: concat!("netsplit-node/", env!("CARGO_PKG_VERSION")).to_owned(),
        chain_id,
        chain_name: genesis.chain_name.clone(),
        listen: config.peer.listen,
        peers: peers.collect(),
        limits: Limits { max_inbound_peers: max_peers, ..Limits::default() },
        timing: Timing {
            connect_timeout: ms(connect_timeout_ms),
            keepalive_interval: ms(keepalive_interval_ms),
            keepalive_timeout: ms(keepalive_timeout_ms),
            retry: ms(reconnect_min_ms)..ms(reconnect_max_ms),
            ..Timing::default()
        },
        seed: rand::random(),
    }
}
