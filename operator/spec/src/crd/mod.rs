//! `Testnet` and `Experiment` as custom resources of Kubernetes: their schema, what the API server refuses by itself, and
//! their status.
//!
//! The spec of an object is the `spec` of the same document in a file, field by field. What it means is decided in one
//! place for both, the reader of this crate ([`Testnet::read`], [`Experiment::read`]); the schema here refuses at
//! admission what can be refused without knowing any other object.

#[allow(clippy::duplicated_attributes, reason = "two columns of a table may be of one type")]
mod experiment;
mod schema;
mod status;
#[allow(clippy::duplicated_attributes, reason = "two columns of a table may be of one type")]
mod testnet;

pub use experiment::{
    AbortSpec, CutSpec, ExpectSpec, ExpectationStatus, Experiment, ExperimentSpec, ExperimentStatus,
    FaultSpec, FaultStatus, LatencySpec, LinkSpec, RampSpec, ThroughputSpec, WithinSpec,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt as _;
pub use schema::TextOrNumber;
use serde::{Serialize, de::DeserializeOwned};
pub use status::{Condition, ConditionStatus, set_condition};
pub use testnet::{
    BaseLinksSpec, BftSpec, ConsensusSpec, LinkStatus, LinksSpec, LinksStatus, LoadSpec, MatrixRowSpec,
    NodeGroupSpec, RetentionSpec, Testnet, TestnetSpec, TestnetStatus, TimeoutsSpec,
};

/// The API group of both kinds.
pub const GROUP: &str = "netsplit.dev";

/// What a document says beside its name, in the words of the schema. Both follow from the same fields.
fn spec_of<T: DeserializeOwned>(document: &impl Serialize) -> serde_json::Result<T> {
    let mut value = serde_json::to_value(document)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("name");
    }
    serde_json::from_value(value)
}

/// Both definitions, with the file name that each is kept under.
pub fn definitions() -> [(&'static str, CustomResourceDefinition); 2] {
    let testnet = schema::with_rules(Testnet::crd(), testnet::RULES);
    let experiment = schema::with_rules(Experiment::crd(), experiment::RULES);
    [("testnets.yaml", testnet), ("experiments.yaml", experiment)]
}
