//! What the hub knows of one testnet: its pods, the agents in them, the desired cuts and what is known about these.
//!
//! Synchronous and without a clock of its own. Everything that changes what an agent has to do ends in
//! [`TestnetState::publish`], which composes its table anew.

mod awaited;
mod compose;
mod evidence;
mod holds;
mod shaped;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use netsplit_links::{
    Cut,
    cuts::{Changed, MAX_ADDRESSES, MAX_CUTS},
    pod::{Report, ShapedReport, Version},
    tracker::Tracker,
};
use netsplit_proto::agent as wire;
use tokio::sync::watch;

pub(super) use self::awaited::Awaited;
pub use self::holds::NodeWord;
use self::{
    compose::Told,
    holds::{Holds, Restarts, Word},
    shaped::Shaped,
};
use super::{pairs::Pairs, wire as convert};
use crate::backend::{BackendError, CutRequest};

/// Reports that are older show nothing about now; an agent with nothing to count sends one a second.
const FRESH: Duration = Duration::from_secs(2);

/// A pod of the testnet, as the API server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node that it runs.
    pub node: String,
    pub pod: String,
    /// None while there is no such pod.
    pub uid: Option<String>,
    pub address: Option<Ipv4Addr>,
    /// Its node has been started: its agent is expected to be there.
    pub running: bool,
}

/// What is known of the agent of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    pub node: String,
    pub connected: bool,
    /// Its latest table is in force.
    pub current: bool,
    /// Why it cannot cut links.
    pub unable: Option<String>,
    /// Why it cannot shape them.
    pub cannot_shape: Option<String>,
}

/// An agent that says hello, whose pod is certain.
#[derive(Debug, Clone)]
pub(super) struct Newcomer {
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) boot: u32,
    pub(super) address: Ipv4Addr,
    pub(super) unable: Option<String>,
    pub(super) cannot_shape: Option<String>,
    /// The table it holds already.
    pub(super) applied: Option<Version>,
}

/// Why an agent may not join; it asks again later.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum JoinError {
    #[error("pod {0} has another uid now")]
    OtherPod(String),
    #[error("{address} is the address of {node}")]
    AddressTaken { address: Ipv4Addr, node: String },
    #[error("table {0} of a later leader is in force")]
    LaterLeader(Version),
}

#[derive(Debug)]
struct Agent {
    uid: String,
    boot: u32,
    address: Ipv4Addr,
    unable: Option<String>,
    cannot_shape: Option<String>,
    /// Tells its streams apart: what comes over an older one is not heard. None: it is away.
    stream: Option<u64>,
    tables: watch::Sender<Option<wire::LinkTable>>,
    /// What it was last told, but for versions and times.
    told: Option<Told>,
    sent: Option<Version>,
    applied: Option<Version>,
    refused: Option<String>,
    report: Report,
    /// What it said last of shaped links.
    shaped: ShapedReport,
    /// What the keeper of its node said last.
    node: Option<Word>,
    /// When it reported last.
    heard_at: Instant,
    /// The ends of its cuts' leases, by instance.
    deadlines: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Node {
    member: Member,
    agent: Option<Agent>,
}

impl Node {
    /// Where other nodes' packets come from when they come from this one.
    fn address(&self) -> Option<Ipv4Addr> {
        self.agent.as_ref().map(|agent| agent.address).or(self.member.address)
    }
}

#[derive(Debug, Clone)]
struct Desired {
    request: CutRequest,
    /// Tells this cut from an earlier one with the same id.
    instance: u64,
    deadline: Instant,
    /// Dropped by agents that are no more.
    earlier_drops: u64,
}

#[derive(Debug)]
pub(super) struct TestnetState {
    nodes: BTreeMap<String, Node>,
    session: u32,
    term: u64,
    sequence: u64,
    /// Whether the cuts are known: a new leader must not heal what it has not heard of yet.
    opened: bool,
    desired: Vec<Desired>,
    /// None while the links are not known, which is the same.
    shaped: Option<Shaped>,
    /// None while it is not known which nodes are held, which is the same.
    holds: Option<Holds>,
    asked_restarts: BTreeMap<String, Restarts>,
    /// How often agents were started again while they shaped links, by node.
    restarts: BTreeMap<String, u32>,
    next_instance: u64,
    tracker: Tracker,
    pairs: Pairs,
    next_stream: u64,
    /// Counts what agents confirm, for those who wait for it.
    pub(super) heard: watch::Sender<u64>,
}

impl TestnetState {
    pub(super) fn new(term: u64, session: u32) -> Self {
        Self {
            nodes: BTreeMap::new(),
            session,
            term,
            sequence: 0,
            opened: false,
            desired: Vec::new(),
            shaped: None,
            holds: None,
            asked_restarts: BTreeMap::new(),
            restarts: BTreeMap::new(),
            // Agents tell cuts apart by it, also those of two leaders.
            next_instance: (term << 32) + 1,
            tracker: Tracker::default(),
            pairs: Pairs::default(),
            next_stream: 1,
            heard: watch::Sender::new(0),
        }
    }

    /// Whether all that agents are told is known.
    fn is_known(&self) -> bool {
        self.opened && self.shaped.is_some() && self.holds.is_some()
    }

    /// The node whose pod has this name.
    pub(super) fn node_of(&self, pod: &str) -> Option<String> {
        self.nodes.values().find(|node| node.member.pod == pod).map(|node| node.member.node.clone())
    }

    /// Follows the pods. Agents of pods that are gone or were replaced are forgotten, and with them their addresses.
    pub(super) fn set_members(&mut self, members: Vec<Member>, now: Instant) {
        let mut before = std::mem::take(&mut self.nodes);
        for member in members {
            let old = before.remove(&member.node);
            let unseen = old.as_ref().is_none_or(|node| node.member.uid.is_none());
            let agent = old.and_then(|node| node.agent);
            // An agent may be heard of before its pod is.
            let stays =
                |agent: &Agent| member.uid.as_ref() == Some(&agent.uid) || (unseen && member.uid.is_none());
            let (kept, gone): (Option<Agent>, Option<Agent>) = match agent {
                Some(agent) if stays(&agent) => (Some(agent), None),
                other => (None, other),
            };
            if let Some(agent) = gone {
                self.bury(&agent);
            }
            self.nodes.insert(member.node.clone(), Node { member, agent: kept });
        }
        for node in before.into_values() {
            if let Some(agent) = node.agent {
                self.bury(&agent);
            }
        }
        self.follow_addresses();
        self.publish(now, false);
    }

    /// Keeps what an agent that is no more has dropped.
    fn bury(&mut self, agent: &Agent) {
        for desired in &mut self.desired {
            let counted = agent.report.cuts.iter().find(|cut| cut.id == desired.instance);
            desired.earlier_drops += counted.map_or(0, |cut| cut.drops);
        }
    }

    /// Takes an agent in; gives its tables and the number of its stream.
    pub(super) fn join(
        &mut self,
        node: &str,
        newcomer: Newcomer,
        now: Instant,
    ) -> Result<(u64, watch::Receiver<Option<wire::LinkTable>>), JoinError> {
        let holder = |other: &&Node| other.member.node != node && other.address() == Some(newcomer.address);
        if let Some(holder) = self.nodes.values().find(holder) {
            let (address, node) = (newcomer.address, holder.member.node.clone());
            return Err(JoinError::AddressTaken { address, node });
        }
        let other_pod = || JoinError::OtherPod(newcomer.pod.clone());
        let known = self.nodes.get_mut(node).ok_or_else(other_pod)?;
        if known.member.uid.as_ref().is_some_and(|uid| *uid != newcomer.uid) {
            return Err(other_pod());
        }
        if let Some(applied) = newcomer.applied {
            if applied.term > self.term {
                return Err(JoinError::LaterLeader(applied));
            }
            // The same leader after a restart of its own: go on where the agents are.
            if applied.term == self.term {
                self.sequence = self.sequence.max(applied.sequence);
            }
        }
        let stream = self.next_stream;
        self.next_stream += 1;
        let (tables, receiver) = watch::channel(None);
        let before = known.agent.take();
        let same = before.as_ref().is_some_and(|agent| {
            (&agent.uid, agent.boot, agent.address) == (&newcomer.uid, newcomer.boot, newcomer.address)
        });
        let known_report = before.as_ref().filter(|_| same);
        let of_pod = before.as_ref().filter(|before| before.uid == newcomer.uid);
        // The keeper goes on while its agent is started again.
        let node_word = of_pod.and_then(|before| before.node.clone());
        let restarted = of_pod.is_some() && !same;
        known.agent = Some(Agent {
            uid: newcomer.uid,
            boot: newcomer.boot,
            address: newcomer.address,
            unable: newcomer.unable,
            cannot_shape: newcomer.cannot_shape,
            stream: Some(stream),
            tables,
            told: None,
            sent: None,
            applied: newcomer.applied,
            refused: None,
            report: known_report.map(|agent| agent.report.clone()).unwrap_or_default(),
            shaped: known_report.map(|agent| agent.shaped.clone()).unwrap_or_default(),
            node: node_word,
            heard_at: now,
            deadlines: known_report.map(|agent| agent.deadlines.clone()).unwrap_or_default(),
        });
        if restarted && self.shaped.as_ref().is_some_and(|shaped| shaped.is_shaped(node)) {
            *self.restarts.entry(node.to_owned()).or_default() += 1;
        }
        if let Some(before) = before.filter(|_| !same) {
            self.bury(&before);
            self.follow_addresses();
            self.pairs.renew(newcomer.address);
        } else {
            self.follow_addresses();
        }
        self.publish(now, false);
        Ok((stream, receiver))
    }

    /// A stream has ended. The agent's cuts hold until their leases end.
    pub(super) fn leave(&mut self, node: &str, stream: u64) {
        if let Some(agent) = self.agent_on(node, stream) {
            agent.stream = None;
            self.heard.send_modify(|count| *count += 1);
        }
    }

    fn agent_on(&mut self, node: &str, stream: u64) -> Option<&mut Agent> {
        self.nodes.get_mut(node)?.agent.as_mut().filter(|agent| agent.stream == Some(stream))
    }

    /// Takes what an agent says, over its newest stream.
    pub(super) fn report(&mut self, node: &str, stream: u64, message: wire::AgentReport, now: Instant) {
        let agent = self.nodes.get_mut(node).and_then(|node| node.agent.as_mut());
        let Some(agent) = agent.filter(|agent| agent.stream == Some(stream)) else { return };
        agent.refused = message.refused.as_ref().map(|refusal| refusal.reason.clone());
        let kept = message.node;
        let mut report = convert::read_report(message);
        let shaped = report.shaped.take();
        let deadline =
            |cut: &netsplit_links::pod::CutReport| (cut.id, now + Duration::from_millis(cut.lease_left_ms));
        agent.deadlines = report.cuts.iter().map(deadline).collect();
        agent.applied = report.applied;
        let address = agent.address;
        let interrupted: Vec<(u64, String)> =
            report.cuts.iter().filter_map(|cut| Some((cut.id, cut.interrupted.clone()?))).collect();
        self.pairs.report(address, &report.sent, &report.received);
        agent.report = report;
        agent.heard_at = now;
        if let Some(shaped) = shaped {
            self.see_links(node, shaped);
        }
        self.see_node(node, kept.as_ref(), now);
        for (instance, sentence) in interrupted {
            if let Some(desired) = self.desired.iter().find(|desired| desired.instance == instance) {
                self.tracker.interrupted(&desired.request.id, format!("{sentence} at {node}"));
            }
        }
        self.heard.send_modify(|count| *count += 1);
    }

    pub(super) fn agents(&self) -> Vec<AgentStatus> {
        let status = |node: &Node| AgentStatus {
            node: node.member.node.clone(),
            connected: node.agent.as_ref().is_some_and(|agent| agent.stream.is_some()),
            current: node
                .agent
                .as_ref()
                .is_some_and(|agent| agent.sent.is_some() && agent.applied >= agent.sent),
            unable: node.agent.as_ref().and_then(|agent| agent.unable.clone()),
            cannot_shape: node.agent.as_ref().and_then(|agent| agent.cannot_shape.clone()),
        };
        self.nodes.values().map(status).collect()
    }

    // === the desired state ===

    /// Makes exactly these cuts the desired ones. Gives what they were before, unless these are the first to be known, and
    /// who must confirm.
    pub(super) fn set_cuts(
        &mut self,
        requests: Vec<CutRequest>,
        now: Instant,
    ) -> Result<(Option<Vec<CutRequest>>, Awaited), BackendError> {
        self.check(&requests)?;
        self.look(now);
        let before = std::mem::take(&mut self.desired);
        let was_opened = std::mem::replace(&mut self.opened, true);
        let mut changed = Changed::default();
        let mut started = Vec::new();
        for request in requests {
            let deadline = now + request.lease;
            let old =
                before.iter().find(|old| old.request.id == request.id && old.request.rects == request.rects);
            if let Some(old) = old {
                if now >= old.deadline {
                    changed.lapsed.push((request.id.clone(), now - old.deadline));
                }
                self.desired.push(Desired { request, deadline, ..old.clone() });
            } else {
                changed.started.push(request.id.clone());
                started.push(request.rects.clone());
                let instance = self.next_instance;
                self.next_instance += 1;
                self.desired.push(Desired { request, instance, deadline, earlier_drops: 0 });
            }
        }
        let ended = before.iter().filter(|old| !self.desired.iter().any(|new| new.instance == old.instance));
        changed.ended = ended.map(|old| old.request.id.clone()).collect();
        let cuts: Vec<Cut> = self.desired.iter().map(|desired| self.links_cut(&desired.request)).collect();
        self.tracker.changed(&mut self.pairs, &cuts, &changed, now);
        self.publish(now, true);
        // Before all is known nobody is told anything; who makes it known waits for all.
        let awaited = if self.is_known() { self.awaited(&started) } else { Awaited::default() };
        let before = was_opened.then(|| before.into_iter().map(|old| old.request).collect());
        Ok((before, awaited))
    }

    fn check(&self, requests: &[CutRequest]) -> Result<(), BackendError> {
        let mut ids = BTreeSet::new();
        if requests.len() > MAX_CUTS {
            return Err(BackendError::Invalid(format!(
                "{} cuts at once, at most {MAX_CUTS} work",
                requests.len()
            )));
        }
        for request in requests {
            let id = &request.id;
            let invalid = |problem: String| Err(BackendError::Invalid(format!("cut {id:?}: {problem}")));
            if id.is_empty() || id.len() > Cut::MAX_ID {
                return invalid(format!("its id must have 1 to {} bytes", Cut::MAX_ID));
            }
            if let Some(problem) = bad_lease(request.lease) {
                return invalid(problem);
            }
            let empty = |rect: &crate::backend::CutRect| rect.from.is_empty() || rect.to.is_empty();
            if request.rects.is_empty() || request.rects.iter().any(empty) {
                return invalid("it cuts nothing".to_owned());
            }
            if !ids.insert(id) {
                return invalid("two cuts have this id".to_owned());
            }
            let mut names = request.rects.iter().flat_map(|rect| rect.from.iter().chain(&rect.to));
            if let Some(unknown) = names.find(|name| !self.nodes.contains_key(*name)) {
                return Err(BackendError::UnknownNode(unknown.clone()));
            }
        }
        // An agent holds at most all sources of every cut.
        if requests.len() * self.nodes.len() > MAX_ADDRESSES {
            return Err(BackendError::Invalid(format!(
                "{} cuts over {} nodes are more than an agent can hold",
                requests.len(),
                self.nodes.len()
            )));
        }
        Ok(())
    }

    /// Renews every cut, the faulted links and held nodes, unless their lease has ended; gives the names of those whose has.
    pub(super) fn renew(&mut self, now: Instant) -> Vec<String> {
        self.look(now);
        let (live, ended): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.desired).into_iter().partition(|desired| desired.deadline > now);
        self.desired = live;
        for desired in &mut self.desired {
            desired.deadline = now + desired.request.lease;
        }
        let cuts: Vec<Cut> = self.desired.iter().map(|desired| self.links_cut(&desired.request)).collect();
        let ended: Vec<String> = ended.into_iter().map(|desired| desired.request.id).collect();
        let changed = Changed { ended: ended.clone(), ..Changed::default() };
        self.tracker.changed(&mut self.pairs, &cuts, &changed, now);
        let links = self.renew_links(now);
        let nodes = self.renew_nodes(now);
        self.publish(now, true);
        ended.into_iter().chain(links).chain(nodes).collect()
    }
}

/// Why no fault can be leased for so long, if so.
fn bad_lease(lease: Duration) -> Option<String> {
    let (least, most) = (Cut::MIN_LEASE, Cut::MAX_LEASE);
    (!(least..=most).contains(&lease))
        .then(|| format!("a lease of {lease:?} is not between {least:?} and {most:?}"))
}

#[cfg(test)]
mod tests;
