//! Whether the node that answers in a place is the one that belongs there.
//!
//! Faults name nodes and are made by address, and what is measured comes back by address as well: a map of names to addresses
//! that has two nodes exchanged would confirm itself. A node's key follows from its name alone, and a node is asked at the
//! address that the faults are made at.

use std::collections::BTreeMap;

use netsplit_chains::Chain;
use netsplit_observe::NodeView;
use netsplit_plan::TestnetPlan;

/// By what each node's peers know it.
#[derive(Debug)]
pub(super) struct Identities(BTreeMap<String, String>);

impl Identities {
    pub(super) fn of(chain: &dyn Chain, plan: &TestnetPlan) -> Self {
        Self(plan.nodes.iter().map(|node| (node.name.clone(), chain.identity(plan, node))).collect())
    }

    /// The first node in whose place another one answered, as a sentence.
    pub(super) fn exchanged(&self, nodes: &[NodeView]) -> Option<String> {
        let answered = nodes.iter().filter(|node| !node.identity.is_empty());
        answered
            .filter(|node| self.0.get(&node.name) != Some(&node.identity))
            .map(|node| self.words(node))
            .next()
    }

    fn words(&self, NodeView { name, identity, .. }: &NodeView) -> String {
        match self.0.iter().find(|(_, known)| *known == identity) {
            Some((other, _)) => format!("in the place of {name} answers {other}, by its key"),
            None => format!("in the place of {name} answers a node with another key, {identity}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_in_the_place_of_another_is_told() {
        let identities =
            Identities([("a-0", "k0"), ("a-1", "k1")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        let seen = |of: [(&str, &str); 2]| {
            let view = |(name, identity): (&str, &str)| NodeView {
                name: name.to_owned(),
                identity: identity.to_owned(),
                ..NodeView::default()
            };
            identities.exchanged(&of.map(view))
        };
        assert_eq!(seen([("a-0", "k0"), ("a-1", "k1")]), None);
        assert_eq!(seen([("a-0", ""), ("a-1", "k1")]), None, "it has not answered yet");
        let exchanged = seen([("a-0", "k1"), ("a-1", "k0")]);
        assert_eq!(exchanged.as_deref(), Some("in the place of a-0 answers a-1, by its key"));
        assert!(seen([("a-0", "k0"), ("a-1", "kx")]).is_some_and(|words| words.contains("another key, kx")));
    }
}
