//! A testnet on Kubernetes: a StatefulSet a group, and in each pod a link agent beside the node, and a keeper around it.
//!
//! * [`render`](render()): pure, from files and names to typed objects; [`apply`](apply()) hands them to the API server.
//! * [`TableHub`]: serves link tables to the agents of all testnets and merges their reports into evidence.
//! * [`KubernetesBackend`]: the [`Backend`](crate::Backend) over both.
//! * [`agent`]: what runs in the pods.

pub mod agent;
mod apply;
mod backend;
mod config;
mod dry_run;
mod render;
pub mod tables;
mod tls;
mod versions;

pub use apply::{Applied, apply};
pub use backend::{KubernetesBackend, Pods, Trouble, Troubles, restarts as pod_restarts, state as pod_state};
pub use config::{
    AGENT_CONTAINER, AGENT_PORT, GROUP_LABEL, GroupSpec, Images, KEEPER_PROGRAM, KEEPER_SOCKET,
    KubernetesConfig, NODE_CONTAINER, NodePorts, TESTNET_LABEL, TOKEN_AUDIENCE, TablesAddress,
};
pub use dry_run::would_take;
pub use render::{Objects, RenderError, render};
pub use tables::{AgentStatus, ApiReviewer, PodIdentity, ReviewError, TableHub, TokenReviewer};
pub use tls::TablesTls;
pub use versions::{PutBack, Version, Versions, is_untouched, put_back};
