//! What is known of the nodes, and which of their blocks are new.

use serde::{Deserialize, Serialize};

use super::agreement::Agreement;
use super::log::Log;
use super::observed::{NodeObserved, Observed};
use super::validity::Validity;
use super::verdict::TimelineKind;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nodes {
    pub list: Vec<NodeState>,
    /// The highest final height on any node, and when a node first had it.
    pub height: u64,
    pub advanced_at_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    pub name: String,
    pub up: bool,
    pub following: bool,
    /// Since when its block stream is away.
    pub away_since_ms: Option<u64>,
    restarts: Option<u32>,
    /// It was seen running once, so that being gone means that it went.
    was_up: bool,
    /// The last time it was seen to have exited.
    pub exited_at_ms: Option<u64>,
    /// Highest height whose block it reported.
    pub height: u64,
    pub last_final_at_ms: Option<u64>,
}

/// A block above all that its node reported before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    pub node: usize,
    pub height: u64,
    pub at_ms: u64,
}

impl Nodes {
    pub fn new(names: &[String]) -> Self {
        let list =
            names.iter().map(|name| NodeState { name: name.clone(), ..NodeState::default() }).collect();
        Self { list, height: 0, advanced_at_ms: None }
    }

    /// `ended`: by node, whether a fault ends it, so that its exit is not its own.
    pub fn see(
        &mut self,
        log: &mut Log<'_>,
        observed: &Observed,
        ended: &[bool],
        agreement: &mut Agreement,
        mut validity: Option<&mut Validity>,
    ) -> Vec<Fresh> {
        let gone = NodeObserved::default();
        let mut fresh = Vec::new();
        for (index, node) in self.list.iter_mut().enumerate() {
            let seen = observed.nodes.iter().find(|seen| seen.name == node.name).unwrap_or(&gone);
            node.see(log, seen, ended.get(index).copied().unwrap_or_default());
            let mut skipped = 0;
            for block in &seen.new_blocks {
                agreement.see(index, node.height, block.height, &block.id);
                if let Some(validity) = &mut validity {
                    validity.see(index, node.height, block);
                }
                if block.height > node.height {
                    if node.height > 0 {
                        skipped += block.height - node.height - 1;
                    }
                    node.height = block.height;
                    node.last_final_at_ms = node.last_final_at_ms.max(Some(block.at_ms));
                    fresh.push(Fresh { node: index, height: block.height, at_ms: block.at_ms });
                }
            }
            // What the observer counts as lost is a gap in heights too, unless it is the newest.
            let lost = skipped.max(seen.lost_blocks);
            agreement.lost(lost);
            if let Some(validity) = &mut validity {
                validity.lost(lost);
            }
        }
        let slowest = self.list.iter().map(|node| node.height).min().unwrap_or(0);
        agreement.prune(slowest);
        if let Some(validity) = validity {
            validity.prune(slowest);
        }
        fresh
    }

    /// The first node of whose silence nothing can be concluded: its stream is away, or it does not run. Not one that is
    /// `held`: it cannot speak.
    pub fn unwatched(&self, held: impl Fn(usize) -> bool) -> Option<&NodeState> {
        self.free(held).find(|node| !node.up || !node.following)
    }

    fn free(&self, held: impl Fn(usize) -> bool) -> impl Iterator<Item = &NodeState> {
        self.list.iter().enumerate().filter(move |(index, _)| !held(*index)).map(|(_, node)| node)
    }

    /// The first node that runs and whose stream is away.
    pub fn unheard(&self, held: impl Fn(usize) -> bool) -> Option<&NodeState> {
        self.free(held).find(|node| node.up && !node.following)
    }

    pub fn name(&self, index: usize) -> &str {
        &self.list[index].name
    }

    /// The first node that is not running, or that exited since, though no fault asked for it.
    pub fn exited_since(&self, from_ms: u64, held: impl Fn(usize) -> bool) -> Option<&NodeState> {
        let exited = |node: &&NodeState| node.exited_at_ms.is_some_and(|at| at >= from_ms);
        self.free(held).find(|node| !node.up).or_else(|| self.list.iter().find(exited))
    }
}

impl NodeState {
    fn see(&mut self, log: &mut Log<'_>, seen: &NodeObserved, is_ended: bool) {
        let now_ms = log.now_ms;
        let restarted = seen.up && self.restarts.is_some_and(|before| seen.restarts > before);
        let went = self.up && !seen.up;
        if self.was_up && is_ended && went {
            log.note(TimelineKind::NodeDown, format!("{} is down, as a fault asks", self.name));
        } else if self.was_up && !is_ended && (restarted || went) {
            self.exited_at_ms = Some(now_ms);
            let how = if restarted { "exited and was started again" } else { "exited" };
            log.note(TimelineKind::NodeDown, format!("{} {how}, though no fault asked for it", self.name));
        } else if self.was_up && !self.up && seen.up {
            log.note(TimelineKind::NodeUp, format!("{} runs again", self.name));
        }
        self.up = seen.up;
        self.was_up |= seen.up;
        if seen.up {
            self.restarts = Some(seen.restarts);
        }
        self.following = seen.following;
        self.away_since_ms = if seen.following { None } else { self.away_since_ms.or(Some(now_ms)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::log::Timeline;
    use crate::experiment::observed::FinalBlock;

    /// Heights are contiguous: whoever tells 1 and then 5 has kept three blocks to itself.
    #[test]
    fn heights_left_out_are_blocks_that_were_not_compared() {
        let mut nodes = Nodes::new(&["a-0".to_owned()]);
        let mut agreement = Agreement::default();
        let mut timeline = Timeline::default();
        let mut log = Log::new(1_000, &mut timeline);
        let mut tell = |heights: &[u64], lost_blocks: u64| {
            let block = |height: &u64| FinalBlock {
                height: *height,
                id: height.to_string(),
                at_ms: 900,
                state_root: None,
            };
            let new_blocks = heights.iter().map(block).collect();
            let node =
                NodeObserved { name: "a-0".to_owned(), new_blocks, lost_blocks, ..NodeObserved::default() };
            let observed = Observed { nodes: vec![node], ..Observed::default() };
            let fresh = nodes.see(&mut log, &observed, &[], &mut agreement, None).len();
            (fresh, agreement.uncompared())
        };
        assert_eq!(tell(&[41, 42], 0), (2, 0), "the first height may be any");
        assert_eq!(tell(&[42, 43], 0), (1, 0), "a block told twice is new once");
        assert_eq!(tell(&[47], 0), (1, 3));
        assert_eq!(tell(&[50], 2), (1, 5), "a gap that the observer has told is counted once");
        assert_eq!(tell(&[], 1), (0, 6));
    }
}
