//! CometBFT with the key-value store that it brings along.
//!
//! Of a node's files only what a testnet has to say is written; all else is CometBFT's own default. What it cannot be told:
//!
//! * When it lost a connection it dials again every 5 to 8 s, for about two minutes, then ever more rarely. While a
//!   connection only hangs, as in a cut of less than a minute, TCP's own backoff decides when data flows again.
//! * It does not tell when a block became final: that is when its client first sees it.
//! * It holds every block for ever, and its store checks no signature.

mod client;
mod config;
mod keys;
mod rpc;
mod wallet;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use netsplit_plan::{PlannedNode, TestnetPlan};
use serde::Serialize;
use serde_json::json;

use self::keys::{Key, Purpose};
use self::wallet::KeyValueWallet;
use crate::Chain;
use crate::artifacts::{
    ArtifactFile, ArtifactsError, ChainArtifacts, NodeArtifacts, NodeHost, Port, Ports, Program, Protocol,
    hosts_fit, neighbours,
};
use crate::client::{ChainClient, Connector};
use crate::load::Wallet;

const PROGRAM: &str = "cometbft";

// Not the ports that it has by itself: faults are done to this one.
const PEER_PORT: u16 = 26_600;
const RPC_PORT: u16 = 26_601;
const METRICS_PORT: u16 = 26_602;

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// A fixed moment and not the time of planning: the same plan is the same chain, byte for byte.
const GENESIS_TIME: &str = "2024-01-01T00:00:00Z";
/// A block's bytes: what our own node takes, too.
const MAX_BLOCK_BYTES: u64 = 2 * 1024 * 1024;
/// Of each validator.
const POWER: u64 = 1;

/// CometBFT, from 0.38 on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cometbft;

impl ChainArtifacts for Cometbft {
    fn program(&self) -> Program {
        Program {
            name: PROGRAM,
            variable: Some("NETSPLIT_COMETBFT"),
            remedy: "set NETSPLIT_COMETBFT to the program or put it on the PATH; in netsplit's repository `make cometbft` \
                     builds it, with Go",
        }
    }

    fn not_in_pods(&self) -> Option<&'static str> {
        Some(
            "spec.chain: CometBFT runs on one machine only, since there is no image of it: run it with `netsplit up` there",
        )
    }

    fn ports(&self) -> Ports {
        let peer = Port { protocol: Protocol::Tcp, number: PEER_PORT };
        Ports { peer: vec![peer], api: RPC_PORT, http: METRICS_PORT }
    }

    fn build(&self, plan: &TestnetPlan, hosts: &[NodeHost]) -> Result<Vec<NodeArtifacts>, ArtifactsError> {
        hosts_fit(plan, hosts)?;
        if plan.validators().next().is_none() {
            return Err(ArtifactsError::NoValidator { testnet: plan.name.clone() });
        }
        let genesis = genesis(plan)?;
        plan.nodes.iter().map(|node| node_artifacts(plan, hosts, node, &genesis)).collect()
    }

    fn identity(&self, plan: &TestnetPlan, node: &PlannedNode) -> String {
        Key::derive(plan.seed, Purpose::Node, &node.name).address()
    }

    fn wallet(&self, plan: &TestnetPlan) -> Result<Arc<dyn Wallet>, ArtifactsError> {
        Ok(Arc::new(KeyValueWallet::of_plan(plan)))
    }
}

impl Chain for Cometbft {
    fn client(&self, node: &str, connector: Connector) -> Arc<dyn ChainClient> {
        Arc::new(client::CometbftClient::new(node, connector))
    }
}

/// Shared by all nodes. Whole numbers of 64 bits are text in CometBFT's JSON.
fn genesis(plan: &TestnetPlan) -> Result<Bytes, ArtifactsError> {
    let validator = |node: &PlannedNode| {
        let key = Key::derive(plan.seed, Purpose::Validator, &node.name);
        json!({
            "address": key.address().to_uppercase(),
            "pub_key": key.public_json(),
            "power": POWER.to_string(),
            "name": node.name,
        })
    };
    let genesis = json!({
        "genesis_time": GENESIS_TIME,
        "chain_id": plan.name,
        "initial_height": "1",
        "consensus_params": {
            "block": { "max_bytes": MAX_BLOCK_BYTES.to_string(), "max_gas": "-1" },
            // CometBFT's own.
            "evidence": {
                "max_age_num_blocks": "100000",
                "max_age_duration": "172800000000000",
                "max_bytes": "1048576",
            },
            "validator": { "pub_key_types": ["ed25519"] },
        },
        "validators": plan.validators().map(validator).collect::<Vec<_>>(),
        "app_hash": "",
    });
    json_text(plan, config::GENESIS_FILE, &genesis)
}

fn node_artifacts(
    plan: &TestnetPlan,
    hosts: &[NodeHost],
    node: &PlannedNode,
    genesis: &Bytes,
) -> Result<NodeArtifacts, ArtifactsError> {
    let neighbours = neighbours(plan, hosts, node)?;
    let config = config::text(plan, node, &hosts[node.index], &neighbours)
        .map_err(|error| invalid(plan, config::CONFIG_FILE, &error))?;
    let node_key = Key::derive(plan.seed, Purpose::Node, &node.name);
    // A full node has such a key as well, which no genesis names: CometBFT would make one up.
    let validator_key = Key::derive(plan.seed, Purpose::Validator, &node.name);
    let signed_nothing = json!({ "height": "0", "round": 0, "step": 0 });
    let file = |path: &str, bytes, mode| ArtifactFile { path: PathBuf::from(path), bytes, mode };
    let files = vec![
        file(config::GENESIS_FILE, genesis.clone(), PUBLIC),
        file(config::CONFIG_FILE, Bytes::from(config), PUBLIC),
        file(
            config::NODE_KEY_FILE,
            json_text(plan, config::NODE_KEY_FILE, &json!({ "priv_key": node_key.secret_json() }))?,
            SECRET,
        ),
        file(
            config::VALIDATOR_KEY_FILE,
            json_text(plan, config::VALIDATOR_KEY_FILE, &validator_key.validator_json())?,
            SECRET,
        ),
        file(config::SIGNED_FILE, json_text(plan, config::SIGNED_FILE, &signed_nothing)?, SECRET),
    ];
    Ok(NodeArtifacts {
        node: node.name.clone(),
        files,
        command: vec![PROGRAM.to_owned(), "start".to_owned()],
        // A home in the user's own environment would win over any argument: every node would be that user's node.
        environment: vec![("CMTHOME".to_owned(), ".".to_owned())],
    })
}

fn json_text(
    plan: &TestnetPlan,
    file: &'static str,
    value: &impl Serialize,
) -> Result<Bytes, ArtifactsError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| invalid(plan, file, &error))?;
    text.push(b'\n');
    Ok(Bytes::from(text))
}

fn invalid(plan: &TestnetPlan, file: &'static str, problem: &impl ToString) -> ArtifactsError {
    ArtifactsError::Invalid { testnet: plan.name.clone(), file, problems: problem.to_string() }
}
