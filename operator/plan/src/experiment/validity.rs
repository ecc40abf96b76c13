//! No two nodes come to different states by one block.

use serde::{Deserialize, Serialize};

use super::agreement::{Agreement, Conflict};
use super::observed::FinalBlock;

/// Kept for an experiment that expects it: not every node tells its states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validity {
    roots: Agreement,
    /// Blocks whose node did not tell the state that they led to.
    untold: u64,
}

impl Validity {
    /// `reported` is the highest height that this node has reported before.
    pub fn see(&mut self, node: usize, reported: u64, block: &FinalBlock) {
        match &block.state_root {
            Some(root) => self.roots.see(node, reported, block.height, root),
            None if block.height > reported => self.untold += 1,
            None => {}
        }
    }

    pub fn lost(&mut self, blocks: u64) {
        self.roots.lost(blocks);
    }

    pub fn prune(&mut self, slowest: u64) {
        self.roots.prune(slowest);
    }

    pub fn conflict(&self) -> Option<&Conflict> {
        self.roots.conflict()
    }

    /// How many states were the same as another node's; else why that is not known of all of them.
    pub fn compared(&self) -> Result<u64, String> {
        let (compared, uncompared) = (self.roots.compared(), self.roots.uncompared());
        if self.untold > 0 {
            Err(format!("of {} blocks no state was told: {compared} states were compared", self.untold))
        } else if uncompared > 0 {
            Err(format!("the states after {uncompared} blocks could not be compared"))
        } else if compared == 0 {
            Err("no two nodes told the state after one block".to_owned())
        } else {
            Ok(compared)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u64, root: Option<&str>) -> FinalBlock {
        FinalBlock { height, id: "a".to_owned(), at_ms: 0, state_root: root.map(str::to_owned) }
    }

    #[test]
    fn only_states_that_all_were_compared_are_valid() {
        let mut seen = Validity::default();
        assert!(seen.compared().is_err(), "nothing was seen");
        seen.see(0, 0, &block(7, Some("r")));
        assert!(seen.compared().is_err(), "of one node alone");
        seen.see(1, 0, &block(7, Some("r")));
        assert_eq!(seen.compared(), Ok(1));
        let mut lost = seen.clone();
        lost.lost(1);
        assert!(lost.compared().unwrap_err().contains("could not be compared"));
        // Told once more, a block says nothing new.
        seen.see(1, 7, &block(7, None));
        assert_eq!(seen.compared(), Ok(1));
        seen.see(1, 7, &block(8, None));
        assert_eq!(seen.compared().unwrap_err(), "of 1 blocks no state was told: 1 states were compared");
        assert_eq!(seen.conflict(), None);
    }

    #[test]
    fn two_states_after_one_block_are_a_conflict() {
        let mut seen = Validity::default();
        seen.see(0, 0, &block(7, Some("r")));
        seen.see(2, 0, &block(7, Some("s")));
        let conflict = Conflict { height: 7, nodes: (0, 2), told: ("r".to_owned(), "s".to_owned()) };
        assert_eq!(seen.conflict(), Some(&conflict));
    }
}
