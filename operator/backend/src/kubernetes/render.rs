//! From names and files to objects. Pure: the same input gives the same objects, byte for byte.

mod names;
mod pod;

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{
            ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, Service, ServicePort,
            ServiceSpec, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};

use self::names::{check_names, key_of};
use super::config::{APP, APP_LABEL, GROUP_LABEL, GroupSpec, KubernetesConfig, MANAGER, TESTNET_LABEL};
use crate::backend::{NodeArtifacts, NodeFile};

/// What the API server takes in one ConfigMap or Secret, less room for names and encoding.
const MAX_OBJECT: usize = 1_000_000;
/// In the shared ConfigMap, beside the nodes' own files.
const CA_KEY: &str = "netsplit-tables-ca.pem";
/// Read by everybody: such a file may be in a ConfigMap.
const PUBLIC: u32 = 0o004;

/// Why no objects could be made. Nothing has been asked of the API server.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RenderError {
    #[error(
        "the name {name:?} of testnet and group has {length} characters, at most {limit} leave room for what is made of it: shorten one of the two"
    )]
    NameTooLong { name: String, length: usize, limit: usize },
    #[error("{name:?} cannot name Kubernetes objects: use lower case letters, digits and -, first a letter")]
    Name { name: String },
    #[error("no files were made for node {node:?}")]
    Missing { node: String },
    #[error("files were made for {node:?}, which is no node of testnet {testnet:?}")]
    Unknown { node: String, testnet: String },
    #[error("{node:?} and {other:?} are of one group, but differ in {what}: a group has one pod template")]
    Uneven { node: String, other: String, what: &'static str },
    #[error("the command of node {node:?} names no program")]
    NoProgram { node: String },
    #[error("the file {path:?} of node {node:?} cannot be a key of a Secret")]
    FileName { node: String, path: String },
    #[error(
        "the files of {object} have {bytes} bytes, and an object holds {limit}: use fewer nodes in a group, or fewer load accounts"
    )]
    TooLarge { object: String, bytes: usize, limit: usize },
}

/// Everything that a testnet is on the API server, in the order in which it has to be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    pub service: Service,
    /// What all nodes share: genesis, and the certificate authority of the table server.
    pub config_map: ConfigMap,
    /// One a group, with the files of each of its nodes.
    pub secrets: Vec<Secret>,
    /// One a group.
    pub stateful_sets: Vec<StatefulSet>,
}

/// The files of a group's nodes, by where they go.
struct GroupFiles<'a> {
    /// In the ConfigMap: path and key.
    shared: Vec<(&'a Path, String)>,
    /// In the group's Secret: path and key without the pod's name.
    own: Vec<(&'a Path, String)>,
    program: &'a str,
    args: &'a [String],
    environment: &'a [(String, String)],
    /// Changes when a file does.
    digest: String,
}

/// Turns the nodes' files into objects. `nodes` has an entry for every node of the configuration.
pub fn render(config: &KubernetesConfig, nodes: &[NodeArtifacts]) -> Result<Objects, RenderError> {
    check_names(config)?;
    let by_name: BTreeMap<&str, &NodeArtifacts> =
        nodes.iter().map(|node| (node.node.as_str(), node)).collect();
    if let Some(node) = nodes.iter().find(|node| config.known(&node.node).is_err()) {
        return Err(RenderError::Unknown { node: node.node.clone(), testnet: config.testnet.clone() });
    }
    let all = config
        .node_names()
        .map(|name| by_name.get(name.as_str()).copied().ok_or(RenderError::Missing { node: name }))
        .collect::<Result<Vec<_>, _>>()?;
    let shared = shared_files(&all)?;
    let mut objects = Objects {
        service: service(config),
        config_map: config_map(config, &shared)?,
        secrets: Vec::new(),
        stateful_sets: Vec::new(),
    };
    for group in &config.groups {
        let members: Vec<&NodeArtifacts> = (0..group.count)
            .filter_map(|n| by_name.get(format!("{}-{n}", group.name).as_str()).copied())
            .collect();
        let Some(files) = group_files(&members, &shared)? else { continue };
        objects.secrets.push(secret(config, group, &members, &files)?);
        objects.stateful_sets.push(stateful_set(config, group, &files));
    }
    Ok(objects)
}

/// The files that every node has alike and anybody may read.
fn shared_files<'a>(nodes: &[&'a NodeArtifacts]) -> Result<BTreeMap<String, &'a NodeFile>, RenderError> {
    let Some((first, others)) = nodes.split_first() else { return Ok(BTreeMap::new()) };
    // With one node nothing tells what is its own: all of it goes where only this node reads.
    let alike = |file: &&NodeFile| {
        !others.is_empty() && file.mode & PUBLIC != 0 && others.iter().all(|node| node.files.contains(file))
    };
    first.files.iter().filter(alike).map(|file| Ok((key_of(first, file)?, file))).collect()
}

/// Where the files of a group go; `None` for a group without nodes.
fn group_files<'a>(
    members: &[&'a NodeArtifacts],
    shared: &BTreeMap<String, &NodeFile>,
) -> Result<Option<GroupFiles<'a>>, RenderError> {
    let Some((first, others)) = members.split_first() else { return Ok(None) };
    let paths = |node: &'a NodeArtifacts| {
        node.files
            .iter()
            .map(|file| Ok((file.path.as_path(), key_of(node, file)?)))
            .collect::<Result<Vec<_>, _>>()
    };
    let all = paths(first)?;
    for other in others {
        let uneven = |what| RenderError::Uneven { node: first.node.clone(), other: other.node.clone(), what };
        if paths(other)? != all {
            return Err(uneven("the names of their files"));
        }
        if other.command != first.command {
            return Err(uneven("their commands"));
        }
        if other.environment != first.environment {
            return Err(uneven("their environments"));
        }
    }
    let (shared, own) = all.into_iter().partition(|(_, key)| shared.contains_key(key));
    let Some((program, args)) = first.command.split_first() else {
        return Err(RenderError::NoProgram { node: first.node.clone() });
    };
    let (environment, digest) = (first.environment.as_slice(), digest(members));
    Ok(Some(GroupFiles { shared, own, program, args, environment, digest }))
}

/// A node reads its files when it starts: a group's pods are replaced, one at a time, when one of them changes. What only
/// the node may read is left out; it does not change alone.
fn digest(members: &[&NodeArtifacts]) -> String {
    let public = members.iter().flat_map(|node| &node.files).filter(|file| file.mode & PUBLIC != 0);
    let bytes = public.flat_map(|file| file.path.as_os_str().as_encoded_bytes().iter().chain(&file.contents));
    // FNV-1a: the same on every machine and in every release.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn labels(config: &KubernetesConfig, group: Option<&GroupSpec>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (APP_LABEL.to_owned(), APP.to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned()),
        (TESTNET_LABEL.to_owned(), config.testnet.clone()),
    ]);
    if let Some(group) = group {
        labels.insert(GROUP_LABEL.to_owned(), group.name.clone());
    }
    labels
}

/// What finds the pods; never changed, since a StatefulSet's selector cannot be.
fn selector(config: &KubernetesConfig, group: Option<&GroupSpec>) -> BTreeMap<String, String> {
    let mut labels = labels(config, group);
    labels.remove("app.kubernetes.io/managed-by");
    labels
}

fn meta(config: &KubernetesConfig, name: String, group: Option<&GroupSpec>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(config.namespace.clone()),
        labels: Some(labels(config, group)),
        owner_references: Some(vec![config.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn service(config: &KubernetesConfig) -> Service {
    let port = |name: &str, protocol: &str, port: u16| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: port.into(),
        ..ServicePort::default()
    };
    Service {
        metadata: meta(config, config.testnet.clone(), None),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // Nodes look for each other before they are ready, and while a fault keeps them from being so.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(config, None)),
            ports: Some(vec![
                port("peer-tcp", "TCP", config.ports.peer),
                port("peer-udp", "UDP", config.ports.peer),
                port("api", "TCP", config.ports.api),
                port("http", "TCP", config.ports.http),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn config_map(
    config: &KubernetesConfig,
    shared: &BTreeMap<String, &NodeFile>,
) -> Result<ConfigMap, RenderError> {
    let mut text = BTreeMap::new();
    let mut binary = BTreeMap::new();
    for (key, file) in shared {
        match String::from_utf8(file.contents.clone()) {
            Ok(contents) => drop(text.insert(key.clone(), contents)),
            Err(error) => drop(binary.insert(key.clone(), ByteString(error.into_bytes()))),
        }
    }
    if config.faults {
        text.insert(CA_KEY.to_owned(), config.tables.ca_pem.clone());
    }
    fits(
        || format!("the ConfigMap {}", config.testnet),
        text.values().map(String::len).sum::<usize>()
            + binary.values().map(|bytes| bytes.0.len()).sum::<usize>(),
    )?;
    Ok(ConfigMap {
        metadata: meta(config, config.testnet.clone(), None),
        data: Some(text),
        binary_data: (!binary.is_empty()).then_some(binary),
        immutable: None,
    })
}

fn secret(
    config: &KubernetesConfig,
    group: &GroupSpec,
    members: &[&NodeArtifacts],
    files: &GroupFiles<'_>,
) -> Result<Secret, RenderError> {
    let mut data = BTreeMap::new();
    for node in members {
        let pod = config.pod_name(&node.node);
        for (path, key) in &files.own {
            let file = node.files.iter().find(|file| file.path == *path);
            let file = file.ok_or_else(|| RenderError::Missing { node: node.node.clone() })?;
            data.insert(format!("{pod}.{key}"), ByteString(file.contents.clone()));
        }
    }
    let name = config.set_name(&group.name);
    fits(|| format!("the Secret {name}"), data.values().map(|bytes| bytes.0.len()).sum())?;
    Ok(Secret {
        metadata: meta(config, name, Some(group)),
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

fn fits(object: impl Fn() -> String, bytes: usize) -> Result<(), RenderError> {
    if bytes > MAX_OBJECT {
        return Err(RenderError::TooLarge { object: object(), bytes, limit: MAX_OBJECT });
    }
    Ok(())
}

fn stateful_set(config: &KubernetesConfig, group: &GroupSpec, files: &GroupFiles<'_>) -> StatefulSet {
    let claim = |quantity: &String| PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(pod::DATA_VOLUME.to_owned()),
            labels: Some(selector(config, Some(group))),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(quantity.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    };
    StatefulSet {
        metadata: meta(config, config.set_name(&group.name), Some(group)),
        spec: StatefulSetSpec {
            replicas: Some(i32::try_from(group.count).unwrap_or(i32::MAX)),
            service_name: Some(config.testnet.clone()),
            // All at once: consensus needs most of them before any can be ready.
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            revision_history_limit: Some(2),
            selector: LabelSelector {
                match_labels: Some(selector(config, Some(group))),
                ..LabelSelector::default()
            },
            template: pod::template(config, group, files),
            volume_claim_templates: config.storage.as_ref().map(|quantity| vec![claim(quantity)]),
            // A testnet that is deleted leaves nothing; one that is scaled down finds its data again.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Delete".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            ..StatefulSetSpec::default()
        },
        status: None,
    }
}
