//! Every final block that any node has told, and the first two that contradict each other.

use std::{collections::BTreeMap, fmt::Write as _};

/// After a reconnection so many blocks are read again: a node that was killed must not have changed its mind.
const READ_AGAIN: u64 = 64;

/// What one node has told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its highest final block.
    pub height: u64,
    /// How many blocks it told, those told again included.
    pub blocks: u64,
    /// Heights that it had dropped before they could be read.
    pub skipped: u64,
}

/// Of one testnet, over the whole run.
#[derive(Debug)]
pub struct Agreement {
    names: Vec<String>,
    told: Vec<Told>,
    /// By height: the block's id, and the node that told it first.
    blocks: BTreeMap<u64, (Vec<u8>, usize)>,
    fork: Option<String>,
}

impl Agreement {
    pub fn new(names: Vec<String>) -> Self {
        let told = vec![Told::default(); names.len()];
        Self { names, told, blocks: BTreeMap::new(), fork: None }
    }

    /// From which height a node is to be read, now that it keeps blocks from `first` on.
    pub fn resume(&mut self, node: usize, first: u64) -> u64 {
        let told = &mut self.told[node];
        let next = told.height + 1;
        told.skipped += first.saturating_sub(next);
        next.saturating_sub(READ_AGAIN).max(first).max(1)
    }

    /// A node tells a final block.
    pub fn tell(&mut self, node: usize, height: u64, id: &[u8]) {
        let told = &mut self.told[node];
        told.blocks += 1;
        told.height = told.height.max(height);
        let (known, first) = self.blocks.entry(height).or_insert_with(|| (id.to_vec(), node));
        if known != id && self.fork.is_none() {
            let (one, other) = (&self.names[*first], &self.names[node]);
            self.fork = Some(format!(
                "at height {height} {one} made {} final, and {other} made {} final",
                hex(known),
                hex(id)
            ));
        }
    }

    pub fn fork(&self) -> Option<&str> {
        self.fork.as_deref()
    }

    pub fn told(&self, name: &str) -> Told {
        let place = self.names.iter().position(|known| known == name);
        place.map(|place| self.told[place].clone()).unwrap_or_default()
    }

    /// The highest final block of any node.
    pub fn top(&self) -> u64 {
        self.told.iter().map(|told| told.height).max().unwrap_or(0)
    }

    /// The nodes, of those given, that have no final block at `height` or above.
    pub fn below<'a>(&self, height: u64, names: &'a [String]) -> Vec<&'a str> {
        let low = names.iter().filter(|name| self.told(name).height < height);
        low.map(String::as_str).collect()
    }

    /// Blocks that were told, in all.
    pub fn compared(&self) -> u64 {
        self.told.iter().map(|told| told.blocks).sum()
    }

    pub fn skipped(&self) -> u64 {
        self.told.iter().map(|told| told.skipped).sum()
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().take(6).fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes it all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Agreement {
        Agreement::new(vec!["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn equal_blocks_agree_and_others_are_a_fork() {
        let mut agreement = two();
        for height in 1..=100 {
            agreement.tell(0, height, &[1]);
        }
        agreement.tell(1, 1, &[1]);
        assert_eq!((agreement.fork(), agreement.top(), agreement.compared()), (None, 100, 101));
        assert_eq!(agreement.below(2, &["a".to_owned(), "b".to_owned()]), ["b"]);
        agreement.tell(1, 2, &[2]);
        assert_eq!(agreement.fork(), Some("at height 2 a made 01 final, and b made 02 final"));
    }

    #[test]
    fn a_node_that_changes_its_mind_is_a_fork() {
        let mut agreement = two();
        (1..=100).for_each(|height| agreement.tell(0, height, &[1]));
        assert_eq!(agreement.resume(0, 1), 37);
        agreement.tell(0, 37, &[2]);
        assert!(agreement.fork().unwrap().contains("a made 01 final, and a made 02"));
    }

    #[test]
    fn what_was_dropped_before_it_was_read_is_counted() {
        let mut agreement = two();
        agreement.tell(1, 1, &[1]);
        assert_eq!((agreement.resume(1, 10), agreement.skipped()), (10, 8));
        assert_eq!((agreement.resume(0, 0), agreement.skipped()), (1, 8));
    }
}
