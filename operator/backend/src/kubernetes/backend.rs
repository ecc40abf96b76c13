//! The [`Backend`] of a testnet on a cluster.

mod missing;
mod pods;
mod trouble;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod, Secret, Service},
};
use kube::{Api, Client, api::DeleteParams};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use self::{missing::Missing, trouble::Lasting};
pub use self::{
    pods::{Pods, restarts, state},
    trouble::Trouble,
};
use super::{
    apply::{Applied, apply, delete},
    config::KubernetesConfig,
    render::render,
    tables::{AgentStatus, TableHub, TestnetLinks},
    versions::{Versions, versions},
};
use crate::backend::{
    Backend, BackendError, CutEvidence, CutRequest, ExecExit, ExecStdio, LinksEvidence, LinksRequest,
    NodeArtifacts, NodeHold, NodePlace, NodeSignal, NodeStatus, NodeStream,
};

/// The folder that a node's files are in.
const NODE_FOLDER: &str = "/netsplit";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// One testnet. Dropping it forgets the testnet here and leaves its objects as they are: they belong to the Testnet object.
pub struct KubernetesBackend {
    client: Client,
    config: Mutex<KubernetesConfig>,
    /// As they were applied last.
    sets: Mutex<Vec<StatefulSet>>,
    links: Option<Arc<TestnetLinks>>,
    pods: watch::Receiver<Pods>,
    config_changed: watch::Sender<KubernetesConfig>,
    _watch: AbortOnDropHandle<()>,
}

/// What was seen of the pods' troubles so far.
#[derive(Debug, Default)]
pub struct Troubles {
    missing: Missing,
    lasting: Lasting,
}

impl std::fmt::Debug for KubernetesBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesBackend").field("testnet", &self.config().testnet).finish_non_exhaustive()
    }
}

impl KubernetesBackend {
    /// Takes the testnet into the hub and follows its pods; needs a running runtime. Its agents get no table before
    /// [`set_cuts`](Backend::set_cuts) and [`set_links`](Backend::set_links) are called: a new leader calls them with what its
    /// predecessor had, or with none.
    pub fn new(client: Client, config: KubernetesConfig, hub: &Arc<TableHub>) -> Result<Self, BackendError> {
        let links = if config.faults {
            let links = hub.testnet(&config.namespace, &config.testnet)?;
            // Its nodes are known by name before any pod is.
            links.set_members(Pods::default().members(&config))?;
            Some(Arc::new(links))
        } else {
            None
        };
        let (config_changed, configs) = watch::channel(config.clone());
        let (seen, pods) = watch::channel(Pods::default());
        let follow = pods::follow(client.clone(), configs, links.clone(), seen);
        Ok(Self {
            client,
            config: Mutex::new(config),
            sets: Mutex::default(),
            links,
            pods,
            config_changed,
            _watch: AbortOnDropHandle::new(tokio::spawn(follow)),
        })
    }

    fn config(&self) -> KubernetesConfig {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renders the nodes under another configuration (scale, images, storage) and applies what changed.
    pub async fn update(
        &self,
        config: KubernetesConfig,
        nodes: &[NodeArtifacts],
    ) -> Result<Applied, BackendError> {
        if config.faults != self.links.is_some() {
            return Err(BackendError::Invalid("faults are on or off for a testnet's whole life".to_owned()));
        }
        let objects = render(&config, nodes).map_err(|error| BackendError::Invalid(error.to_string()))?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        self.config_changed.send_replace(config);
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&objects.stateful_sets);
        apply(&self.client, &objects).await
    }

    /// What there is now of what was applied.
    pub async fn versions(&self) -> Result<Versions, BackendError> {
        let config = self.config();
        versions(&self.client, &config.namespace, &config.selector()).await
    }

    /// Every node's link agent; empty without faults.
    pub fn agents(&self) -> Result<Vec<AgentStatus>, BackendError> {
        self.links.as_ref().map_or_else(|| Ok(Vec::new()), |links| links.agents())
    }

    /// What keeps a pod from running its node: the first one's, in the order of the nodes. To be called several times a
    /// second.
    pub async fn trouble(&self, seen: &mut Troubles) -> Option<Trouble> {
        let missing = self.missing(&mut seen.missing).await;
        let trouble = missing.or_else(|| self.pods.borrow().trouble(&self.config()));
        seen.lasting.see(trouble, Instant::now())
    }

    /// Changes whenever a pod does.
    pub fn changes(&self) -> watch::Receiver<Pods> {
        self.pods.clone()
    }

    fn links(&self) -> Result<&TestnetLinks, BackendError> {
        self.links.as_deref().ok_or_else(|| {
            let sentence =
                "this testnet has `faults: off`: its pods hold no link agent and no keeper, so no link can be cut or shaped, and \
                 no node killed, paused or restarted";
            BackendError::Refused(sentence.to_owned())
        })
    }

    /// The pods, once all that were there at first are known: without them every node would seem to be missing.
    async fn listed(&self) -> Result<Pods, BackendError> {
        let mut pods = self.pods.clone();
        match timeout(LIST_TIMEOUT, pods.wait_for(|pods| pods.listed)).await {
            Ok(Ok(pods)) => Ok(pods.clone()),
            Ok(Err(_)) => Err(BackendError::Gone("the pods are not followed any more".to_owned())),
            Err(_) => Err(BackendError::Failed("the API server does not list the pods".to_owned())),
        }
    }

    fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.config().namespace)
    }

    /// Deletes a node's pod; its StatefulSet makes another one with the same name and data.
    async fn replace(&self, node: &str, params: &DeleteParams) -> Result<(), BackendError> {
        let config = self.config();
        config.known(node)?;
        let is_held = |node: &NodeStatus| node.held.is_some();
        if self.nodes().await?.iter().any(|status| status.name == node && is_held(status)) {
            return Err(BackendError::Invalid(format!("a fault holds {node}: heal it first")));
        }
        delete(&self.pod_api(), &config.pod_name(node), params).await
    }
}

#[async_trait]
impl Backend for KubernetesBackend {
    /// Addresses are not known before the pods run: nodes call each other by [`KubernetesConfig::host`].
    fn places(&self, nodes: &[String]) -> Result<Vec<NodePlace>, BackendError> {
        let config = self.config();
        let place = |node: &String| {
            config.known(node)?;
            Ok(NodePlace {
                name: node.clone(),
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                directory: PathBuf::from(NODE_FOLDER),
            })
        };
        nodes.iter().map(place).collect()
    }

    /// Applies all objects; safe to repeat.
    async fn start(&self, nodes: Vec<NodeArtifacts>) -> Result<(), BackendError> {
        self.update(self.config(), &nodes).await.map(drop)
    }

    async fn nodes(&self) -> Result<Vec<NodeStatus>, BackendError> {
        let pods = self.listed().await?.statuses(&self.config());
        let Some(links) = &self.links else { return Ok(pods) };
        let words = links.nodes()?;
        let tell = |pod: NodeStatus| match words.get(&pod.name) {
            Some(word) => word.tell(pod),
            None => pod,
        };
        Ok(pods.into_iter().map(tell).collect())
    }

    async fn connect(&self, node: &str, port: u16) -> Result<NodeStream, BackendError> {
        self.config().known(node)?;
        let failed = |source| BackendError::Connect { node: node.to_owned(), port, source };
        let address = self.pods.borrow().address(&self.config().pod_name(node));
        let address = address.ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((address, port)))
            .await
            .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Box::new(stream))
    }

    async fn set_cuts(&self, cuts: Vec<CutRequest>) -> Result<(), BackendError> {
        match &self.links {
            None if cuts.is_empty() => Ok(()),
            None => self.links().map(drop),
            Some(links) => {
                // Which agents have to confirm is told by which pods run.
                self.listed().await?;
                links.set_cuts(cuts).await
            }
        }
    }

    async fn set_links(&self, links: LinksRequest) -> Result<(), BackendError> {
        match &self.links {
            None if links.base.is_empty() && links.faulted.is_empty() => Ok(()),
            None => self.links().map(drop),
            Some(hub) => {
                self.listed().await?;
                hub.set_links(links).await
            }
        }
    }

    async fn links(&self) -> Result<LinksEvidence, BackendError> {
        self.links.as_ref().map_or_else(|| Ok(LinksEvidence::default()), |links| links.links())
    }

    async fn renew(&self) -> Result<(), BackendError> {
        self.links()?.renew()
    }

    async fn evidence(&self) -> Result<Vec<CutEvidence>, BackendError> {
        self.links.as_ref().map_or_else(|| Ok(Vec::new()), |links| links.evidence())
    }

    async fn exec(
        &self,
        node: &str,
        _argv: Vec<String>,
        _stdio: ExecStdio,
    ) -> Result<ExecExit, BackendError> {
        let config = self.config();
        config.known(node)?;
        Err(BackendError::Refused(format!(
            "use: kubectl exec -n {} {} -c node -- COMMAND",
            config.namespace,
            config.pod_name(node)
        )))
    }

    async fn set_nodes(&self, holds: Vec<NodeHold>, lease: Duration) -> Result<(), BackendError> {
        match &self.links {
            None if holds.is_empty() => Ok(()),
            None => self.links().map(drop),
            Some(hub) => {
                self.listed().await?;
                hub.set_nodes(holds, lease).await
            }
        }
    }

    async fn signal(&self, node: &str, signal: NodeSignal) -> Result<(), BackendError> {
        match signal {
            // A crash of the whole pod, agent included.
            NodeSignal::Kill => self.replace(node, &DeleteParams::default().grace_period(0)).await,
            NodeSignal::Terminate => self.replace(node, &DeleteParams::default()).await,
            NodeSignal::Pause | NodeSignal::Resume => Err(BackendError::Refused(
                "a node in a pod is paused by a fault only, which has a lease: `pause` of an experiment"
                    .to_owned(),
            )),
        }
    }

    async fn restart(&self, node: &str) -> Result<(), BackendError> {
        self.replace(node, &DeleteParams::default()).await
    }

    /// Deletes what [`start`](Backend::start) applied. Pods end in their own time.
    async fn stop(&self) -> Result<(), BackendError> {
        let config = self.config();
        let namespace = &config.namespace;
        let background = DeleteParams::background();
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        for group in &config.groups {
            let name = config.set_name(&group.name);
            delete(&sets, &name, &background).await?;
            delete(&secrets, &name, &background).await?;
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        delete(&services, &config.testnet, &background).await?;
        delete(&config_maps, &config.testnet, &background).await
    }
}
