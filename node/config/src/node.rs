//! One node's configuration.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use netsplit_core::PublicKey;
use netsplit_core::mempool::MempoolLimits;
use serde::{Deserialize, Serialize};

use crate::problems::{Checks, ConfigError, Problem, read};
use crate::{API_PORT, HTTP_PORT, PEER_PORT};

const NAME_RULE: &str = "must have 1 to 63 characters a-z, 0-9 and -";

/// What a node does. Roles combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Follows the chain, checks and stores every block.
    Full,
    /// Follows headers only.
    Light,
    /// Makes proof-of-work blocks.
    Miner,
    /// Votes, and proposes in its turn.
    Validator,
    /// Serves many peers.
    SuperPeer,
}

/// Everything has a default but the name, the roles and the paths. Relative paths are relative to the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// For logs, metrics and people; peers know each other by key.
    pub name: String,
    pub roles: Vec<Role>,
    /// Holds the store and the write-ahead log; created when absent.
    pub data_dir: PathBuf,
    pub genesis_file: PathBuf,
    /// Secret key of the node's sessions.
    pub node_key_file: PathBuf,
    /// Secret key of its votes; present if and only if it is a validator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator_key_file: Option<PathBuf>,
    #[serde(default)]
    pub peer: PeerConfig,
    #[serde(default)]
    pub api: ApiConfig,
    #[serde(default)]
    pub http: HttpConfig,
    #[serde(default)]
    pub mempool: MempoolLimits,
    #[serde(default)]
    pub retention: RetentionConfig,
    #[serde(default)]
    pub log: LogConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerConfig {
    pub listen: SocketAddr,
    pub limits: PeerLimits,
    /// The nodes to keep sessions with.
    pub peers: Vec<PeerAddress>,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self { listen: any(PEER_PORT), limits: PeerLimits::default(), peers: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerAddress {
    /// For logs.
    pub name: String,
    /// The node key it must prove.
    pub key: PublicKey,
    /// `host:port`; the host is an address or a DNS name.
    pub address: String,
}

/// Durations in milliseconds; queues in frames of at most 256 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerLimits {
    /// Sessions at one time, in both directions together.
    pub max_peers: usize,
    /// For connection, TLS and handshake together.
    pub connect_timeout_ms: u64,
    /// On the consensus connection only; its loss closes the whole session.
    pub keepalive_interval_ms: u64,
    pub keepalive_timeout_ms: u64,
    /// The wait before connecting again doubles from the first to the second.
    pub reconnect_min_ms: u64,
    pub reconnect_max_ms: u64,
    /// Frames that may wait for one peer, by class.
    pub consensus_queue: usize,
    pub relay_queue: usize,
    pub bulk_queue: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            max_peers: 64,
            connect_timeout_ms: 2000,
            keepalive_interval_ms: 1000,
            keepalive_timeout_ms: 2000,
            reconnect_min_ms: 100,
            reconnect_max_ms: 300,
            consensus_queue: 1024,
            relay_queue: 256,
            bulk_queue: 16,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    pub listen: SocketAddr,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { listen: any(API_PORT) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: any(HTTP_PORT) }
    }
}

/// What is kept, counted back from the last decided height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Blocks; a node that was away for longer cannot fetch what it lacks.
    pub blocks: u64,
    /// Versions of the state that proofs can be made for.
    pub states: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { blocks: 100_000, states: 100 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A filter as `tracing` reads it: `info`, or `warn,netsplit_bft=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl NodeConfig {
    /// Reads and checks a configuration, and makes its paths relative to the file's folder.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::from_toml(&read(file)?, file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for path in [&mut config.data_dir, &mut config.genesis_file, &mut config.node_key_file]
            .into_iter()
            .chain(config.validator_key_file.as_mut())
        {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Reads and checks a configuration; paths stay as written, `file` is named in errors.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Toml { file: file.to_owned(), source: Box::new(source) })?;
        config.validate().map_err(|problems| ConfigError::Rules { file: file.to_owned(), problems })?;
        Ok(config)
    }

    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field has a TOML form")
    }

    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Every rule that this configuration breaks.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut checks = Checks::default();
        let named = |name: &str| {
            (1..=63).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        checks.require(named(&self.name), "name", NAME_RULE);
        self.check_roles(&mut checks);
        let mut keys = BTreeSet::new();
        for (index, peer) in self.peer.peers.iter().enumerate() {
            let field = |name: &str| format!("peer.peers[{index}].{name}");
            checks.require(named(&peer.name), field("name"), NAME_RULE);
            checks.require(
                is_host_port(&peer.address),
                field("address"),
                format!("is {:?}, must be host:port, such as \"10.0.0.1:{PEER_PORT}\"", peer.address),
            );
            checks.require(keys.insert(peer.key), field("key"), format!("{} is listed before", peer.key));
        }
        self.check_limits(&mut checks);
        checks.finish()
    }

    fn check_roles(&self, checks: &mut Checks) {
        checks.require(!self.roles.is_empty(), "roles", "is empty, needs at least one, such as \"full\"");
        let distinct: BTreeSet<Role> = self.roles.iter().copied().collect();
        checks.require(distinct.len() == self.roles.len(), "roles", "names a role twice");
        let validates = self.has_role(Role::Validator);
        checks.require(
            !validates || self.validator_key_file.is_some(),
            "validator_key_file",
            "is missing, and the roles contain \"validator\"",
        );
        checks.require(
            validates || self.validator_key_file.is_none(),
            "validator_key_file",
            "is set, and the roles do not contain \"validator\"",
        );
    }

    fn check_limits(&self, checks: &mut Checks) {
        let (limits, mempool) = (&self.peer.limits, &self.mempool);
        let positive = [
            ("peer.limits.max_peers", limits.max_peers as u64),
            ("peer.limits.connect_timeout_ms", limits.connect_timeout_ms),
            ("peer.limits.keepalive_interval_ms", limits.keepalive_interval_ms),
            ("peer.limits.keepalive_timeout_ms", limits.keepalive_timeout_ms),
            ("peer.limits.reconnect_min_ms", limits.reconnect_min_ms),
            ("peer.limits.consensus_queue", limits.consensus_queue as u64),
            ("peer.limits.relay_queue", limits.relay_queue as u64),
            ("peer.limits.bulk_queue", limits.bulk_queue as u64),
            ("mempool.max_transactions", mempool.max_transactions as u64),
            ("mempool.max_bytes", mempool.max_bytes as u64),
            ("mempool.max_transactions_per_sender", mempool.max_transactions_per_sender as u64),
            ("mempool.max_age_blocks", mempool.max_age_blocks),
            ("retention.states", self.retention.states),
        ];
        for (field, value) in positive {
            checks.require(value > 0, field, "is 0, must be at least 1");
        }
        checks.require(
            limits.reconnect_min_ms <= limits.reconnect_max_ms,
            "peer.limits.reconnect_max_ms",
            format!("is {}, below reconnect_min_ms", limits.reconnect_max_ms),
        );
        checks.require(
            self.retention.blocks >= 10,
            "retention.blocks",
            format!("is {}, must be at least 10: peers that lag behind fetch them", self.retention.blocks),
        );
        checks.require(
            !self.log.level.is_empty(),
            "log.level",
            "is empty, must be a filter such as \"info\"",
        );
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
