//! Nodes that faults hold: what is asked of each node's keeper, and what its agent tells of it.
//!
//! The keeper lets a node go by itself when its lease ends, so a hold is in force for as long as the keeper said last,
//! whether its agent is heard of meanwhile or not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use netsplit_keeper::{State, Status};
use netsplit_proto::agent as wire;

use super::{Awaited, TestnetState, bad_lease};
use crate::{
    backend::{BackendError, Hold, NodeHold, NodeState, NodeStatus},
    kubernetes::tables::wire::node as convert,
};

/// The whole desired state of nodes, and how long it lasts.
pub(in super::super) type Wanted = (Vec<NodeHold>, Duration);

#[derive(Debug)]
pub(super) struct Holds {
    wanted: BTreeMap<String, Hold>,
    lasts: Duration,
    deadline: Instant,
}

impl Holds {
    fn new((holds, lasts): Wanted, now: Instant) -> Self {
        Self { wanted: NodeHold::strongest(holds), lasts, deadline: now + lasts }
    }

    /// What is asked of a node.
    pub(super) fn of(&self, node: &str) -> Option<Hold> {
        self.wanted.get(node).copied()
    }

    /// The same as a message.
    pub(super) fn message(&self, node: &str, now: Instant) -> Option<wire::NodeHold> {
        let left = self.deadline.saturating_duration_since(now);
        Some(convert::hold(self.of(node).filter(|_| !left.is_zero())?, left))
    }
}

/// What a keeper said last, as its agent told.
#[derive(Debug, Clone)]
pub(super) struct Word {
    status: Status,
    /// Until then what it holds is held, whoever is heard of.
    until: Instant,
}

impl Word {
    /// None: the message has nothing to say, or what it says is not known here.
    pub(super) fn read(message: Option<&wire::NodeReport>, now: Instant) -> Option<Self> {
        let status = convert::read_status(message?)
            .inspect_err(|error| tracing::warn!(%error, "what a keeper says is not understood"));
        status.ok().map(|status| Self { until: now + status.left, status })
    }

    fn holds(&self, now: Instant) -> Option<Hold> {
        self.status.held.filter(|_| now < self.until).map(Hold::from)
    }

    /// It is in the state that is asked for. An orderly end takes its time.
    fn is(&self, hold: Hold, now: Instant) -> bool {
        self.holds(now) == Some(hold)
            && match hold {
                Hold::Ended => true,
                Hold::Killed => self.status.state != State::Running,
                Hold::Paused => self.status.paused,
            }
    }
}

/// Restarts that faults asked for: a keeper counts its own, and is another one in each container.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    before: u32,
    last: u32,
}

impl Restarts {
    fn see(&mut self, told: u32) {
        if told < self.last {
            self.before += self.last;
        }
        self.last = told;
    }
}

/// What is known of a node beside its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeWord {
    /// None: no keeper has told of it.
    status: Option<Status>,
    held: Option<Hold>,
    restarts: u32,
}

impl NodeWord {
    /// What the pod shows, and what the keeper in it says of the node.
    pub fn tell(&self, pod: NodeStatus) -> NodeStatus {
        let status = self.status.filter(|_| pod.state == NodeState::Running);
        let state = match status.map(|status| status.state) {
            // The process that the kubelet sees is the keeper.
            Some(State::Running) => NodeState::Running,
            Some(State::Exited(code)) => NodeState::Exited { code: Some(code), signal: None },
            Some(State::Killed(signal)) => NodeState::Exited { code: None, signal: Some(signal) },
            Some(State::Starting) => NodeState::Starting,
            // A keeper starts nothing before it was told what the node is held in.
            None if self.held.is_some() && pod.state == NodeState::Running => NodeState::Starting,
            None => pod.state.clone(),
        };
        NodeStatus {
            state,
            pid: status.and_then(|status| status.pid),
            paused: status.is_some_and(|status| status.paused),
            held: self.held,
            restarts: pod.restarts + self.restarts,
            ..pod
        }
    }
}

impl TestnetState {
    /// Holds exactly these nodes, for their lease from now on. Gives what was asked for before, unless this is the first to be
    /// known, and who must confirm: those that are let go are seen to run later.
    pub(in super::super) fn set_nodes(
        &mut self,
        wanted: Wanted,
        now: Instant,
    ) -> Result<(Option<Wanted>, Awaited), BackendError> {
        self.check_nodes(&wanted, now)?;
        let was_known = self.is_known();
        let before = self.holds.replace(Holds::new(wanted, now));
        let asked = self.holds.iter().flat_map(|holds| &holds.wanted);
        let is_news = |(node, hold): &(&String, &Hold)| {
            before.as_ref().is_none_or(|before| before.of(node) != Some(**hold))
        };
        let holds = asked.filter(is_news).map(|(node, hold)| (node.clone(), *hold)).collect();
        self.publish(now, true);
        // Now that all is known, everybody is told for the first time.
        let tables = if !was_known && self.is_known() { self.newest(|_| true) } else { BTreeMap::new() };
        let before = before.map(|before| {
            let hold = |(node, hold)| NodeHold { node, hold };
            (before.wanted.into_iter().map(hold).collect(), before.lasts)
        });
        Ok((before, Awaited { tables, holds, ..Awaited::default() }))
    }

    fn check_nodes(&self, (holds, lease): &Wanted, now: Instant) -> Result<(), BackendError> {
        if let Some(problem) = bad_lease(*lease).filter(|_| !holds.is_empty()) {
            return Err(BackendError::Invalid(problem));
        }
        for NodeHold { node, .. } in holds {
            let known = self.nodes.get(node).ok_or_else(|| BackendError::UnknownNode(node.clone()))?;
            // The first names what a leader before this one has left in force: its agents may not be heard of yet.
            let Some(before) = &self.holds else { continue };
            if before.of(node).is_some() {
                continue;
            }
            let cannot = |why: &str| Err(BackendError::Failed(format!("{node} cannot be held: {why}")));
            let Some(agent) = known.agent.as_ref().filter(|agent| agent.stream.is_some()) else {
                return cannot("its link agent is not connected");
            };
            match &agent.node {
                None => {
                    return cannot(
                        "nobody keeps its process: it has not been started yet, or its pod is of a netsplit that could \
                         not do this",
                    );
                }
                Some(word) if word.holds(now).is_none() && word.status.state != State::Running => {
                    return Err(BackendError::Invalid(format!("{node} has no running process")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes what the agent of a node tells of its keeper. Nothing told is nothing new: an agent that was started again has
    /// yet to find it.
    pub(super) fn see_node(&mut self, node: &str, message: Option<&wire::NodeReport>, now: Instant) {
        let Some(word) = Word::read(message, now) else { return };
        self.asked_restarts.entry(node.to_owned()).or_default().see(word.status.restarts);
        if let Some(agent) = self.nodes.get_mut(node).and_then(|node| node.agent.as_mut()) {
            agent.node = Some(word);
        }
    }

    /// Renews the holds, unless their lease has ended; gives what is to be said of those whose has.
    pub(super) fn renew_nodes(&mut self, now: Instant) -> Option<String> {
        if let Some(ended) = self.end_holds(now) {
            return Some(ended);
        }
        if let Some(holds) = &mut self.holds {
            holds.deadline = now + holds.lasts;
        }
        None
    }

    /// What nobody has renewed is not asked for any more; gives its name.
    fn end_holds(&mut self, now: Instant) -> Option<String> {
        let holds = self.holds.as_mut().filter(|holds| now >= holds.deadline && !holds.wanted.is_empty())?;
        let names: Vec<String> = std::mem::take(&mut holds.wanted).into_keys().collect();
        Some(format!("the hold of {}", names.join(", ")))
    }

    /// What is known of every node.
    pub(in super::super) fn node_words(&mut self, now: Instant) -> BTreeMap<String, NodeWord> {
        if self.end_holds(now).is_some() {
            self.publish(now, false);
        }
        let word = |(name, node): (&String, &super::Node)| {
            let word = node.agent.as_ref().and_then(|agent| agent.node.as_ref());
            let wanted = self.holds.as_ref().and_then(|holds| holds.of(name));
            // Where no keeper has been told yet, none has let anything go.
            let was_let_go = |word: &Word| word.status.state != State::Starting && word.holds(now).is_none();
            let held = wanted.filter(|_| !word.is_some_and(was_let_go));
            let restarts = self.asked_restarts.get(name).map_or(0, |seen| seen.before + seen.last);
            (name.clone(), NodeWord { status: word.map(|word| word.status), held, restarts })
        };
        self.nodes.iter().map(word).collect()
    }

    /// Whose keepers have not done what is awaited of them, each with why.
    pub(super) fn unheld(&self, awaited: &Awaited, now: Instant) -> Vec<(String, Option<String>)> {
        let missing = |(name, hold): (&String, &Hold)| {
            let agent = self.nodes.get(name)?.agent.as_ref();
            let word = agent.and_then(|agent| agent.node.as_ref());
            let is_held = word.is_some_and(|word| word.is(*hold, now));
            let away = agent.is_none_or(|agent| agent.stream.is_none());
            (!is_held).then(|| (name.clone(), away.then(|| "it is not connected".to_owned())))
        };
        awaited.holds.iter().filter_map(missing).collect()
    }
}

#[cfg(test)]
mod tests;
