//! One running testnet: its backend, its nodes' clients, its faults and its load.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result};
use netsplit_backend::{
    Backend, NodeArtifacts, NodeFile, NodePlace, NodeSignal, NodeState, NodeStatus,
    local::{LocalBackend, LocalConfig},
};
use netsplit_chains::{Chain, ChainClient, Connector};
use netsplit_observe::{NodeView, Observer, ProcessState, Watch};
use netsplit_plan::{TestnetPlan, experiment::Observed, plan_testnet};
use netsplit_proto::control;
use netsplit_spec::Testnet as Spec;
use tokio::sync::{Mutex, RwLock};

use super::{
    clock::unix_ms,
    faults::{Fault, FaultTable},
    forward::forward,
    load::LoadSlot,
};
use crate::paths::TestnetDir;

/// How long a testnet that failed waits to be asked why, before it removes itself.
pub const FAILED_LINGER: Duration = Duration::from_secs(10);
/// How often the backend is asked for its nodes.
const NODES_EVERY: Duration = Duration::from_millis(200);

pub struct Testnet {
    pub dir: TestnetDir,
    pub spec: Spec,
    pub plan: TestnetPlan,
    pub chain: Arc<dyn Chain>,
    pub backend: Arc<dyn Backend>,
    pub clients: Vec<Arc<dyn ChainClient>>,
    pub faults: Arc<FaultTable>,
    pub load: LoadSlot,
    /// Held by the experiment that runs; its name is in the state.
    pub experiment: Mutex<()>,
    places: Vec<NodePlace>,
    observer: OnceLock<Observer>,
    forwards: OnceLock<Vec<Forwards>>,
    state: RwLock<State>,
    /// Held from the question about the nodes until its answer is in the state: an older answer must not replace a newer.
    refreshing: Mutex<()>,
    started_ms: u64,
}

#[derive(Debug)]
struct State {
    phase: &'static str,
    problem: String,
    experiment: String,
    nodes: Vec<NodeStatus>,
}

#[derive(Debug)]
struct Forwards {
    api: String,
    http: String,
}

impl std::fmt::Debug for Testnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Testnet").field("name", &self.plan.name).finish_non_exhaustive()
    }
}

impl Testnet {
    /// Everything that needs no node to run yet.
    pub async fn create(dir: TestnetDir, spec: Spec) -> Result<Arc<Self>> {
        let plan = plan_testnet(&spec);
        let chain = netsplit_chains::of(plan.chain);
        let config = LocalConfig::new(dir.root.clone()).context("cannot tell where netsplit itself is")?;
        let backend: Arc<dyn Backend> = Arc::new(LocalBackend::launch(config).await?);
        let names: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
        let places = backend.places(&names)?;
        let api = chain.ports().api;
        let clients: Vec<Arc<dyn ChainClient>> =
            names.iter().map(|name| chain.client(name, connector(&backend, name, api))).collect();
        let wallet = chain.wallet(&plan)?;
        Ok(Arc::new(Self {
            faults: FaultTable::new(Arc::clone(&backend)),
            load: LoadSlot::new(wallet, clients.clone()),
            dir,
            spec,
            plan,
            chain,
            backend,
            clients,
            experiment: Mutex::new(()),
            places,
            observer: OnceLock::new(),
            forwards: OnceLock::new(),
            state: RwLock::new(State {
                phase: "starting",
                problem: String::new(),
                experiment: String::new(),
                nodes: Vec::new(),
            }),
            refreshing: Mutex::default(),
            started_ms: unix_ms(),
        }))
    }

    /// Starts the nodes and everything that follows them.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        let hosts: Vec<_> = self.places.iter().map(|place| place.address.into()).collect();
        let artifacts = self.chain.build(&self.plan, &hosts)?;
        self.backend.start(artifacts.into_iter().map(for_backend).collect()).await?;
        let followed =
            self.clients.iter().map(|client| (client.node().to_owned(), Arc::clone(client))).collect();
        self.observer.set(Observer::start(followed)).ok().context("a testnet starts once")?;
        tokio::spawn(Arc::clone(&self.faults).keep());
        let ports = self.chain.ports();
        let mut forwards = Vec::with_capacity(self.plan.nodes.len());
        for node in &self.plan.nodes {
            let to = |port| forward(Arc::clone(&self.backend), node.name.clone(), port);
            let (api, http) = (to(ports.api).await?.to_string(), to(ports.http).await?.to_string());
            forwards.push(Forwards { api, http });
        }
        self.forwards.set(forwards).ok().context("a testnet starts once")?;
        self.refresh_nodes().await?;
        self.state.write().await.phase = "running";
        if let Some(load) = self.plan.load {
            self.load.start_background(load.transfers_per_second).await?;
        }
        Ok(())
    }

    /// Follows the backend; resolves with a reason when the testnet is lost.
    pub async fn watch_backend(self: &Arc<Self>) -> String {
        let mut tick = tokio::time::interval(NODES_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.refresh_nodes().await {
                return format!("{error:#}");
            }
        }
    }

    async fn refresh_nodes(&self) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        let nodes = self.backend.nodes().await?;
        self.state.write().await.nodes = nodes;
        Ok(())
    }

    pub async fn fail(&self, problem: String) {
        let mut state = self.state.write().await;
        state.phase = "failed";
        state.problem = problem;
    }

    pub async fn set_experiment(&self, name: &str) {
        name.clone_into(&mut self.state.write().await.experiment);
    }

    pub async fn is_running(&self) -> bool {
        self.state.read().await.phase == "running"
    }

    /// Ends a node if it runs, in order or as a crash would, and starts it again.
    pub async fn restart(&self, node: &str, kill: bool) -> Result<()> {
        if kill {
            let nodes = self.backend.nodes().await?;
            if nodes.iter().any(|status| status.name == node && status.state == NodeState::Running) {
                self.backend.signal(node, NodeSignal::Kill).await?;
            }
        }
        self.backend.restart(node).await?;
        self.refresh_nodes().await
    }

    /// Ends load, faults and nodes, in this order.
    pub async fn stop(&self) -> Result<()> {
        self.state.write().await.phase = "stopping";
        self.load.end().await;
        self.backend.stop().await?;
        Ok(())
    }

    /// Begins to watch the nodes, for an experiment.
    pub fn watch(&self) -> Result<Watch> {
        Ok(self.observer.get().context("the testnet has not started")?.watch())
    }

    /// What an experiment's next step is told; `owner` names its faults.
    pub async fn observe(&self, watch: &mut Watch, owner: &str) -> Observed {
        let faults = self.faults.observed(owner);
        let state = self.state.read().await;
        let process = |status: &NodeStatus| ProcessState {
            node: status.name.clone(),
            up: matches!(status.state, NodeState::Running),
            restarts: status.restarts,
        };
        let processes: Vec<ProcessState> = state.nodes.iter().map(process).collect();
        let mut observed = watch.snapshot(&processes, faults);
        if state.phase != "running" {
            observed.abort = Some(format!("the testnet is {}: {}", state.phase, state.problem));
        }
        observed
    }

    /// The nodes as last seen.
    pub fn views(&self) -> Vec<NodeView> {
        self.observer.get().map(Observer::nodes).unwrap_or_default()
    }

    /// The state as the command line is told.
    pub async fn state(&self) -> control::Testnet {
        let state = self.state.read().await;
        let views = self.views();
        let forwards = self.forwards.get();
        let load = self.load.progress().await;
        let node = |(index, planned): (usize, &netsplit_plan::PlannedNode)| {
            let status = state.nodes.iter().find(|status| status.name == planned.name);
            let view = views.iter().find(|view| view.name == planned.name);
            let (api, http) = forwards
                .and_then(|all| all.get(index))
                .map_or_else(Default::default, |forwards| (forwards.api.clone(), forwards.http.clone()));
            control::Node {
                name: planned.name.clone(),
                role: planned.role.as_str().to_owned(),
                state: status.map_or_else(|| "starting".to_owned(), node_state),
                pid: status.and_then(|status| status.pid).unwrap_or_default(),
                address: self.places.get(index).map(|place| place.address.to_string()).unwrap_or_default(),
                height: view.map_or(0, |view| view.height),
                final_height: view.map_or(0, |view| view.final_height),
                peers: view.map_or(0, |view| view.peers),
                restarts: status.map_or(0, |status| status.restarts),
                api,
                http,
            }
        };
        control::Testnet {
            protocol: 1,
            name: self.plan.name.clone(),
            state: state.phase.to_owned(),
            problem: state.problem.clone(),
            nodes: self.plan.nodes.iter().enumerate().map(node).collect(),
            faults: self
                .faults
                .watch()
                .borrow()
                .iter()
                .filter(|f| f.healed_at_ms.is_none())
                .map(fault)
                .collect(),
            experiment: state.experiment.clone(),
            load,
            started_ms: self.started_ms,
        }
    }
}

/// A fault as the command line is told.
pub fn fault(fault: &Fault) -> control::Fault {
    let state = match (&fault.violations.is_empty(), fault.is_proven()) {
        (false, _) => "violated",
        (true, true) => "proven",
        (true, false) => "applying",
    };
    control::Fault {
        id: fault.id.clone(),
        description: fault.description.clone(),
        owner: fault.owner.clone(),
        since_ms: fault.since_ms,
        until_ms: fault.until.map_or(0, |(_, until_ms)| until_ms),
        state: state.to_owned(),
        links: fault.links(),
        dropped: fault.evidence.as_ref().map_or(0, |evidence| evidence.drops),
        evidence: fault.evidence_text(),
    }
}

fn node_state(status: &NodeStatus) -> String {
    match &status.state {
        NodeState::Starting => "starting".to_owned(),
        NodeState::Running if status.paused => "paused".to_owned(),
        NodeState::Running => "running".to_owned(),
        NodeState::Exited { code: Some(code), .. } => format!("exited ({code})"),
        NodeState::Exited { signal: Some(signal), .. } => format!("killed ({signal})"),
        NodeState::Exited { .. } => "exited".to_owned(),
        NodeState::Failed { reason } => format!("failed: {reason}"),
    }
}

fn connector(backend: &Arc<dyn Backend>, node: &str, port: u16) -> Connector {
    let (backend, node) = (Arc::clone(backend), node.to_owned());
    Arc::new(move || {
        let (backend, node) = (Arc::clone(&backend), node.clone());
        Box::pin(async move {
            let stream = backend.connect(&node, port).await.map_err(std::io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn netsplit_chains::Io>)
        })
    })
}

fn for_backend(node: netsplit_chains::NodeArtifacts) -> NodeArtifacts {
    let file = |file: netsplit_chains::ArtifactFile| NodeFile {
        path: file.path,
        contents: file.bytes.to_vec(),
        mode: file.mode,
    };
    NodeArtifacts {
        node: node.node,
        files: node.files.into_iter().map(file).collect(),
        command: node.command,
    }
}
