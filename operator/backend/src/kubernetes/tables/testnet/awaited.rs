//! Who has to confirm a change, and who has not yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use netsplit_links::pod::Version;

use super::{Agent, Node, TestnetState};
use crate::backend::{CutRect, Hold};

/// What a change waits for.
#[derive(Debug, Default)]
pub(in super::super) struct Awaited {
    /// Agents by node, and the table that each must hold.
    pub(super) tables: BTreeMap<String, Option<Version>>,
    /// Those of them that must be able to shape links, not only to cut them.
    pub(super) shape: BTreeSet<String>,
    /// What keepers must hold their nodes in.
    pub(super) holds: BTreeMap<String, Hold>,
}

impl Awaited {
    /// Why an agent will never do what is awaited of it.
    fn unable<'a>(&self, node: &str, agent: &'a Agent) -> Option<&'a String> {
        let cannot_shape = agent.cannot_shape.as_ref().filter(|_| self.shape.contains(node));
        agent.unable.as_ref().or(cannot_shape)
    }
}

impl TestnetState {
    /// The agents of running nodes that these links end at: each must hold the newest table.
    pub(super) fn awaited(&self, started: &[Vec<CutRect>]) -> Awaited {
        let ends = |node: &Node| {
            let name = &node.member.node;
            started
                .iter()
                .flatten()
                .any(|rect| rect.to.contains(name) && rect.from.iter().any(|from| from != name))
        };
        Awaited { tables: self.newest(ends), ..Awaited::default() }
    }

    /// The newest tables of some nodes, as far as these run.
    pub(super) fn newest(&self, which: impl Fn(&Node) -> bool) -> BTreeMap<String, Option<Version>> {
        let waits = |node: &&Node| (node.member.running || node.agent.is_some()) && which(node);
        let version = |node: &Node| node.agent.as_ref().and_then(|agent| agent.sent);
        self.nodes.values().filter(waits).map(|node| (node.member.node.clone(), version(node))).collect()
    }

    /// Who has not confirmed yet, each with why.
    pub(in super::super) fn unconfirmed(
        &self,
        awaited: &Awaited,
        now: Instant,
    ) -> Vec<(String, Option<String>)> {
        let missing = |(name, version): (&String, &Option<Version>)| {
            let node = self.nodes.get(name)?;
            let Some(agent) = &node.agent else {
                return node.member.running.then(|| (name.clone(), Some("it is not connected".to_owned())));
            };
            if let Some(unable) = awaited.unable(name, agent) {
                return Some((name.clone(), Some(unable.clone())));
            }
            if agent.applied.is_some() && agent.applied >= *version && version.is_some() {
                return None;
            }
            // It has come since: its first table holds the cut.
            if version.is_none() && agent.sent.is_some() && agent.applied >= agent.sent {
                return None;
            }
            let away = agent.stream.is_none().then(|| "it is not connected".to_owned());
            Some((name.clone(), agent.refused.clone().or(away)))
        };
        awaited.tables.iter().filter_map(missing).chain(self.unheld(awaited, now)).collect()
    }

    /// Whether waiting cannot help: an agent that cannot cut or shape links will not learn to.
    pub(in super::super) fn hopeless(&self, awaited: &Awaited) -> bool {
        awaited.tables.keys().any(|name| {
            let agent = self.nodes.get(name).and_then(|node| node.agent.as_ref());
            agent.is_some_and(|agent| awaited.unable(name, agent).is_some())
        })
    }
}
