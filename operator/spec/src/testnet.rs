//! What a test network is.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::links::BaseLinks;
use crate::problem::Origin;
use crate::units;

/// A test network as its user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Testnet {
    /// A DNS label of at most 40 characters: it becomes part of host, namespace and object names.
    pub name: String,
    /// Rules all randomness, keys included. Derived from the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(default)]
    pub chain: Chain,
    pub consensus: Consensus,
    pub nodes: Vec<NodeGroup>,
    #[serde(default)]
    pub topology: Topology,
    /// What every link does without a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<BaseLinks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Whether the links between its nodes can be broken.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub faults: bool,
    /// On Kubernetes: the size of the volume that keeps each node's data, such as `1Gi`; without it the data goes with
    /// the pod. On one machine it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Where it was read, for later problems. Not part of its value.
    #[serde(skip)]
    pub origin: Origin,
}

impl Testnet {
    /// Rules all randomness: the given one, else the name's, so that a rerun is the same network.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| seed_of(&self.name))
    }
}

/// The seed of a testnet that gives none: of its name alone.
pub fn seed_of(name: &str) -> u64 {
    let hash = blake3::derive_key("netsplit testnet seed v1", name.as_bytes());
    let (head, _) = hash.split_first_chunk::<8>().expect("a BLAKE3 hash has 32 bytes");
    u64::from_le_bytes(*head)
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape serde calls
fn is_yes(value: &bool) -> bool {
    *value
}

/// Which chain's node is run: `netsplit`, or the name of another with its options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Chain {
    #[default]
    Netsplit,
    /// CometBFT with the key-value store that it brings along.
    Cometbft {},
}

impl Chain {
    pub const ALL: [Self; 2] = [Self::Netsplit, Self::Cometbft {}];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netsplit => "netsplit",
            Self::Cometbft {} => "cometbft",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Consensus {
    #[serde(rename_all = "camelCase")]
    Bft {
        /// Pause between a decided block and the next proposal.
        #[serde(with = "units::serde_duration")]
        block_time: Duration,
        #[serde(default, skip_serializing_if = "Timeouts::is_empty")]
        timeouts: Timeouts,
    },
}

/// Timeouts of a round's steps; the chain's own default where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub propose: Option<Duration>,
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub prevote: Option<Duration>,
    #[serde(default, with = "units::serde_duration_option", skip_serializing_if = "Option::is_none")]
    pub precommit: Option<Duration>,
}

impl Timeouts {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Nodes that are alike: `count` of them, called `name-0`, `name-1`, ...
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroup {
    pub name: String,
    pub role: Role,
    #[serde(default = "one")]
    pub count: u32,
    /// Where its nodes are; see [`Self::region`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
}

impl NodeGroup {
    /// Where its node of this ordinal is: the first in the first region, the next in the next one, and around.
    pub fn region(&self, ordinal: u32) -> Option<&str> {
        let place = (ordinal as usize).checked_rem(self.regions.len())?;
        Some(&self.regions[place])
    }
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Signs votes.
    Validator,
    /// Follows and relays, never signs.
    Full,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Validator, Self::Full];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Full => "full",
        }
    }
}

/// Who is a neighbour of whom, over all nodes in the order of the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Everyone with everyone.
    #[default]
    Mesh,
    /// Each node with the one before and the one after it.
    Ring,
    /// Everyone with the first node only.
    Star,
}

/// Signed transfers sent while the testnet runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Over all nodes together.
    pub transfers_per_second: u32,
    /// How many accounts send them.
    #[serde(default = "Load::default_accounts")]
    pub accounts: u32,
}

impl Load {
    pub const DEFAULT_ACCOUNTS: u32 = 1_000;

    fn default_accounts() -> u32 {
        Self::DEFAULT_ACCOUNTS
    }
}

/// How much history a node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    pub blocks: u64,
}
