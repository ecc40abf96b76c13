//! The last step: what is seen of a testnet, told in its status whenever it changes.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, runtime::events::EventType};
use netsplit_backend::{
    NodeState, NodeStatus,
    kubernetes::{KubernetesBackend, Trouble, Troubles, Versions},
};
use netsplit_observe::NodeView;
use netsplit_spec::crd::{
    Condition, LinkStatus, LinksSpec, LinksStatus, Testnet, TestnetStatus, set_condition,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::validate::{PAUSED, Valid};
use crate::{
    by_hand::LOAD_MADE_WAY,
    operator::{
        context::{Context, Written, condition, write_status},
        fleet::Key,
    },
    session::{Session, links::SeenLink, summary::LinkSummary},
};

/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Heights alone are no news: at rest the status is written this often.
const HEIGHTS_EVERY: Duration = Duration::from_mins(3);
/// Links are put together this often, and their figures alone are no news for so long.
const LINKS_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// After a failed write.
const PAUSE: Duration = Duration::from_secs(1);

/// What the steps before know.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Of the spec that was applied last.
    pub generation: Option<i64>,
    /// A newer spec was refused, and why.
    pub refused: Option<String>,
    /// The objects could not be applied, and why.
    pub unapplied: Option<String>,
    pub applied: Option<Instant>,
    /// Of what was applied.
    pub versions: Versions,
    /// Some groups wait until the pods of another one have been replaced.
    pub rolling: bool,
    /// When it was last compared with what is there.
    pub looked: Option<Instant>,
    /// Nothing is to be applied.
    pub paused: bool,
    /// Who sends transfers by hand, as the object is marked, and since when it has been so: a mark that stays the same is over
    /// in the end.
    pub mark: Option<(String, Instant)>,
    /// Whether links are to be broken here at all.
    faults: bool,
    /// Why they cannot be.
    pub links: Option<String>,
}

impl Facts {
    pub fn of(valid: &Valid) -> Self {
        Self {
            generation: valid.generation,
            faults: valid.spec.faults,
            paused: valid.is_paused,
            mark: valid.mark.clone().map(|mark| (mark, Instant::now())),
            ..Self::default()
        }
    }

    /// What somebody asks of a testnet beside its spec; whether any of it is new.
    pub fn ask(&mut self, valid: &Valid) -> bool {
        let was_paused = std::mem::replace(&mut self.paused, valid.is_paused);
        let is_other_mark = self.mark.as_ref().map(|(mark, _)| mark) != valid.mark.as_ref();
        if is_other_mark {
            self.mark = valid.mark.clone().map(|mark| (mark, Instant::now()));
        }
        was_paused != self.paused || is_other_mark
    }
}

/// The object that is told about.
pub struct Subject {
    key: Key,
    uid: String,
    reference: ObjectReference,
    status: TestnetStatus,
}

impl Subject {
    pub fn of(valid: &Valid) -> Self {
        Self {
            key: valid.key.clone(),
            uid: valid.uid.clone(),
            reference: valid.reference.clone(),
            status: valid.status.clone(),
        }
    }
}

/// Tells for as long as it is polled.
pub async fn tell(
    context: Arc<Context>,
    subject: Subject,
    session: Arc<Session>,
    backend: Arc<KubernetesBackend>,
    mut facts: watch::Receiver<Facts>,
    by_hand: watch::Receiver<Option<String>>,
) {
    let Subject { key: (namespace, name), uid, reference, status: mut last } = subject;
    let api: Api<Testnet> = Api::namespaced(context.client.clone(), &namespace);
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    let mut troubles = Troubles::default();
    let mut links = Links { status: last.links.clone(), looked: None };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = facts.changed() => if changed.is_err() { return },
        }
        let lost = session.refresh_nodes().await.err().map(|error| format!("{error:#}"));
        let known = facts.borrow_and_update().clone();
        // To ask for what is missing would be to change something.
        let trouble = if known.paused { None } else { backend.trouble(&mut troubles).await };
        links.look(&session);
        let seen = look(&session, &backend, &known, trouble, lost, &last).await;
        let mut status = TestnetStatus { links: links.status.clone(), ..seen };
        if session.plan.load.is_some() {
            let made_way = load_made_way(by_hand.borrow().as_deref(), known.generation);
            set_condition(&mut status.conditions, made_way);
        } else {
            status.conditions.retain(|condition| condition.type_ != LOAD_MADE_WAY);
        }
        let figures_alone = same_counts(&status, &last);
        let no_news = TestnetStatus {
            final_height: last.final_height,
            links: if figures_alone { last.links.clone() } else { status.links.clone() },
            ..status.clone()
        };
        let wait = if status.links == last.links { HEIGHTS_EVERY } else { LINKS_EVERY.1 };
        if no_news == last && told.elapsed() < wait {
            continue;
        }
        match write_status(&api, &name, &uid, &status).await {
            Ok(Written::Yes) => {
                told = Instant::now();
                announce(&context, &reference, &last, &status).await;
                last = status;
            }
            Ok(Written::Gone) => return,
            Err(error) => {
                tracing::warn!(testnet = name, %error, "cannot write the status");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The links as they were put together last.
struct Links {
    status: Option<LinksStatus>,
    looked: Option<Instant>,
}

impl Links {
    fn look(&mut self, session: &Session) {
        if self.looked.is_some_and(|at| at.elapsed() < LINKS_EVERY.0) {
            return;
        }
        // While a change is made, what was measured before it is of no use, and what comes after is not there yet.
        let Some(links) = session.faults.measured_links() else { return };
        self.looked = Some(Instant::now());
        self.status = links_status(LinkSummary::of(links));
    }
}

/// None when nothing is asked of any link.
fn links_status(summary: LinkSummary) -> Option<LinksStatus> {
    (summary.measured > 0).then(|| LinksStatus {
        total: summary.total as i64,
        measured: summary.measured as i64,
        as_asked: summary.as_asked as i64,
        worst: summary.worst.into_iter().map(link_status).collect(),
    })
}

fn link_status(link: SeenLink) -> LinkStatus {
    let SeenLink { from, to, asked, measured, problem, changed: _ } = link;
    let asked = LinksSpec::of(&asked).inspect_err(|error| tracing::error!(%error, "cannot write a link"));
    LinkStatus {
        from,
        to,
        asked: asked.unwrap_or_default(),
        latency_us: measured.as_ref().and_then(|seen| seen.latency_us),
        sent: measured.as_ref().map_or(0, |seen| seen.sent as i64),
        received: measured.as_ref().map_or(0, |seen| seen.received as i64),
        problem,
    }
}

/// Whether as many links as before are measured, and are as asked.
fn same_counts(one: &TestnetStatus, other: &TestnetStatus) -> bool {
    let counts = |status: &TestnetStatus| {
        status.links.as_ref().map(|links| (links.total, links.measured, links.as_asked))
    };
    counts(one) == counts(other)
}

async fn announce(
    context: &Context,
    reference: &ObjectReference,
    last: &TestnetStatus,
    status: &TestnetStatus,
) {
    if last.phase != status.phase && status.phase.as_deref() == Some("Running") {
        let note = format!("all {} nodes run and make blocks final", status.nodes);
        context.tell(reference, EventType::Normal, "Ready", note).await;
    }
    if last.problem != status.problem
        && let Some(problem) = &status.problem
    {
        let is_it = |condition: &&Condition| condition.message == *problem;
        let reason = status.conditions.iter().find(is_it).map_or("Problem", |condition| &condition.reason);
        context.tell(reference, EventType::Warning, reason, problem.clone()).await;
    }
}

fn load_made_way(by_hand: Option<&str>, generation: Option<i64>) -> Condition {
    match by_hand {
        Some(who) => {
            let why = format!("the testnet's own load waits while transfers are sent by hand, by {who}");
            condition(LOAD_MADE_WAY, true, "ByHand", why, generation)
        }
        None => {
            condition(LOAD_MADE_WAY, false, "NotAsked", "transfers are sent as the testnet says", generation)
        }
    }
}

async fn look(
    session: &Session,
    backend: &KubernetesBackend,
    facts: &Facts,
    trouble: Option<Trouble>,
    lost: Option<String>,
    last: &TestnetStatus,
) -> TestnetStatus {
    let state = session.state().await;
    let views = session.views();
    let does = |name: &str, what: fn(&NodeStatus) -> bool| {
        state.nodes.iter().any(|node| node.name == name && what(node))
    };
    let runs = |node: &NodeStatus| node.state == NodeState::Running && !node.paused;
    let nodes = session.plan.nodes.len();
    let is_ready = |view: &&NodeView| view.following && does(&view.name, runs);
    let ready = views.iter().filter(is_ready).count();
    // What a fault asks for is no trouble of the testnet.
    let is_held = |view: &&NodeView| does(&view.name, |node| node.held.is_some());
    let held: Vec<&str> = views.iter().filter(is_held).map(|view| view.name.as_str()).collect();
    let alive = views.len() == nodes
        && views.iter().all(|view| view.final_height > 0 && (is_ready(&view) || is_held(&view)));
    let agents = backend.agents().unwrap_or_default();
    let unable = agents.iter().find_map(|agent| {
        let why = agent.unable.as_ref()?;
        Some(format!("the link agent of {} cannot cut links: {why}", agent.node))
    });
    let cannot_shape = agents.iter().find_map(|agent| {
        let why = agent.cannot_shape.as_ref()?;
        Some(format!(
            "links can be cut, but not be slow or lossy: the link agent of {} says: {why}",
            agent.node
        ))
    });
    let refused = facts.refused.clone();
    let as_trouble = |reason| move |message| Trouble { reason, message };
    let blocked = (facts.unapplied.clone().map(as_trouble("NotApplied")))
        .or_else(|| facts.links.clone().map(as_trouble("PodSecurity")))
        .or_else(|| {
            cannot_shape
                .clone()
                .filter(|_| session.spec.links.is_some())
                .map(as_trouble("ShapingUnsupported"))
        })
        .or(trouble)
        .or_else(|| lost.map(as_trouble("PodsUnknown")));
    let was_ready = last.phase.as_deref().is_some_and(|phase| phase == "Running" || phase == "Degraded");
    let phase = match (alive, was_ready) {
        (true, _) => "Running",
        (false, true) => "Degraded",
        (false, false) => "Starting",
    };
    let mut status = TestnetStatus {
        phase: Some(phase.to_owned()),
        observed_generation: facts.generation,
        nodes: nodes as i32,
        ready: ready as i32,
        final_height: views.iter().map(|view| view.final_height).max().unwrap_or_default() as i64,
        experiment: (!state.experiment.is_empty()).then_some(state.experiment),
        problem: refused.clone().or_else(|| blocked.as_ref().map(|trouble| trouble.message.clone())),
        links: None,
        conditions: last.conditions.clone(),
    };
    let generation = facts.generation;
    let accepted = match &refused {
        None => condition("Accepted", true, "Valid", "the spec is valid", generation),
        Some(why) => condition("Accepted", false, "Invalid", why.clone(), generation),
    };
    set_condition(&mut status.conditions, accepted);
    let ready = match (alive, &blocked) {
        (true, _) => {
            let mut message = format!("all {nodes} nodes run and make blocks final");
            if !held.is_empty() {
                message = format!("{message}, but for those that a fault holds: {}", held.join(", "));
            }
            condition("Ready", true, "NodesReady", message, generation)
        }
        (false, Some(why)) => condition("Ready", false, why.reason, why.message.clone(), generation),
        (false, None) => {
            let message = "not every node runs, answers and holds a final block: see status.ready";
            condition("Ready", false, "NodesNotReady", message, generation)
        }
    };
    set_condition(&mut status.conditions, ready);
    let links = match (facts.faults, facts.links.clone(), unable) {
        (false, ..) => {
            condition("LinksSupported", false, "FaultsOff", "the testnet has `faults: off`", generation)
        }
        (true, Some(why), _) => condition("LinksSupported", false, "PodSecurity", why, generation),
        (true, None, Some(why)) => condition("LinksSupported", false, "AgentUnable", why, generation),
        (true, None, None) => {
            if let Some(why) = cannot_shape {
                condition("LinksSupported", false, "ShapingUnsupported", why, generation)
            } else {
                let message = "links can be cut, slow and lossy";
                condition("LinksSupported", true, "LinkAgents", message, generation)
            }
        }
    };
    set_condition(&mut status.conditions, links);
    let paused = if facts.paused {
        let why = format!("nothing of it is applied or put back until the annotation {PAUSED} is removed");
        condition("Paused", true, "Asked", why, generation)
    } else {
        condition("Paused", false, "NotAsked", "what somebody changes is put back", generation)
    };
    set_condition(&mut status.conditions, paused);
    status
}
