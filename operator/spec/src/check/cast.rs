//! The nodes of one fault, as its selectors name them: what [`Roster`] finds, and random picks of that.

use std::collections::BTreeSet;

use super::Roster;
use crate::testnet::Testnet;
use crate::units::clip;
use crate::valid::NodeIndex;

/// Finds the nodes of one fault, selector by selector.
pub(crate) struct Cast<'a> {
    pub roster: &'a Roster,
    /// What the fault is part of: the same words elsewhere pick others.
    scope: String,
    /// What no pick takes.
    taken: BTreeSet<NodeIndex>,
    /// Each random selector, with what it has picked.
    pub picks: Vec<(String, Vec<NodeIndex>)>,
}

impl<'a> Cast<'a> {
    pub fn new(roster: &'a Roster, scope: &str) -> Self {
        Self { roster, scope: scope.to_owned(), taken: BTreeSet::new(), picks: Vec::new() }
    }

    /// Keeps the nodes that are named one by one from being picked.
    pub fn reserve_single(&mut self, selectors: &[String]) {
        self.taken.extend(selectors.iter().filter_map(|selector| self.roster.node(selector)));
    }

    /// Keeps all nodes that are not picked themselves from being picked.
    pub fn reserve_all(&mut self, selectors: &[String]) {
        let found = selectors.iter().filter_map(|selector| self.roster.find(selector).ok());
        self.taken.extend(found.flatten());
    }

    /// What the selector at `place` names; ascending, never none. Nothing is picked twice.
    pub fn find(&mut self, place: &str, selector: &str) -> Result<Vec<NodeIndex>, String> {
        let Some((of, count)) = random(selector)? else { return self.roster.find(selector) };
        let all = match of {
            Some(of) => self.roster.find(of)?,
            None => (0..self.roster.nodes().len()).collect(),
        };
        let mut left: Vec<NodeIndex> = all.into_iter().filter(|node| !self.taken.contains(node)).collect();
        if count > left.len() {
            return Err(format!(
                "`{selector}` asks for {count}, but only {} can be picked: nodes that the fault names itself, or has \
                 picked already, cannot",
                left.len()
            ));
        }
        left.sort_by_cached_key(|node| self.lot(place, self.roster.name(*node)));
        left.truncate(count);
        left.sort_unstable();
        self.taken.extend(&left);
        self.picks.push((selector.to_owned(), left.clone()));
        Ok(left)
    }

    /// The lowest are picked: whom the others are makes no difference to one's own lot.
    fn lot(&self, place: &str, node: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("netsplit random selector v1");
        hasher.update(&self.roster.seed.to_le_bytes());
        for part in [self.scope.as_str(), place, node] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// `random:2` of all nodes, `OTHER/random:2` of those that the other selector names; `None` if it is neither.
fn random(selector: &str) -> Result<Option<(Option<&str>, usize)>, String> {
    let (of, pick) = match selector.split_once('/') {
        None if selector.starts_with("random:") => (None, selector),
        None => return Ok(None),
        Some((of, pick)) => (Some(of), pick),
    };
    let count =
        pick.strip_prefix("random:").and_then(|count| count.parse::<usize>().ok()).filter(|count| *count > 0);
    let wrong = || {
        format!(
            "`{}` is no random pick: write `random:2` for two of all nodes, `validator/random:2` for two of a group",
            clip(selector)
        )
    };
    count.map(|count| Some((of, count))).ok_or_else(wrong)
}

/// The nodes that each list of selectors names, sorted and without duplicates, for a fault that a person makes by hand on
/// a valid testnet. The same lists always name the same nodes, random picks included. The error is a sentence.
pub fn select(testnet: &Testnet, lists: &[Vec<String>]) -> Result<Vec<Vec<String>>, String> {
    let roster = Roster::of(testnet);
    let mut cast = Cast::new(&roster, "by hand");
    for list in lists {
        cast.reserve_single(list);
    }
    let mut sides = Vec::new();
    for (side, selectors) in lists.iter().enumerate() {
        let mut names = BTreeSet::new();
        for (n, selector) in selectors.iter().enumerate() {
            let found = cast.find(&format!("{side}[{n}]"), selector)?;
            names.extend(found.into_iter().map(|node| roster.name(node).to_owned()));
        }
        if names.is_empty() {
            return Err("a side of a fault needs at least one node".to_owned());
        }
        sides.push(names.into_iter().collect());
    }
    Ok(sides)
}
