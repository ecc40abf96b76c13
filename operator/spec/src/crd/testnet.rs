//! The `Testnet` resource.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, Rule, TextOrNumber};
use super::status::Condition;
use crate::problem::Problems;
use crate::testnet::{Chain, Role, Topology};

pub(super) const RULES: &[Rule] = &[
    ("size(self.metadata.name) <= 40", "metadata.name: 40 characters are the most"),
    (
        "self.spec.nodes.all(g, size(self.metadata.name) + size(g.name) <= 51)",
        "spec.nodes: the testnet's name and a group's have 51 characters together at most",
    ),
];

/// A test network of a blockchain.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "netsplit.dev",
    version = "v1alpha1",
    kind = "Testnet",
    plural = "testnets",
    shortname = "tn",
    category = "netsplit",
    namespaced,
    derive = "PartialEq",
    status = "TestnetStatus",
    doc = "A test network of a blockchain: its nodes run as pods, and Experiments break the links between them.",
    crates(kube_core = "kube_core"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Final", type_ = "integer", json_path = ".status.finalHeight"),
    printcolumn(name = "Experiment", type_ = "string", json_path = ".status.experiment"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.problem", priority = "1")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.links) || !has(self.faults) || self.faults",
        "message": "spec.links: `faults: off` leaves out the link agents, which shape links",
    },
    {
        "rule": "self.nodes.exists(g, g.role == 'validator')",
        "message": "spec.nodes: no group has `role: validator`: nobody would make blocks",
    },
    {
        "rule": "self.nodes.map(g, has(g.count) ? g.count : 1).sum() <= 1000",
        "message": "spec.nodes: 1000 nodes in all are the most",
    },
    {
        "rule": "self.consensus == oldSelf.consensus && has(self.seed) == has(oldSelf.seed) \
                 && (!has(self.seed) || self.seed == oldSelf.seed)",
        "message": "the chain's genesis follows from consensus and seed: make another testnet",
    },
    {
        "rule": "self.nodes.filter(g, g.role == 'validator') == oldSelf.nodes.filter(g, g.role == 'validator')",
        "message": "the chain's genesis names its validators: make another testnet",
    },
]))]
pub struct TestnetSpec {
    /// Which chain's node is run: netsplit, unless said otherwise. `{cometbft: {}}` runs on one machine only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::chain")]
    pub chain: Option<Chain>,
    /// How the nodes agree on blocks.
    pub consensus: ConsensusSpec,
    /// Groups of nodes that are alike.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeGroupSpec>,
    /// Who is a neighbour of whom: everyone with everyone, unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// What every link does without a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<BaseLinksSpec>,
    /// Signed transfers sent while the testnet runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadSpec>,
    /// Rules all randomness, keys included. Derived from the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64))]
    pub seed: Option<i64>,
    /// How much history a node keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// `off`: no link agent beside the nodes, whose pods then pass where Pod Security is restricted; no Experiment can
    /// have faults there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<bool>,
    /// Keep each node's data on a volume of this size, such as 1Gi, so that it outlives the pod. Else it is as
    /// short-lived as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = "^[1-9][0-9]*(Mi|Gi|Ti)$"))]
    pub storage: Option<String>,
}

/// How the nodes agree on blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConsensusSpec {
    /// Byzantine fault tolerant: a block is final when more than 2/3 of the validators have signed it.
    pub bft: BftSpec,
}

/// Byzantine fault tolerant consensus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BftSpec {
    /// Pause between a final block and the next proposal, such as 500ms.
    #[schemars(schema_with = "schema::duration")]
    pub block_time: TextOrNumber,
    /// Timeouts of a round's steps; the chain's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsSpec>,
}

/// Timeouts of a round's steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimeoutsSpec {
    /// Wait for a proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub propose: Option<TextOrNumber>,
    /// Wait for prevotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub prevote: Option<TextOrNumber>,
    /// Wait for precommits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub precommit: Option<TextOrNumber>,
}

/// Nodes that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeGroupSpec {
    /// Its nodes are called name-0, name-1, ...
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// `validator` signs votes; `full` follows and relays.
    pub role: Role,
    /// How many; 1 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    pub count: Option<i32>,
    /// Where all its nodes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[A-Za-z0-9._:-]+$"))]
    pub region: Option<String>,
    /// In place of `region`: its nodes are dealt over these in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 40), regex(pattern = "^[A-Za-z0-9._:-]+$"))
    )]
    pub regions: Option<Vec<String>>,
}

/// What every link does without a fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BaseLinksSpec {
    /// A pack of measured wide-area links, such as aws-cometbft-e2e: every group needs its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub regions: Option<String>,
    /// In place of a pack: your own figures, a row for each direction between two regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub matrix: Option<Vec<MatrixRowSpec>>,
    #[serde(flatten)]
    pub links: LinksSpec,
}

/// Links from the nodes of one region to those of another one, or to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MatrixRowSpec {
    /// A region.
    #[schemars(length(min = 1, max = 40))]
    pub from: String,
    /// A region.
    #[schemars(length(min = 1, max = 40))]
    pub to: String,
    #[serde(flatten)]
    pub links: LinksSpec,
}

/// What a packet meets on a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinksSpec {
    /// One way, such as 20ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub latency: Option<TextOrNumber>,
    /// Largest deviation from the latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub jitter: Option<TextOrNumber>,
    /// Packets that are lost, such as 2%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::share")]
    pub loss: Option<TextOrNumber>,
    /// Bits a second, such as 10mbit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bits")]
    pub rate: Option<TextOrNumber>,
    /// Not on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::no_duplicate")]
    pub duplicate: Option<TextOrNumber>,
    /// Packets that skip the latency, and so overtake others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::share")]
    pub reorder: Option<TextOrNumber>,
    /// Packets in which a bit is flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::share")]
    pub corrupt: Option<TextOrNumber>,
}

/// Signed transfers sent while the testnet runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadSpec {
    /// Over all nodes together, such as 100/s.
    #[schemars(schema_with = "schema::rate")]
    pub transfers_per_second: TextOrNumber,
    /// How many accounts send them; 1000 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub accounts: Option<i32>,
}

/// How much history a node keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetentionSpec {
    /// Blocks.
    #[schemars(range(min = 100))]
    pub blocks: i64,
}

/// What is seen of a testnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestnetStatus {
    /// Pending, Starting, Running, Degraded or Invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes that the spec asks for.
    #[serde(default)]
    pub nodes: i32,
    /// Nodes that run and are followed.
    #[serde(default)]
    pub ready: i32,
    /// The highest final block of any node, as of the last report: at rest it is told every few minutes only.
    #[serde(default)]
    pub final_height: i64,
    /// The experiment that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// What stands in the way, as one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The links of which something is asked; absent while there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<LinksStatus>,
    /// Accepted, Ready, LinksSupported, Paused, LoadMadeWay.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Links as asked and as measured: counts, and the worst ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinksStatus {
    /// Directed links of the testnet.
    pub total: i64,
    /// Those that are shaped or measured.
    pub measured: i64,
    /// Those of these that are measured to be what is asked.
    pub as_asked: i64,
    /// The ten that are furthest from what is asked.
    #[schemars(length(max = 10))]
    pub worst: Vec<LinkStatus>,
}

/// One directed link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    pub from: String,
    pub to: String,
    /// The base, and what the active faults make of it.
    pub asked: LinksSpec,
    /// One way, without jitter, in microseconds; absent until enough probes came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<i64>,
    /// Of the last probes, those that must have come by now, but for loss.
    pub sent: i64,
    pub received: i64,
    /// What contradicts `asked`, or why nothing shows it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl LinksSpec {
    /// Fails for nothing that [`crate::Links`] can hold.
    pub fn of(links: &crate::Links) -> serde_json::Result<Self> {
        serde_json::from_value(serde_json::to_value(links)?)
    }

    /// What [`Self::of`] was made from.
    pub fn read(&self) -> serde_json::Result<crate::Links> {
        serde_json::from_value(serde_json::to_value(self)?)
    }
}

impl Testnet {
    /// The object of a testnet that was read from a file; [`Self::read`] gives it back. Fails for what only a file can
    /// say: a seed above the largest signed number.
    pub fn of(testnet: &crate::Testnet) -> serde_json::Result<Self> {
        Ok(Self::new(&testnet.name, super::spec_of(testnet)?))
    }

    /// What the object means, by the same reader that files go through; every problem at once.
    pub fn read(&self) -> Result<crate::Testnet, Problems> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        crate::parse::testnet_object(name, &self.spec)
    }
}
