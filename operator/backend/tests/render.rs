//! The objects of a testnet, as they are sent to the API server.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

use std::time::Duration;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::OwnerReference};
use netsplit_backend::{
    NodeArtifacts, NodeFile,
    kubernetes::{
        GroupSpec, Images, KubernetesConfig, NodePorts, Objects, RenderError, TablesAddress, render,
    },
};

fn config() -> KubernetesConfig {
    KubernetesConfig {
        namespace: "lab".into(),
        testnet: "golden".into(),
        owner: OwnerReference {
            api_version: "netsplit.dev/v1alpha1".into(),
            kind: "Testnet".into(),
            name: "golden".into(),
            uid: "0000".into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        images: Images {
            node: "netsplit-node:test".into(),
            agent: "netsplit:test".into(),
            pull_policy: "IfNotPresent".into(),
        },
        ports: NodePorts { peer: 26600, api: 26601, http: 26602 },
        tables: TablesAddress {
            service_dns: "netsplit-tables.netsplit.svc".into(),
            port: 26610,
            ca_pem: "the authority\n".into(),
        },
        faults: true,
        storage: None,
        fault_lease: Duration::from_secs(30),
        groups: vec![group("validator", 2), group("full", 1)],
    }
}

fn group(name: &str, count: u32) -> GroupSpec {
    GroupSpec { name: name.into(), count }
}

fn file(path: &str, contents: &str, mode: u32) -> NodeFile {
    NodeFile { path: path.into(), contents: contents.into(), mode }
}

fn node(name: &str) -> NodeArtifacts {
    let mut files = vec![
        file("genesis.json", "{}\n", 0o644),
        file("node.toml", &format!("name = \"{name}\"\n"), 0o644),
        file("node.key", &format!("key of {name}\n"), 0o600),
    ];
    if name.starts_with("validator") {
        files.push(file("validator.key", &format!("vote of {name}\n"), 0o600));
    }
    let command = ["netsplit-node", "--config", "node.toml"].map(String::from).to_vec();
    NodeArtifacts { node: name.into(), files, command, environment: Vec::new() }
}

fn nodes(config: &KubernetesConfig) -> Vec<NodeArtifacts> {
    config.node_names().map(|name| node(&name)).collect()
}

fn rendered(config: &KubernetesConfig) -> Objects {
    render(config, &nodes(config)).unwrap()
}

#[test]
fn two_validators_and_a_full_node() {
    let Objects { service, config_map, secrets, stateful_sets } = rendered(&config());
    insta::assert_yaml_snapshot!("service", service);
    insta::assert_yaml_snapshot!("config-map", config_map);
    insta::assert_yaml_snapshot!("secret-validator", secrets[0]);
    insta::assert_yaml_snapshot!("stateful-set-validator", stateful_sets[0]);
    assert_eq!((secrets.len(), stateful_sets.len()), (2, 2));
}

#[test]
fn storage_and_faults_off() {
    let config = KubernetesConfig { faults: false, storage: Some("1Gi".into()), ..config() };
    let objects = rendered(&config);
    insta::assert_yaml_snapshot!("stateful-set-restricted", objects.stateful_sets[1]);
    assert!(!objects.config_map.data.unwrap().contains_key("netsplit-tables-ca.pem"));
}

/// Nodes read their files when they start: their pods are replaced when these change, and not when nothing but the number of
/// another group's nodes does.
#[test]
fn a_group_is_replaced_when_one_of_its_files_changes() {
    let small = config();
    let large = KubernetesConfig { groups: vec![group("validator", 2), group("full", 3)], ..config() };
    let set = |objects: &Objects, group: usize| objects.stateful_sets[group].spec.template.clone();
    let (before, after) = (rendered(&small), rendered(&large));
    assert_eq!(set(&before, 0), set(&after, 0));
    assert_ne!(set(&before, 1), set(&after, 1));

    let mut nodes = nodes(&small);
    nodes[1].files[1].contents.extend(b"peers = 7\n");
    let after = render(&small, &nodes).unwrap();
    assert_ne!(set(&before, 0), set(&after, 0));
    assert_eq!(set(&before, 1), set(&after, 1));
}

#[test]
fn a_pod_mounts_its_own_files() {
    let large = KubernetesConfig { groups: vec![group("validator", 4), group("full", 3)], ..config() };
    let large = rendered(&large);
    let secret = large.secrets[0].data.clone().unwrap();
    assert_eq!(secret["golden-validator-3.validator.key"], ByteString(b"vote of validator-3\n".to_vec()));
    let pod = large.stateful_sets[0].spec.template.spec.clone().unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    // Nothing of the Secret is mounted but by the pod's own name, and nothing secret is in the ConfigMap.
    let own: Vec<_> = mounts.iter().filter(|mount| mount.name == "own").collect();
    assert_eq!(own.len(), 3);
    assert!(own.iter().all(|mount| mount.sub_path_expr.as_ref().unwrap().starts_with("$(POD_NAME).")));
    assert!(!large.config_map.data.unwrap().values().any(|text| text.contains("key of")));
}

#[test]
fn what_cannot_be_an_object_is_refused() {
    let refused = |change: fn(&mut KubernetesConfig, &mut Vec<NodeArtifacts>)| {
        let mut config = config();
        let mut nodes = nodes(&config);
        change(&mut config, &mut nodes);
        render(&config, &nodes).unwrap_err()
    };
    let error = refused(|config, _| config.testnet = "t".repeat(45));
    assert!(matches!(error, RenderError::NameTooLong { length: 55, limit: 52, .. }), "{error}");
    assert!(matches!(refused(|config, _| config.testnet = "Upper".into()), RenderError::Name { .. }));
    assert!(
        matches!(refused(|_, nodes| drop(nodes.remove(1))), RenderError::Missing { node } if node == "validator-1")
    );
    assert!(matches!(refused(|_, nodes| nodes.push(node("light-0"))), RenderError::Unknown { .. }));
    assert!(matches!(refused(|_, nodes| nodes[1].command.push("--fast".into())), RenderError::Uneven { .. }));
    assert!(matches!(refused(|_, nodes| drop(nodes[1].files.pop())), RenderError::Uneven { .. }));
    let other = |_: &mut KubernetesConfig, nodes: &mut Vec<NodeArtifacts>| {
        nodes[1].environment.push(("RUST_LOG".into(), "debug".into()));
    };
    assert!(matches!(refused(other), RenderError::Uneven { .. }));
    assert!(matches!(
        refused(|_, nodes| nodes.iter_mut().for_each(|node| node.files[0].path = "../genesis.json".into())),
        RenderError::FileName { .. }
    ));
    let error = refused(|_, nodes| {
        for node in nodes {
            node.files[0].contents = vec![b' '; 1_100_000];
        }
    });
    assert!(error.to_string().starts_with("the files of the ConfigMap golden have 1100014 bytes"), "{error}");
}
