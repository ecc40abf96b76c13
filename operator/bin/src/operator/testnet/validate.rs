//! The first step: what the object means.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource as _, ResourceExt as _};
use netsplit_spec::crd::{Testnet, TestnetStatus};

use crate::{
    by_hand::MARK,
    operator::fleet::{Guarded, Key},
};

/// The annotation that keeps the operator from changing anything of a testnet, as long as it is `true`.
pub const PAUSED: &str = "netsplit.dev/paused";

/// A testnet that can be built.
pub struct Valid {
    pub key: Key,
    pub uid: String,
    pub generation: Option<i64>,
    pub owner: OwnerReference,
    pub reference: ObjectReference,
    pub spec: netsplit_spec::Testnet,
    /// Somebody wants to change by hand what it is made of.
    pub is_paused: bool,
    /// Somebody sends transfers by hand: the mark as it stands.
    pub mark: Option<String>,
    /// As it was told last.
    pub status: TestnetStatus,
}

/// Every problem, each a sentence.
pub fn validate(object: &Guarded<Testnet>) -> Result<Valid, Vec<String>> {
    let testnet = object.0.as_ref().map_err(|error| vec![format!("the object cannot be read: {error}")])?;
    let sentences = |problems: netsplit_spec::Problems| {
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect::<Vec<_>>()
    };
    let spec = testnet.read().map_err(sentences)?;
    let unnamed = || vec!["the object has no namespace or UID".to_owned()];
    Ok(Valid {
        key: (testnet.namespace().ok_or_else(unnamed)?, testnet.name_any()),
        uid: testnet.uid().ok_or_else(unnamed)?,
        generation: testnet.metadata.generation,
        owner: testnet.controller_owner_ref(&()).ok_or_else(unnamed)?,
        reference: testnet.object_ref(&()),
        spec,
        is_paused: testnet.annotations().get(PAUSED).is_some_and(|value| value == "true"),
        mark: testnet.annotations().get(MARK).cloned(),
        status: testnet.status.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: &serde_json::Value) -> Guarded<Testnet> {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "netsplit.dev/v1alpha1",
            "kind": "Testnet",
            "metadata": { "name": "net", "namespace": "ns", "uid": "1", "generation": 3 },
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn an_object_is_read_or_every_problem_is_told() {
        let spec = serde_json::json!({
            "consensus": { "bft": { "blockTime": "1s" } },
            "nodes": [{ "name": "a", "role": "validator", "count": 4 }],
        });
        let valid = validate(&object(&spec)).ok().unwrap();
        assert_eq!((valid.key.0.as_str(), valid.generation), ("ns", Some(3)));
        let spec = serde_json::json!({
            "consensus": { "bft": { "blockTime": "1" } },
            "nodes": [{ "name": "a", "role": "full", "count": 4 }],
        });
        let problems = validate(&object(&spec)).err().unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("spec.consensus.bft.blockTime: `1` has no unit"), "{problems:?}");
    }

    #[test]
    fn an_object_of_another_shape_stalls_nobody() {
        let problems = validate(&object(&serde_json::json!({ "nodes": 3 }))).err().unwrap();
        assert!(problems[0].starts_with("the object cannot be read:"), "{problems:?}");
    }
}
