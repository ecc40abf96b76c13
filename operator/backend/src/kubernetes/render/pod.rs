//! The pod of a node: the node itself, before it the link agent, and around it the keeper that the agent brings.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort,
        EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
        PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, SeccompProfile,
        SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{CA_KEY, GroupFiles, labels};
use crate::kubernetes::config::{
    AGENT_CONTAINER, AGENT_PORT, GroupSpec, KEEPER_PROGRAM, KEEPER_SOCKET, KubernetesConfig, NODE_CONTAINER,
    TOKEN_AUDIENCE,
};

/// Tells pods that were started with other files.
const FILES: &str = "netsplit.dev/files";
pub(super) const DATA_VOLUME: &str = "data";
const SHARED_VOLUME: &str = "shared";
const OWN_VOLUME: &str = "own";
const TABLES_VOLUME: &str = "tables";
const KEEPER_VOLUME: &str = "keeper";
/// A node's folder; what it writes goes below `data`.
const NODE_FOLDER: &str = "/netsplit";
const TABLES_FOLDER: &str = "/var/run/netsplit";
/// In both containers: the agent puts the keeper there, and the keeper its socket.
const KEEPER_FOLDER: &str = "/var/run/netsplit-keeper";
const CA_FILE: &str = "ca.pem";
const TOKEN_FILE: &str = "token";
/// The user of distroless and many other images.
const NOBODY: i64 = 65_532;
/// Kubernetes grants no shorter-lived token than ten minutes; it is replaced well before its end.
const TOKEN_SECONDS: i64 = 600;
/// A node that was asked to end has so long to sync its store.
const GRACE_SECONDS: i64 = 10;
/// The agent holds an answer back until it knows more, so that a node starts as soon as it may.
const STARTUP_TIMEOUT_SECONDS: i32 = 10;
/// What starting the container and reaching the operator may take beyond a whole fault lease.
const STARTUP_SLACK_SECONDS: u64 = 120;

pub(super) fn template(
    config: &KubernetesConfig,
    group: &GroupSpec,
    files: &GroupFiles<'_>,
) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(config, Some(group))),
            annotations: Some(BTreeMap::from([(FILES.to_owned(), files.digest.clone())])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            init_containers: config.faults.then(|| vec![agent(config)]),
            containers: vec![node(config, files)],
            volumes: Some(volumes(config, group)),
            security_context: Some(PodSecurityContext {
                // The node's files are the group's to read.
                fs_group: Some(NOBODY),
                seccomp_profile: Some(seccomp()),
                ..PodSecurityContext::default()
            }),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            ..PodSpec::default()
        }),
    }
}

fn volumes(config: &KubernetesConfig, group: &GroupSpec) -> Vec<Volume> {
    let mut volumes = vec![
        Volume {
            name: SHARED_VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: config.testnet.clone(),
                default_mode: Some(0o444),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: OWN_VOLUME.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(config.set_name(&group.name)),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
    ];
    if config.storage.is_none() {
        volumes.push(Volume {
            name: DATA_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
    }
    if config.faults {
        volumes.push(Volume {
            name: KEEPER_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        volumes.push(Volume {
            name: TABLES_VOLUME.to_owned(),
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(0o400),
                sources: Some(vec![
                    VolumeProjection {
                        service_account_token: Some(ServiceAccountTokenProjection {
                            audience: Some(TOKEN_AUDIENCE.to_owned()),
                            expiration_seconds: Some(TOKEN_SECONDS),
                            path: TOKEN_FILE.to_owned(),
                            ..ServiceAccountTokenProjection::default()
                        }),
                        ..VolumeProjection::default()
                    },
                    VolumeProjection {
                        config_map: Some(ConfigMapProjection {
                            name: config.testnet.clone(),
                            items: Some(vec![KeyToPath {
                                key: CA_KEY.to_owned(),
                                path: CA_FILE.to_owned(),
                                ..KeyToPath::default()
                            }]),
                            optional: None,
                        }),
                        ..VolumeProjection::default()
                    },
                ]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    volumes
}

fn node(config: &KubernetesConfig, files: &GroupFiles<'_>) -> Container {
    let mount = |volume: &str, path: String| VolumeMount {
        name: volume.to_owned(),
        mount_path: path,
        ..VolumeMount::default()
    };
    let at = |path: &std::path::Path| format!("{NODE_FOLDER}/{}", path.display());
    let shared = files.shared.iter().map(|(path, key)| VolumeMount {
        sub_path: Some(key.clone()),
        read_only: Some(true),
        ..mount(SHARED_VOLUME, at(path))
    });
    // The pod sees its own entries of the group's Secret and no other's.
    let own = files.own.iter().map(|(path, key)| VolumeMount {
        sub_path_expr: Some(format!("$(POD_NAME).{key}")),
        read_only: Some(true),
        ..mount(OWN_VOLUME, at(path))
    });
    let port = |name: &str, protocol: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        container_port: port.into(),
        ..ContainerPort::default()
    };
    let environment = files.environment.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(value.clone()),
        ..EnvVar::default()
    });
    let keeper = config.faults.then(|| mount(KEEPER_VOLUME, KEEPER_FOLDER.to_owned()));
    Container {
        name: NODE_CONTAINER.to_owned(),
        image: Some(config.images.node.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        // Without a keeper the program is the image's entry point.
        command: config.faults.then(|| kept(files.program)),
        args: Some(files.args.to_vec()),
        working_dir: Some(NODE_FOLDER.to_owned()),
        env: Some([field("POD_NAME", "metadata.name")].into_iter().chain(environment).collect()),
        ports: Some(vec![
            port("peer-tcp", "TCP", config.ports.peer),
            port("peer-udp", "UDP", config.ports.peer),
            port("api", "TCP", config.ports.api),
            port("http", "TCP", config.ports.http),
        ]),
        volume_mounts: Some(
            shared
                .chain(own)
                .chain([mount(DATA_VOLUME, format!("{NODE_FOLDER}/data"))])
                .chain(keeper)
                .collect(),
        ),
        readiness_probe: Some(Probe {
            http_get: Some(get("/ready", config.ports.http)),
            period_seconds: Some(1),
            timeout_seconds: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        // Satisfies the restricted Pod Security Standard.
        security_context: Some(SecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            ..confined(&[])
        }),
        ..Container::default()
    }
}

/// The kubelet starts a container again when its first process ends: faults that stop a node need one that stays.
fn kept(program: &str) -> Vec<String> {
    let keeper = format!("{KEEPER_FOLDER}/{KEEPER_PROGRAM}");
    let socket = format!("{KEEPER_FOLDER}/{KEEPER_SOCKET}");
    [&keeper, "--socket", &socket, "--", program].map(str::to_owned).to_vec()
}

/// A sidecar: started before the node, and kept beside it.
fn agent(config: &KubernetesConfig) -> Container {
    let text = |text: &str| text.to_owned();
    Container {
        name: AGENT_CONTAINER.to_owned(),
        image: Some(config.images.agent.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        restart_policy: Some("Always".to_owned()),
        args: Some(vec![
            text(crate::kubernetes::agent::COMMAND),
            text("--tables"),
            format!("{}:{}", config.tables.service_dns, config.tables.port),
            text("--ca"),
            format!("{TABLES_FOLDER}/{CA_FILE}"),
            text("--token"),
            format!("{TABLES_FOLDER}/{TOKEN_FILE}"),
            text("--peer-port"),
            config.ports.peer.to_string(),
            text("--keeper"),
            text(KEEPER_FOLDER),
            text("--fault-lease-ms"),
            config.fault_lease.as_millis().to_string(),
        ]),
        env: Some(vec![
            field("POD_NAME", "metadata.name"),
            field("POD_UID", "metadata.uid"),
            field("POD_IP", "status.podIP"),
        ]),
        volume_mounts: Some(vec![
            VolumeMount {
                name: TABLES_VOLUME.to_owned(),
                mount_path: TABLES_FOLDER.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            },
            VolumeMount {
                name: KEEPER_VOLUME.to_owned(),
                mount_path: KEEPER_FOLDER.to_owned(),
                ..VolumeMount::default()
            },
        ]),
        // The node's container is started when this one has succeeded.
        startup_probe: Some(Probe {
            http_get: Some(get("/startup", AGENT_PORT)),
            period_seconds: Some(1),
            timeout_seconds: Some(STARTUP_TIMEOUT_SECONDS),
            failure_threshold: i32::try_from(config.fault_lease.as_secs() + STARTUP_SLACK_SECONDS).ok(),
            ..Probe::default()
        }),
        // Any other user would have no effective capability.
        security_context: Some(SecurityContext { run_as_user: Some(0), ..confined(&["NET_ADMIN"]) }),
        ..Container::default()
    }
}

fn confined(capabilities: &[&str]) -> SecurityContext {
    let add: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: (!add.is_empty()).then_some(add),
        }),
        seccomp_profile: Some(seccomp()),
        ..SecurityContext::default()
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn get(path: &str, port: u16) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(port.into()),
        ..HTTPGetAction::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
