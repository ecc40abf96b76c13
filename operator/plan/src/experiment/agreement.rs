//! What nodes tell of one height must be one and the same: which block is final there, which state it led to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Heights kept below the slowest node: a node that changes its mind about a recent block is caught too.
const TAIL: u64 = 64;
/// Heights kept at most. A node further behind than that cannot be compared any more, which is then said.
const MAX_HEIGHTS: usize = 4_096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    /// What was told first of each height, and by which node.
    told: BTreeMap<u64, (String, usize)>,
    /// Heights up to this were dropped before all nodes had reported them.
    dropped_to: u64,
    /// Blocks that could not be compared.
    uncompared: u64,
    /// Blocks of which something was compared with another node's word.
    compared: u64,
    conflict: Option<Conflict>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conflict {
    pub height: u64,
    pub nodes: (usize, usize),
    pub told: (String, String),
}

impl Agreement {
    /// `reported` is the highest height that this node has reported before.
    pub fn see(&mut self, node: usize, reported: u64, height: u64, word: &str) {
        match self.told.get(&height) {
            Some((told, first)) if told == word => self.compared += u64::from(*first != node),
            Some((told, first)) => {
                self.conflict.get_or_insert_with(|| Conflict {
                    height,
                    nodes: (*first, node),
                    told: (told.clone(), word.to_owned()),
                });
            }
            None if height <= reported => {}
            None if height <= self.dropped_to => self.uncompared += 1,
            None => {
                self.told.insert(height, (word.to_owned(), node));
            }
        }
    }

    pub fn lost(&mut self, blocks: u64) {
        self.uncompared = self.uncompared.saturating_add(blocks);
    }

    /// `slowest`: all nodes have reported every height up to it.
    pub fn prune(&mut self, slowest: u64) {
        self.told = self.told.split_off(&slowest.saturating_sub(TAIL));
        while self.told.len() > MAX_HEIGHTS {
            if let Some((height, _)) = self.told.pop_first()
                && height > slowest
            {
                self.dropped_to = height;
            }
        }
    }

    pub fn conflict(&self) -> Option<&Conflict> {
        self.conflict.as_ref()
    }

    pub fn compared(&self) -> u64 {
        self.compared
    }

    pub fn uncompared(&self) -> u64 {
        self.uncompared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_conflict_is_kept_with_both_sides() {
        let mut seen = Agreement::default();
        seen.see(0, 0, 7, "a");
        seen.see(1, 0, 7, "a");
        assert_eq!((seen.conflict(), seen.compared()), (None, 1));
        seen.see(2, 0, 7, "b");
        seen.see(2, 7, 8, "c");
        seen.see(0, 7, 8, "d");
        let conflict = Conflict { height: 7, nodes: (0, 2), told: ("a".to_owned(), "b".to_owned()) };
        assert_eq!(seen.conflict(), Some(&conflict));
    }

    #[test]
    fn a_node_that_changes_its_mind_is_a_conflict() {
        let mut seen = Agreement::default();
        seen.see(0, 0, 7, "a");
        seen.see(0, 7, 7, "b");
        assert!(seen.conflict().is_some());
    }

    #[test]
    fn memory_is_bounded_and_what_was_dropped_is_said() {
        let mut seen = Agreement::default();
        for height in 1..=2 * MAX_HEIGHTS as u64 {
            seen.see(0, height - 1, height, "a");
            seen.prune(0);
        }
        assert_eq!(seen.told.len(), MAX_HEIGHTS);
        seen.see(1, 0, 1, "z");
        assert_eq!((seen.uncompared(), seen.conflict()), (1, None));
    }

    #[test]
    fn heights_that_all_have_reported_are_forgotten_without_loss() {
        let mut seen = Agreement::default();
        for height in 1..=1_000 {
            seen.see(0, height - 1, height, "a");
            seen.see(1, height - 1, height, "a");
            seen.prune(height);
        }
        assert_eq!(seen.told.len() as u64, TAIL + 1);
        seen.see(0, 1_000, 3, "a");
        assert_eq!((seen.uncompared(), seen.compared()), (0, 1_000));
    }
}
