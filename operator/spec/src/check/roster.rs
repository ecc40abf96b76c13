//! Looks up nodes by group or node name.

use std::collections::BTreeMap;

use crate::suggest;
use crate::testnet::Testnet;
use crate::valid::NodeIndex;

pub(crate) struct Roster {
    nodes: Vec<String>,
    by_name: BTreeMap<String, NodeIndex>,
    groups: BTreeMap<String, std::ops::Range<NodeIndex>>,
}

impl Roster {
    /// Of a testnet whose size was checked.
    pub fn of(testnet: &Testnet) -> Self {
        let nodes = crate::node_names(testnet);
        let by_name = nodes.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let mut groups = BTreeMap::new();
        let mut first = 0;
        for group in &testnet.nodes {
            let next = first + group.count as usize;
            groups.insert(group.name.clone(), first..next);
            first = next;
        }
        Self { nodes, by_name, groups }
    }

    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    pub fn name(&self, index: NodeIndex) -> &str {
        &self.nodes[index]
    }

    /// The nodes of a group, or one node.
    pub fn find(&self, selector: &str) -> Result<Vec<NodeIndex>, String> {
        if let Some(group) = self.groups.get(selector) {
            return Ok(group.clone().collect());
        }
        if let Some(node) = self.by_name.get(selector) {
            return Ok(vec![*node]);
        }
        // `validator-7` of a group of four is a miscount and not a typo.
        if let Some((group, ordinal)) = selector.rsplit_once('-')
            && let Some(members) = self.groups.get(group)
            && ordinal.parse::<u32>().is_ok_and(|n| n.to_string() == ordinal)
        {
            let last = members.len().saturating_sub(1);
            return Err(format!(
                "unknown node `{selector}`: the last of group `{group}` is `{group}-{last}`"
            ));
        }
        let candidates: Vec<&str> =
            self.groups.keys().map(String::as_str).chain(self.nodes.iter().map(String::as_str)).collect();
        Err(suggest::unknown("node or group", selector, &candidates))
    }
}
