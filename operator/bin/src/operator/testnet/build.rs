//! The second step: everything that is applied, from the spec alone.

use std::{sync::Arc, time::Duration};

use netsplit_backend::{
    NodeArtifacts,
    kubernetes::{GroupSpec, KubernetesConfig, NodePorts, Objects, render},
};
use netsplit_chains::{Chain, artifacts::NodeHost};
use netsplit_plan::{TestnetPlan, plan_testnet};

use super::validate::Valid;
use crate::{operator::context::Context, session::for_backend};

/// A fault ends by itself when no leader has renewed it for so long: several times the leader's own Lease.
pub const FAULT_LEASE: Duration = Duration::from_secs(30);

pub struct Built {
    pub plan: TestnetPlan,
    pub chain: Arc<dyn Chain>,
    pub config: KubernetesConfig,
    pub nodes: Vec<NodeArtifacts>,
    /// The same, as the API server takes them.
    pub objects: Objects,
}

/// Fails with a sentence if no objects can be made of a valid spec: its chain does not run as pods, or the objects' names or
/// files outgrow what the API takes.
pub fn build(valid: &Valid, context: &Context) -> Result<Built, String> {
    let plan = plan_testnet(&valid.spec);
    let chain = netsplit_chains::of(plan.chain);
    if let Some(reason) = chain.not_in_pods() {
        return Err(reason.to_owned());
    }
    let ports = chain.ports();
    let (namespace, name) = valid.key.clone();
    let config = KubernetesConfig {
        namespace,
        testnet: name,
        owner: valid.owner.clone(),
        images: context.args.images(),
        ports: NodePorts {
            peer: ports.peer.first().map(|port| port.number).unwrap_or_default(),
            api: ports.api,
            http: ports.http,
        },
        tables: context.tables.clone(),
        faults: valid.spec.faults,
        storage: valid.spec.storage.clone(),
        fault_lease: FAULT_LEASE,
        groups: valid
            .spec
            .nodes
            .iter()
            .map(|group| GroupSpec { name: group.name.clone(), count: group.count })
            .collect(),
    };
    let host = |name: String| NodeHost { bind: config.bind().into(), host: config.host(&name) };
    let hosts: Vec<NodeHost> = config.node_names().map(host).collect();
    let artifacts = chain.build(&plan, &hosts).map_err(|error| error.to_string())?;
    let nodes: Vec<NodeArtifacts> = artifacts.into_iter().map(for_backend).collect();
    let objects = render(&config, &nodes).map_err(|error| error.to_string())?;
    Ok(Built { plan, chain, config, nodes, objects })
}
