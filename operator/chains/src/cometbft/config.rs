//! A node's `config.toml`: what a testnet decides. What is absent is CometBFT's own default.

use std::net::SocketAddr;
use std::time::Duration;

use netsplit_plan::{PlannedNode, TestnetPlan};
use netsplit_spec::units::format_duration;
use serde::Serialize;

use super::client::MAX_BATCH;
use super::keys::{Key, Purpose};
use super::{METRICS_PORT, PEER_PORT, RPC_PORT};
use crate::artifacts::{NodeHost, at_port};

// Where CometBFT looks for them below its home.
pub(super) const CONFIG_FILE: &str = "config/config.toml";
pub(super) const GENESIS_FILE: &str = "config/genesis.json";
pub(super) const NODE_KEY_FILE: &str = "config/node_key.json";
pub(super) const VALIDATOR_KEY_FILE: &str = "config/priv_validator_key.json";
pub(super) const SIGNED_FILE: &str = "data/priv_validator_state.json";

/// Transactions that wait at a node, and that it remembers so as not to take them twice.
const POOL: usize = 50_000;
const REMEMBERED: usize = 100_000;
/// CometBFT's own limit, enough for any mesh but a large one.
const INBOUND: usize = 40;

#[derive(Serialize)]
struct Config<'a> {
    /// Part of the program. This one keeps its state on disk, so that a restart does not replay every block.
    proxy_app: &'static str,
    moniker: &'a str,
    rpc: Rpc,
    p2p: PeerToPeer,
    mempool: Pool,
    consensus: Consensus,
    instrumentation: Metrics,
}

#[derive(Serialize)]
struct Rpc {
    laddr: String,
    max_request_batch_size: usize,
}

#[derive(Serialize)]
struct PeerToPeer {
    laddr: String,
    /// `ID@HOST:PORT`, separated by commas. Both ends of a link dial.
    persistent_peers: String,
    max_num_inbound_peers: usize,
    /// Private addresses are fine.
    addr_book_strict: bool,
    /// A peer that comes back is let in although its old connection still hangs.
    allow_duplicate_ip: bool,
    /// The topology is the spec's: nobody makes other acquaintances.
    pex: bool,
}

#[derive(Serialize)]
struct Pool {
    size: usize,
    cache_size: usize,
}

#[derive(Serialize)]
struct Consensus {
    #[serde(rename = "timeout_propose", skip_serializing_if = "Option::is_none")]
    propose: Option<String>,
    #[serde(rename = "timeout_prevote", skip_serializing_if = "Option::is_none")]
    prevote: Option<String>,
    #[serde(rename = "timeout_precommit", skip_serializing_if = "Option::is_none")]
    precommit: Option<String>,
    /// The pause between a block and the next proposal.
    #[serde(rename = "timeout_commit")]
    commit: String,
}

#[derive(Serialize)]
struct Metrics {
    prometheus: bool,
    prometheus_listen_addr: String,
}

pub(super) fn text(
    plan: &TestnetPlan,
    node: &PlannedNode,
    host: &NodeHost,
    neighbours: &[(&PlannedNode, &NodeHost)],
) -> Result<String, toml::ser::Error> {
    let listen = |port| format!("tcp://{}", SocketAddr::new(host.bind, port));
    let peer = |(peer, host): &(&PlannedNode, &NodeHost)| {
        let id = Key::derive(plan.seed, Purpose::Node, &peer.name).address();
        format!("{id}@{}", at_port(&host.host, PEER_PORT))
    };
    let timeout = |given: Option<Duration>| given.map(format_duration);
    let peers: Vec<String> = neighbours.iter().map(peer).collect();
    toml::to_string(&Config {
        proxy_app: "persistent_kvstore",
        moniker: &node.name,
        rpc: Rpc { laddr: listen(RPC_PORT), max_request_batch_size: MAX_BATCH },
        p2p: PeerToPeer {
            laddr: listen(PEER_PORT),
            max_num_inbound_peers: INBOUND.max(peers.len()),
            persistent_peers: peers.join(","),
            addr_book_strict: false,
            allow_duplicate_ip: true,
            pex: false,
        },
        mempool: Pool { size: POOL, cache_size: REMEMBERED },
        consensus: Consensus {
            propose: timeout(plan.timeouts.propose),
            prevote: timeout(plan.timeouts.prevote),
            precommit: timeout(plan.timeouts.precommit),
            commit: format_duration(plan.block_time),
        },
        instrumentation: Metrics {
            prometheus: true,
            prometheus_listen_addr: SocketAddr::new(host.bind, METRICS_PORT).to_string(),
        },
    })
}
