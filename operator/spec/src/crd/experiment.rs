//! The `Experiment` resource.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, Rule, TextOrNumber};
use super::status::Condition;
use super::testnet::LinksSpec;
use crate::problem::Problems;

pub(super) const RULES: &[Rule] = &[
    ("size(self.metadata.name) <= 40", "metadata.name: 40 characters are the most"),
    (
        "self.spec == oldSelf.spec || !has(oldSelf.status) || !has(oldSelf.status.startedAt)",
        "an experiment that has started cannot be changed: make another one, or delete it and apply it again",
    ),
];

/// Faults on a clock, and what the chain must do meanwhile.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "netsplit.dev",
    version = "v1alpha1",
    kind = "Experiment",
    plural = "experiments",
    shortname = "exp",
    category = "netsplit",
    namespaced,
    derive = "PartialEq",
    status = "ExperimentStatus",
    doc = "Faults that are done to a Testnet on a clock, what its chain must do meanwhile, and the verdict. Without \
           `expect` it is a plain fault.",
    crates(kube_core = "kube_core"),
    printcolumn(name = "Testnet", type_ = "string", json_path = ".spec.testnet"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Faults", type_ = "string", json_path = ".status.faultSummary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reasons[0]")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.faults) && size(self.faults) > 0) || (has(self.expect) && size(self.expect) > 0)",
    "message": "spec has neither `faults` nor `expect`: there is nothing to do",
}]))]
pub struct ExperimentSpec {
    /// The name of the Testnet, in the same namespace.
    #[schemars(length(min = 1, max = 40))]
    pub testnet: String,
    /// What is done to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub faults: Vec<FaultSpec>,
    /// What must be seen, else the run fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub expect: Vec<ExpectSpec>,
    /// How long the chain is watched before the first fault: 5s or until the first fault, unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub baseline: Option<TextOrNumber>,
    /// How long it is watched after the last heal, at least; 2s unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub settle: Option<TextOrNumber>,
    /// What ends the run before its time, as Aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortSpec>,
}

/// What nobody wants to go on watching. A fork ends every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct AbortSpec {
    /// No block was final on any node for longer, such as 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub silent: Option<TextOrNumber>,
}

/// One fault: what, when and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.partition), has(self.cut), has(self.link), has(self.kill), has(self.pause), has(self.restart)].filter(given, given).size() == 1",
        "message": "a fault has one of `partition`, `cut`, `link`, `kill`, `pause` and `restart`",
    },
    {
        "rule": "has(self.every) == has(self.repeat)",
        "message": "`every` and `repeat` go together: write both, or none",
    },
    {
        "rule": "!has(self.rest) || has(self.partition)",
        "message": "only a `partition` has a `rest`: remove it",
    },
]))]
pub struct FaultSpec {
    /// How `after` names it; `fault-N` (N = its place, from 0) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// From the start of the run, of which the baseline is the first part.
    #[schemars(schema_with = "schema::duration")]
    pub at: TextOrNumber,
    /// How long it lasts; a second at least, since it has to be proven.
    #[serde(rename = "for")]
    #[schemars(schema_with = "schema::duration")]
    pub lasts: TextOrNumber,
    /// From one start to the next, with `repeat`: at least a second longer than it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub every: Option<TextOrNumber>,
    /// How often it comes in all; its occurrences are called `name/1`, `name/2`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub repeat: Option<i32>,
    /// Of a `link`: its latency and loss go from these to its own, in equal steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<RampSpec>,
    /// The sides, each a list of nodes or groups: no link between two of them works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::sides")]
    pub partition: Option<Vec<Vec<String>>>,
    /// Where nodes stand that no side names: `bridge`, `isolate`, a group or a side's number. Without it every node must
    /// be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rest")]
    pub rest: Option<TextOrNumber>,
    /// Links from one set of nodes to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutSpec>,
    /// The same links, changed instead of cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkSpec>,
    /// Nodes or groups that are ended as by a crash, and started again at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selectors")]
    pub kill: Option<Vec<String>>,
    /// Nodes or groups that are stopped where they are, and go on at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selectors")]
    pub pause: Option<Vec<String>>,
    /// Nodes or groups that are ended in order, and started again at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selectors")]
    pub restart: Option<Vec<String>>,
}

/// Where a `link` begins, and how long it takes to what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RampSpec {
    /// How long it takes; at least 2s less than the fault lasts.
    #[schemars(schema_with = "schema::duration")]
    pub over: TextOrNumber,
    /// The latency that it begins with; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub latency: Option<TextOrNumber>,
    /// The loss that it begins with, such as 1%; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), regex(pattern = r"^(0|[0-9]+(\.[0-9]{1,6})?%)$"))]
    pub loss: Option<String>,
}

/// Links from one set of nodes to another, both ways unless `oneWay`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CutSpec {
    /// Nodes or groups.
    #[schemars(schema_with = "schema::selectors")]
    pub from: Vec<String>,
    /// Nodes or groups.
    #[schemars(schema_with = "schema::selectors")]
    pub to: Vec<String>,
    /// Only what `from` sends to `to` is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<bool>,
}

/// A change of links from one set of nodes to another, both ways unless `oneWay`. What is not named stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkSpec {
    /// Nodes or groups.
    #[schemars(schema_with = "schema::selectors")]
    pub from: Vec<String>,
    /// Nodes or groups.
    #[schemars(schema_with = "schema::selectors")]
    pub to: Vec<String>,
    /// Only packets from `from` to `to` meet it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<bool>,
    #[serde(flatten)]
    pub links: LinksSpec,
}

/// One thing that must be seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ExpectSpec {
    /// Finality stops on every node `within` the fault's start, and stays stopped until its heal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<WithinSpec>,
    /// Every node makes a new block final, `within` the fault's heal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<WithinSpec>,
    /// The chain's highest final height never stands still for longer than `within`; 5s unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressSpec>,
    /// No two nodes make different blocks final at one height, ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementSpec>,
    /// No two nodes come to different states by one block, ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<ValiditySpec>,
    /// Of the load's transfers that became final after the baseline, so many took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySpec>,
    /// So many of the load's transfers became final a second, from the baseline's end to the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<ThroughputSpec>,
}

/// Longest times from handing a transfer over to its finality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct LatencySpec {
    /// Of a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub p50: Option<TextOrNumber>,
    /// Of nine in ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub p90: Option<TextOrNumber>,
    /// Of 99 in a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub p99: Option<TextOrNumber>,
}

/// The least that the load must reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThroughputSpec {
    /// Transfers a second, such as 90/s.
    #[schemars(schema_with = "schema::rate")]
    pub at_least: TextOrNumber,
}

/// A time limit after a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WithinSpec {
    /// The limit, such as 5s.
    #[schemars(schema_with = "schema::duration")]
    pub within: TextOrNumber,
    /// The fault's name; the last one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub after: Option<String>,
}

/// A time limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressSpec {
    /// The limit, such as 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub within: Option<TextOrNumber>,
}

/// Nothing to say about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgreementSpec {}

/// Nothing to say about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValiditySpec {}

/// What is seen of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStatus {
    /// Waiting (for the testnet, or for another experiment), Pending, Baseline, Running, Recovering; then Passed, Failed,
    /// Invalid or Aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why it waits, or why it did not pass; each a sentence.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// From then on the spec cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub started_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub finished_at: Option<String>,
    /// What was expected, and what was seen.
    #[serde(default)]
    pub expectations: Vec<ExpectationStatus>,
    /// Each fault that was asked for.
    #[serde(default)]
    pub faults: Vec<FaultStatus>,
    /// The same in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_summary: Option<String>,
    /// What a person reads at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The same for programs, with the timeline: the JSON that `netsplit run --json` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Accepted, Complete, Passed.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where the run stands, for the operator's successor; gone when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// One expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectationStatus {
    /// What was expected.
    pub text: String,
    /// Passed, Failed, Invalid or NotJudged.
    pub outcome: String,
    /// What was seen.
    pub detail: String,
    /// What was measured against `within`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_ms: Option<i64>,
}

/// One fault, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultStatus {
    pub id: String,
    /// applying, proven, violated, healing or open.
    pub state: String,
    /// Directed links that it cuts or changes.
    pub links: i64,
    /// Packets that its rules have dropped.
    pub dropped: i64,
    /// What proves it, or what is missing.
    pub evidence: String,
    /// When its last rule was in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub applied_at: Option<String>,
    /// When its rules were gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub healed_at: Option<String>,
}

impl Experiment {
    /// The object of an experiment that was read from a file; [`Self::read`] gives it back.
    pub fn of(experiment: &crate::Experiment) -> serde_json::Result<Self> {
        Ok(Self::new(&experiment.name, super::spec_of(experiment)?))
    }

    /// What the object means, by the same reader that files go through; every problem at once. Whether it fits its
    /// testnet is left to [`crate::validate`].
    pub fn read(&self) -> Result<crate::Experiment, Problems> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        crate::parse::experiment_object(name, &self.spec)
    }
}
