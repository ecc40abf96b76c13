//! Our own node, `netsplit-node`.

mod client;
mod keys;
mod wallet;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netsplit_config::{
    API_PORT, ApiConfig, ConsensusParams, Genesis, GenesisAccount, GenesisValidator, HTTP_PORT, HttpConfig,
    LogConfig, MempoolLimits, NodeConfig, PEER_PORT, PeerAddress, PeerConfig, PeerLimits, Problem,
    RetentionConfig, Role,
};
use netsplit_core::PROTOCOL_VERSION;
use netsplit_plan::{PlannedNode, TestnetPlan};
use netsplit_spec as spec;

use self::keys::{Purpose, derive};
use self::wallet::{BALANCE, LoadWallet};
use crate::Chain;
use crate::artifacts::{
    ArtifactFile, ArtifactsError, ChainArtifacts, NodeArtifacts, NodeHost, Port, Ports, Program, Protocol,
    at_port, hosts_fit, neighbours,
};
use crate::client::{ChainClient, Connector};
use crate::load::Wallet;

const PROGRAM: &str = "netsplit-node";
const CONFIG_FILE: &str = "node.toml";
const GENESIS_FILE: &str = "genesis.json";
const NODE_KEY_FILE: &str = "node.key";
const VALIDATOR_KEY_FILE: &str = "validator.key";
const DATA_DIR: &str = "data";

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// A fixed moment (2024-01-01) and not the time of planning: the same plan is the same chain, byte for byte. Only
/// the first block's time has to be later.
const GENESIS_TIME_MS: u64 = 1_704_067_200_000;

/// Of each validator. Stake will decide it one day; until then all count the same.
const POWER: u64 = 1;

/// The chain of this project.
#[derive(Debug, Clone, Copy, Default)]
pub struct Netsplit;

impl ChainArtifacts for Netsplit {
    fn program(&self) -> Program {
        Program { name: PROGRAM, variable: None, remedy: "put it beside netsplit: `make install` does" }
    }

    fn not_in_pods(&self) -> Option<&'static str> {
        None
    }

    fn ports(&self) -> Ports {
        // Sessions are TCP; UDP on the same number belongs to discovery.
        let peer = |protocol| Port { protocol, number: PEER_PORT };
        Ports { peer: vec![peer(Protocol::Tcp), peer(Protocol::Udp)], api: API_PORT, http: HTTP_PORT }
    }

    fn build(&self, plan: &TestnetPlan, hosts: &[NodeHost]) -> Result<Vec<NodeArtifacts>, ArtifactsError> {
        hosts_fit(plan, hosts)?;
        let (genesis, _) = genesis(plan)?;
        // One buffer for all nodes: with many accounts it is the bulk of what is written.
        let genesis = Bytes::from(genesis.to_json());
        plan.nodes.iter().map(|node| node_artifacts(plan, hosts, node, &genesis)).collect()
    }

    fn identity(&self, plan: &TestnetPlan, node: &PlannedNode) -> String {
        derive(plan.seed, Purpose::Node, &node.name).public().to_string()
    }

    fn wallet(&self, plan: &TestnetPlan) -> Result<Arc<dyn Wallet>, ArtifactsError> {
        let (genesis, wallet) = genesis(plan)?;
        Ok(Arc::new(wallet.for_chain(genesis.hash())))
    }
}

impl Chain for Netsplit {
    fn client(&self, node: &str, connector: Connector) -> Arc<dyn ChainClient> {
        Arc::new(client::NetsplitClient::new(node, connector))
    }
}

/// The genesis of a plan, and the accounts that it funds.
fn genesis(plan: &TestnetPlan) -> Result<(Genesis, LoadWallet), ArtifactsError> {
    if plan.validators().next().is_none() {
        return Err(ArtifactsError::NoValidator { testnet: plan.name.clone() });
    }
    let validator = |node: &PlannedNode| GenesisValidator {
        address: derive(plan.seed, Purpose::Validator, &node.name).public(),
        power: POWER,
        name: node.name.clone(),
    };
    let wallet = LoadWallet::of_plan(plan);
    let account = |address| GenesisAccount { address, balance: BALANCE };
    let genesis = Genesis {
        chain_name: plan.name.clone(),
        genesis_time_ms: GENESIS_TIME_MS,
        protocol_version: PROTOCOL_VERSION,
        activation_heights: std::collections::BTreeMap::new(),
        consensus: consensus(plan),
        validators: plan.validators().map(validator).collect(),
        accounts: wallet.keys().iter().map(|key| account(key.public())).collect(),
    };
    genesis.validate().map_err(|problems| invalid(plan, GENESIS_FILE, &problems))?;
    Ok((genesis, wallet))
}

fn consensus(plan: &TestnetPlan) -> ConsensusParams {
    let defaults = ConsensusParams::default();
    let millis = |given: Option<Duration>, default| given.map_or(default, |value| value.as_millis() as u64);
    ConsensusParams {
        block_time_ms: plan.block_time.as_millis() as u64,
        propose_timeout_ms: millis(plan.timeouts.propose, defaults.propose_timeout_ms),
        prevote_timeout_ms: millis(plan.timeouts.prevote, defaults.prevote_timeout_ms),
        precommit_timeout_ms: millis(plan.timeouts.precommit, defaults.precommit_timeout_ms),
        ..defaults
    }
}

fn node_artifacts(
    plan: &TestnetPlan,
    hosts: &[NodeHost],
    node: &PlannedNode,
    genesis: &Bytes,
) -> Result<NodeArtifacts, ArtifactsError> {
    let validates = node.role == spec::Role::Validator;
    let config = NodeConfig {
        name: node.name.clone(),
        roles: vec![if validates { Role::Validator } else { Role::Full }],
        data_dir: DATA_DIR.into(),
        genesis_file: GENESIS_FILE.into(),
        node_key_file: NODE_KEY_FILE.into(),
        validator_key_file: validates.then(|| VALIDATOR_KEY_FILE.into()),
        peer: peers(plan, hosts, node)?,
        api: ApiConfig { listen: SocketAddr::new(hosts[node.index].bind, API_PORT) },
        http: HttpConfig { listen: SocketAddr::new(hosts[node.index].bind, HTTP_PORT) },
        mempool: MempoolLimits::default(),
        retention: plan.retention.map_or_else(RetentionConfig::default, |kept| RetentionConfig {
            blocks: kept.blocks,
            ..RetentionConfig::default()
        }),
        log: LogConfig::default(),
    };
    config.validate().map_err(|problems| invalid(plan, CONFIG_FILE, &problems))?;

    let key = |purpose| Bytes::from(derive(plan.seed, purpose, &node.name).to_file_text());
    let file = |path: &str, bytes, mode| ArtifactFile { path: PathBuf::from(path), bytes, mode };
    let mut files = vec![
        file(GENESIS_FILE, genesis.clone(), PUBLIC),
        file(CONFIG_FILE, Bytes::from(config.to_toml()), PUBLIC),
        file(NODE_KEY_FILE, key(Purpose::Node), SECRET),
    ];
    if validates {
        files.push(file(VALIDATOR_KEY_FILE, key(Purpose::Validator), SECRET));
    }
    let command = [PROGRAM, "--config", CONFIG_FILE].map(String::from).to_vec();
    Ok(NodeArtifacts { node: node.name.clone(), files, command, environment: Vec::new() })
}

fn peers(plan: &TestnetPlan, hosts: &[NodeHost], node: &PlannedNode) -> Result<PeerConfig, ArtifactsError> {
    let peer = |(peer, host): (&PlannedNode, &NodeHost)| PeerAddress {
        name: peer.name.clone(),
        key: derive(plan.seed, Purpose::Node, &peer.name).public(),
        address: at_port(&host.host, PEER_PORT),
    };
    let peers: Vec<_> = neighbours(plan, hosts, node)?.into_iter().map(peer).collect();
    let defaults = PeerLimits::default();
    // A mesh of many nodes needs room for all of them.
    let limits = PeerLimits { max_peers: defaults.max_peers.max(peers.len()), ..defaults };
    Ok(PeerConfig { listen: SocketAddr::new(hosts[node.index].bind, PEER_PORT), limits, peers })
}

fn invalid(plan: &TestnetPlan, file: &'static str, problems: &[Problem]) -> ArtifactsError {
    let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    ArtifactsError::Invalid { testnet: plan.name.clone(), file, problems }
}
