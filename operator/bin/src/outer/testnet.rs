//! A testnet on this machine: its session, its directory, and the loopback ports that lead to its nodes.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use netsplit_backend::{
    Backend, NodePlace, NodeSignal, NodeState, NodeStatus,
    local::{LocalBackend, LocalConfig},
};
use netsplit_chains::Ports;
use netsplit_links::PeerPorts;
use netsplit_plan::plan_testnet;
use netsplit_proto::control;
use netsplit_spec::Testnet as Spec;

use super::forward::forward;
use crate::{
    paths::TestnetDir,
    programs, progress, quality,
    session::{Session, faults::Fault, for_backend, links::SeenLink, unix_ms},
};

/// How long a testnet that failed waits to be asked why, before it removes itself.
pub const FAILED_LINGER: Duration = Duration::from_secs(10);
/// The kernel ends a cut this long after its last renewal.
const FAULT_LEASE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Testnet {
    pub dir: TestnetDir,
    pub session: Arc<Session>,
    places: Vec<NodePlace>,
    forwards: OnceLock<Vec<Forwards>>,
    started_ms: u64,
}

#[derive(Debug)]
struct Forwards {
    api: String,
    http: String,
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
        let session = Session::new(spec, plan, chain, backend, FAULT_LEASE)?;
        Ok(Arc::new(Self { dir, session, places, forwards: OnceLock::new(), started_ms: unix_ms() }))
    }

    /// Starts the nodes and everything that follows them.
    pub async fn start(&self) -> Result<()> {
        let Session { plan, chain, backend, .. } = &*self.session;
        let hosts: Vec<_> = self.places.iter().map(|place| place.address.into()).collect();
        let program = chain.program();
        let found = programs::find(program, &LocalConfig::new(self.dir.root.clone())?)?;
        let found = found.to_str().with_context(|| format!("{} is not UTF-8", found.display()))?;
        let mut artifacts: Vec<_> = chain.build(plan, &hosts)?.into_iter().map(for_backend).collect();
        for first in artifacts.iter_mut().filter_map(|node| node.command.first_mut()) {
            if first == program.name {
                found.clone_into(first);
            }
        }
        let ports = chain.ports();
        ensure_faults_reach(&ports)?;
        // Before the nodes' first packet.
        self.session.faults.begin().await?;
        backend.start(artifacts).await?;
        self.session.follow(1)?;
        let mut forwards = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            let to = |port| forward(Arc::clone(backend), node.name.clone(), port);
            let (api, http) = (to(ports.api).await?.to_string(), to(ports.http).await?.to_string());
            forwards.push(Forwards { api, http });
        }
        self.forwards.set(forwards).ok().context("a testnet starts once")?;
        self.session.run().await?;
        self.session.start_load().await
    }

    /// Ends a node if it runs, in order or as a crash would, and starts it again.
    pub async fn restart(&self, node: &str, kill: bool) -> Result<()> {
        let backend = &self.session.backend;
        if kill {
            let nodes = backend.nodes().await?;
            if nodes.iter().any(|status| status.name == node && status.state == NodeState::Running) {
                backend.signal(node, NodeSignal::Kill).await?;
            }
        }
        backend.restart(node).await?;
        self.session.refresh_nodes().await
    }

    /// The state as the command line is told.
    pub async fn state(&self) -> control::Testnet {
        let state = self.session.state().await;
        let views = self.session.views();
        let forwards = self.forwards.get();
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
        let plan = &self.session.plan;
        let load = self.session.load.report().await.map(|report| progress::to_progress(&report, false));
        let seen = self.session.faults.watch();
        let faults = seen.borrow().iter().filter(|f| f.healed_at_ms.is_none()).map(fault).collect();
        control::Testnet {
            protocol: 1,
            name: plan.name.clone(),
            state: state.phase.as_str().to_owned(),
            problem: state.problem.clone(),
            nodes: plan.nodes.iter().enumerate().map(node).collect(),
            faults,
            experiment: state.experiment.clone(),
            load,
            started_ms: self.started_ms,
        }
    }
}

/// A cut that nothing of the nodes' traffic meets would be proven by its probes all the same.
fn ensure_faults_reach(ports: &Ports) -> Result<()> {
    let reached = PeerPorts::default().peer;
    let other = ports.peer.iter().find(|port| port.number != reached);
    other.map_or(Ok(()), |port| {
        bail!("the chain's nodes speak to each other at port {}: faults reach {reached} only", port.number)
    })
}

/// A fault as the command line is told.
pub fn fault(fault: &Fault) -> control::Fault {
    control::Fault {
        id: fault.id.clone(),
        description: fault.description.clone(),
        owner: fault.owner.clone(),
        since_ms: fault.since_ms,
        until_ms: fault.until.map_or(0, |(_, until_ms)| until_ms),
        state: fault.state().to_owned(),
        links: fault.links(),
        dropped: fault.dropped(),
        evidence: fault.evidence_text(),
        quality: fault.quality().map(quality::to_proto),
    }
}

/// A link as the command line is told.
pub fn link(link: SeenLink) -> control::Link {
    let measured = link.measured.map(|seen| control::link::Measured {
        latency_us: seen.latency_us,
        sent: seen.sent,
        received: seen.received,
        packets: seen.counters.packets,
        lost: seen.counters.lost + seen.counters.overflowed,
        duplicated: seen.counters.duplicated,
        reordered: seen.counters.reordered,
        corrupted: seen.counters.corrupted,
        probes_duplicated: seen.duplicated,
        probes_reordered: seen.reordered,
        rate: seen.rate,
    });
    control::Link {
        from: link.from,
        to: link.to,
        asked: Some(quality::to_proto(link.asked)),
        measured,
        problem: link.problem.unwrap_or_default(),
    }
}

fn node_state(status: &NodeStatus) -> String {
    match &status.state {
        NodeState::Running if status.paused => "paused".to_owned(),
        state => state.to_string(),
    }
}
