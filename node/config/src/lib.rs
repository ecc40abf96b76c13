//! The contract between whoever launches a node and the node: the genesis file (JSON), equal for all nodes of a chain, and the node's
//! own configuration (TOML). Unknown fields are errors; every problem of a file is reported at once, with its field.

mod genesis;
mod node;
mod problems;

pub use genesis::{ConsensusParams, Genesis, GenesisAccount, GenesisValidator};
pub use netsplit_core::mempool::MempoolLimits;
pub use node::{
    ApiConfig, HttpConfig, LogConfig, LogFormat, NodeConfig, PeerAddress, PeerConfig, PeerLimits,
    RetentionConfig, Role,
};
pub use problems::{ConfigError, Problem};

/// TCP: sessions with peers.
pub const PEER_PORT: u16 = 26600;
/// TCP: the node's gRPC API.
pub const API_PORT: u16 = 26601;
/// TCP: `/metrics`, `/live` and `/ready` over HTTP.
pub const HTTP_PORT: u16 = 26602;
/// UDP: link probes, shaped and cut as the peer port is.
pub const PROBE_PORT: u16 = 26603;
/// UDP: control probes, never shaped or cut.
pub const CONTROL_PROBE_PORT: u16 = 26604;
