//! One running testnet as seen by whoever drives it: its nodes' clients, what they are seen to do, its faults, its load
//! and the experiment that runs on it. The place it runs on is a [`Backend`]; where state is kept is up to the caller.

mod clock;
pub mod experiment;
pub mod faults;
mod identities;
pub mod links;
mod load;
mod record;
pub mod summary;

use std::{
    sync::{Arc, Mutex as SyncMutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
pub use clock::unix_ms;
pub use load::{LoadProgress, LoadSlot};
use netsplit_backend::{Backend, NodeArtifacts, NodeFile, NodeState, NodeStatus};
use netsplit_chains::{Chain, ChainClient, Connector};
use netsplit_observe::{NodeView, Observer, ObserverConfig, ProcessState, Watch};
use netsplit_plan::{TestnetPlan, experiment::Observed};
use netsplit_spec::Testnet as Spec;
use tokio::{
    sync::{Mutex, MutexGuard, RwLock},
    task::JoinSet,
};

use self::{faults::FaultTable, identities::Identities, links::LinkBook};

/// How often the backend is asked for its nodes.
const NODES_EVERY: Duration = Duration::from_millis(200);

/// Where a testnet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Failed,
    Stopping,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        }
    }
}

/// What may change at any time.
#[derive(Clone, Debug)]
pub struct State {
    pub phase: Phase,
    /// Why it failed.
    pub problem: String,
    /// The experiment that runs; empty when none does.
    pub experiment: String,
    /// As the backend told last.
    pub nodes: Vec<NodeStatus>,
}

/// Ends its own tasks when dropped; nodes and faults in force are the backend's.
pub struct Session {
    pub spec: Spec,
    pub plan: TestnetPlan,
    pub chain: Arc<dyn Chain>,
    pub backend: Arc<dyn Backend>,
    pub faults: Arc<FaultTable>,
    pub load: LoadSlot,
    clients: Vec<Arc<dyn ChainClient>>,
    identities: Identities,
    observer: OnceLock<Arc<Observer>>,
    /// Held by the experiment that runs; its name is in the state.
    turn: Mutex<()>,
    state: RwLock<State>,
    /// Held from the question about the nodes until its answer is in the state: an older answer must not replace a newer.
    refreshing: Mutex<()>,
    tasks: SyncMutex<JoinSet<()>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("testnet", &self.plan.name).finish_non_exhaustive()
    }
}

impl Session {
    /// Everything that needs no node to run yet. A fault whose lease is not renewed for `lease` ends by itself.
    pub fn new(
        spec: Spec,
        plan: TestnetPlan,
        chain: Arc<dyn Chain>,
        backend: Arc<dyn Backend>,
        lease: Duration,
    ) -> Result<Arc<Self>> {
        let api = chain.ports().api;
        let client = |node: &netsplit_plan::PlannedNode| {
            chain.client(&node.name, connector(&backend, &node.name, api))
        };
        let clients: Vec<_> = plan.nodes.iter().map(client).collect();
        let wallet = chain.wallet(&plan)?;
        let book = LinkBook::new(&spec);
        Ok(Arc::new(Self {
            faults: FaultTable::new(Arc::clone(&backend), book, lease),
            load: LoadSlot::new(wallet, clients.clone()),
            identities: Identities::of(chain.as_ref(), &plan),
            spec,
            plan,
            chain,
            backend,
            clients,
            observer: OnceLock::new(),
            turn: Mutex::new(()),
            state: RwLock::new(State {
                phase: Phase::Starting,
                problem: String::new(),
                experiment: String::new(),
                nodes: Vec::new(),
            }),
            refreshing: Mutex::default(),
            tasks: SyncMutex::default(),
        }))
    }

    /// Follows the nodes' blocks from that height on, which is at least 1, and keeps the faults. Once a session.
    pub fn follow(&self, from_height: u64) -> Result<()> {
        let followed =
            self.clients.iter().map(|client| (client.node().to_owned(), Arc::clone(client))).collect();
        let config = ObserverConfig { from_height, ..ObserverConfig::default() };
        let observer = Arc::new(Observer::start_with(config, followed));
        self.observer.set(Arc::clone(&observer)).ok().context("a session begins to follow once")?;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(Arc::clone(&self.faults).keep(observer));
        Ok(())
    }

    /// The nodes are there: experiments may run.
    pub async fn run(&self) -> Result<()> {
        self.faults.begin().await?;
        self.refresh_nodes().await?;
        self.state.write().await.phase = Phase::Running;
        Ok(())
    }

    /// Starts the spec's load, if it asks for one and it does not run.
    pub async fn start_load(&self) -> Result<()> {
        match self.plan.load {
            Some(load) => self.load.start_background(load.transfers_per_second).await,
            None => Ok(()),
        }
    }

    /// Follows the backend; resolves with a reason when the testnet is lost.
    pub async fn watch_backend(&self) -> String {
        let mut tick = tokio::time::interval(NODES_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.refresh_nodes().await {
                return format!("{error:#}");
            }
        }
    }

    pub async fn refresh_nodes(&self) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        let nodes = self.backend.nodes().await?;
        self.state.write().await.nodes = nodes;
        Ok(())
    }

    pub async fn fail(&self, problem: String) {
        let mut state = self.state.write().await;
        state.phase = Phase::Failed;
        state.problem = problem;
    }

    pub async fn is_running(&self) -> bool {
        self.state.read().await.phase == Phase::Running
    }

    pub async fn state(&self) -> State {
        self.state.read().await.clone()
    }

    /// Ends load and nodes, in this order.
    pub async fn stop(&self) -> Result<()> {
        self.state.write().await.phase = Phase::Stopping;
        self.load.end().await;
        self.backend.stop().await?;
        Ok(())
    }

    /// The nodes as last seen.
    pub fn views(&self) -> Vec<NodeView> {
        self.observer.get().map(|observer| observer.nodes()).unwrap_or_default()
    }

    /// Begins to watch the nodes, for an experiment.
    fn watch(&self) -> Result<Watch> {
        Ok(self.observer.get().context("the testnet has not started")?.watch())
    }

    /// What an experiment's next step is told; `owner` names its faults.
    async fn observe(&self, watch: &mut Watch, owner: &str) -> Observed {
        let faults = self.faults.observed(owner);
        let state = self.state.read().await;
        let process = |status: &NodeStatus| ProcessState {
            node: status.name.clone(),
            up: matches!(status.state, NodeState::Running),
            restarts: status.restarts,
        };
        let processes: Vec<ProcessState> = state.nodes.iter().map(process).collect();
        let mut observed = watch.snapshot(&processes, faults);
        observed.link_problem =
            self.identities.exchanged(&self.views()).or_else(|| self.faults.base_problem());
        if state.phase != Phase::Running {
            observed.abort = Some(format!("the testnet is {}: {}", state.phase.as_str(), state.problem));
        }
        observed
    }

    /// The turn to run an experiment, if none runs.
    fn try_turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock().ok()
    }

    async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    async fn set_experiment(&self, name: &str) {
        name.clone_into(&mut self.state.write().await.experiment);
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

/// What a chain made of a node, in the words of backends.
pub fn for_backend(node: netsplit_chains::NodeArtifacts) -> NodeArtifacts {
    let file = |file: netsplit_chains::ArtifactFile| NodeFile {
        path: file.path,
        contents: file.bytes.to_vec(),
        mode: file.mode,
    };
    NodeArtifacts {
        node: node.node,
        files: node.files.into_iter().map(file).collect(),
        command: node.command,
        environment: node.environment,
    }
}
