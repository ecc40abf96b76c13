//! Parts of a schema that serde's types do not tell.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, ValidationRule,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// As the user wrote it; the reader of this crate tells what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TextOrNumber {
    Number(i64),
    Text(String),
}

/// `500ms`, `1m30s`; a bare zero needs no unit.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 40,
        "pattern": r"^(0|([0-9]+(\.[0-9]{1,6})?(d|h|m|s|ms))+)$",
        "x-kubernetes-validations": [{
            "rule": "type(self) != int || self == 0",
            "message": "a duration needs a unit: write for example 500ms, 20s or 1m30s",
        }],
    })
}

/// `500/s`, `500`, `30/m`.
pub(super) fn rate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 40,
        "minimum": 1,
        "pattern": r"^[0-9]+ *(/ *(s|m|min))?$",
    })
}

/// `netsplit`, or a chain with its options.
pub(super) fn chain(_: &mut SchemaGenerator) -> Schema {
    // A structural schema has no type that is a word or a map; the values themselves are few.
    json_schema!({
        "x-kubernetes-preserve-unknown-fields": true,
        "enum": ["netsplit", { "cometbft": {} }],
    })
}

/// `2%`, `0.05%`; a bare zero needs no unit.
pub(super) fn share(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 40,
        "pattern": r"^(0|[0-9]+(\.[0-9]{1,6})?%)$",
        "x-kubernetes-validations": [{
            "rule": "type(self) != int || self == 0",
            "message": "a share needs its sign: write for example 2%",
        }],
    })
}

/// `10mbit`.
pub(super) fn bits(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 40,
        "pattern": r"^[0-9]+(\.[0-9]{1,6})?[kKmMgG]?[bB][iI][tT]$",
        "x-kubernetes-validations": [{
            "rule": "type(self) != int",
            "message": "a rate needs a unit: write for example 10mbit",
        }],
    })
}

/// What the link agents of pods cannot do.
pub(super) fn no_duplicate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 40,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int && self == 0",
            "message": "packets are not duplicated on Kubernetes, where link agents may open no raw socket (NET_RAW): remove it",
        }],
    })
}

/// `bridge`, `isolate`, a group, a node, or a side's number.
pub(super) fn rest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 64, "minimum": 0 })
}

/// Names of nodes or groups, `role:R`, `region:R`, `random:N`.
pub(super) fn selectors(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_SELECTORS,
        "items": { "type": "string", "maxLength": 64 },
    })
}

/// The sides of a partition.
pub(super) fn sides(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_SIDES,
        "items": selectors(generator),
    })
}

/// Fewer than a file may have: the API server bounds what its rules may cost in the worst case.
const MAX_SIDES: usize = 100;
const MAX_SELECTORS: usize = 100;

/// What a rule over the whole object says: the expression that must hold, and what to do if it does not.
pub(super) type Rule = (&'static str, &'static str);

/// Rules of an object as a whole; these alone can see its name.
pub(super) fn with_rules(mut crd: CustomResourceDefinition, rules: &[Rule]) -> CustomResourceDefinition {
    let rule = |(rule, message): &Rule| ValidationRule {
        rule: (*rule).to_owned(),
        message: Some((*message).to_owned()),
        ..ValidationRule::default()
    };
    for version in &mut crd.spec.versions {
        let schema = version.schema.get_or_insert_default();
        let root: &mut JSONSchemaProps = schema.open_api_v3_schema.get_or_insert_default();
        root.x_kubernetes_validations.get_or_insert_default().extend(rules.iter().map(rule));
    }
    crd
}
