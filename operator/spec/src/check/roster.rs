//! Looks up nodes: by name, group, role or region.

use std::collections::BTreeMap;

use crate::suggest;
use crate::testnet::{Role, Testnet};
use crate::units::clip;
use crate::valid::NodeIndex;

pub(crate) struct Roster {
    nodes: Vec<String>,
    by_name: BTreeMap<String, NodeIndex>,
    groups: BTreeMap<String, std::ops::Range<NodeIndex>>,
    /// By index.
    roles: Vec<Role>,
    regions: BTreeMap<String, Vec<NodeIndex>>,
    /// The testnet's.
    pub seed: u64,
}

/// What may stand before the `:` of a selector. No name holds one, so none is ever taken for such a word.
const WORDS: [&str; 3] = ["role", "region", "random"];

impl Roster {
    /// Of a testnet whose size was checked.
    pub fn of(testnet: &Testnet) -> Self {
        let nodes = crate::node_names(testnet);
        let by_name = nodes.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let mut groups = BTreeMap::new();
        let mut roles = Vec::new();
        let mut regions: BTreeMap<String, Vec<NodeIndex>> = BTreeMap::new();
        for group in &testnet.nodes {
            let first = roles.len();
            for ordinal in 0..group.count {
                if let Some(region) = group.region(ordinal) {
                    regions.entry(region.to_owned()).or_default().push(roles.len());
                }
                roles.push(group.role);
            }
            groups.insert(group.name.clone(), first..roles.len());
        }
        Self { nodes, by_name, groups, roles, regions, seed: testnet.seed() }
    }

    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    pub fn name(&self, index: NodeIndex) -> &str {
        &self.nodes[index]
    }

    /// One node by its own name.
    pub fn node(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }

    /// The nodes of a group, of a role or of a region, or one node; ascending, never none.
    pub fn find(&self, selector: &str) -> Result<Vec<NodeIndex>, String> {
        match selector.split_once(':') {
            None => self.find_name(selector),
            Some(("role", role)) => self.find_role(role),
            Some(("region", region)) => self.find_region(region),
            Some(("random", _)) => {
                Err(format!("`{}` picks nodes anew: name a group or a node", clip(selector)))
            }
            Some((word, _)) => Err(suggest::unknown("selector", word, &WORDS)),
        }
    }

    fn find_role(&self, name: &str) -> Result<Vec<NodeIndex>, String> {
        let Some(role) = Role::ALL.into_iter().find(|role| role.as_str() == name) else {
            return Err(suggest::unknown("role", name, &Role::ALL.map(Role::as_str)));
        };
        let found: Vec<_> = (0..self.nodes.len()).filter(|node| self.roles[*node] == role).collect();
        if found.is_empty() { Err(format!("no node has the role `{name}`")) } else { Ok(found) }
    }

    fn find_region(&self, name: &str) -> Result<Vec<NodeIndex>, String> {
        if self.regions.is_empty() {
            return Err("no node has a region: give the groups a `region` in the testnet".to_owned());
        }
        let known: Vec<&str> = self.regions.keys().map(String::as_str).collect();
        self.regions.get(name).cloned().ok_or_else(|| suggest::unknown("region", name, &known))
    }

    fn find_name(&self, name: &str) -> Result<Vec<NodeIndex>, String> {
        if let Some(group) = self.groups.get(name) {
            return Ok(group.clone().collect());
        }
        if let Some(node) = self.node(name) {
            return Ok(vec![node]);
        }
        // `validator-7` of a group of four is a miscount and not a typo.
        if let Some((group, ordinal)) = name.rsplit_once('-')
            && let Some(members) = self.groups.get(group)
            && ordinal.parse::<u32>().is_ok_and(|n| n.to_string() == ordinal)
        {
            let last = members.len().saturating_sub(1);
            return Err(format!("unknown node `{name}`: the last of group `{group}` is `{group}-{last}`"));
        }
        let candidates: Vec<&str> =
            self.groups.keys().map(String::as_str).chain(self.nodes.iter().map(String::as_str)).collect();
        Err(suggest::unknown("node or group", name, &candidates))
    }
}
