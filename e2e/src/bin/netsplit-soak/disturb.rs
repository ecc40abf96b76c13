//! What is done to the testnet next, ruled by a seed.

use std::{fmt, time::Duration};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// One disturbance, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// SIGKILL at the same moment; started again after a while.
    Kill { victims: Vec<String>, away: Duration },
    /// The nodes in two halves, whichever; a victim is killed and started again while it lasts.
    Split { sides: [Vec<String>; 2], victim: Option<String>, lasts: Duration },
    /// One pair of nodes.
    Cut { from: String, to: String, one_way: bool, lasts: Duration },
}

impl Disturbance {
    /// For how long, once it is there.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Kill { away, .. } => *away,
            Self::Split { lasts, .. } | Self::Cut { lasts, .. } => *lasts,
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasts().as_secs_f64();
        match self {
            Self::Kill { victims, .. } => write!(f, "kill {} for {seconds:.1} s", victims.join(", ")),
            Self::Split { sides: [left, right], victim, .. } => {
                write!(f, "split {} | {} for {seconds:.1} s", left.join(","), right.join(","))?;
                victim.iter().try_for_each(|victim| write!(f, ", kill {victim} in it"))
            }
            Self::Cut { from, to, one_way, .. } => {
                let arrow = if *one_way { "->" } else { "<->" };
                write!(f, "cut {from} {arrow} {to} for {seconds:.1} s")
            }
        }
    }
}

/// The sequence of a seed.
#[derive(Debug)]
pub struct Chooser {
    rng: ChaCha8Rng,
    nodes: Vec<String>,
    mortals: Vec<String>,
    spared: String,
}

impl Chooser {
    /// All nodes, and the validators among them. One validator is never killed, so that there is one whose memory can
    /// be followed for the whole run.
    pub fn new(seed: u64, nodes: Vec<String>, validators: Vec<String>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut mortals = validators;
        let spared = mortals.remove(rng.random_range(0..mortals.len()));
        Self { rng, nodes, mortals, spared }
    }

    pub fn spared(&self) -> &str {
        &self.spared
    }

    /// Two of three kill; a testnet of which one validator is away goes on, without two or three it stands.
    pub fn next(&mut self) -> Disturbance {
        match self.rng.random_range(0..100) {
            0..65 => {
                let count = match self.rng.random_range(0..100) {
                    0..70 => 1,
                    70..90 => 2,
                    _ => 3,
                };
                let mut left = self.mortals.clone();
                let victims = (0..count).map(|_| left.remove(self.rng.random_range(0..left.len()))).collect();
                Disturbance::Kill { victims, away: self.between(0, 4_000) }
            }
            65..85 => {
                let sides = self.halves();
                let victim = self.rng.random_bool(0.5).then(|| pick(&mut self.rng, &self.mortals));
                Disturbance::Split { sides, victim, lasts: self.between(1_000, 8_000) }
            }
            _ => {
                let from = pick(&mut self.rng, &self.nodes);
                let others: Vec<String> = self.nodes.iter().filter(|node| **node != from).cloned().collect();
                let to = pick(&mut self.rng, &others);
                let one_way = self.rng.random_bool(0.5);
                Disturbance::Cut { from, to, one_way, lasts: self.between(1_000, 8_000) }
            }
        }
    }

    /// How long the chain is left in peace before the next one.
    pub fn peace(&mut self) -> Duration {
        self.between(1_000, 8_000)
    }

    fn between(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(low_ms..=high_ms))
    }

    /// Neither side is empty.
    fn halves(&mut self) -> [Vec<String>; 2] {
        let all = 1_u32 << self.nodes.len();
        let left = self.rng.random_range(1..all - 1);
        let side = |wanted: u32| {
            let here = self.nodes.iter().enumerate().filter(|(place, _)| (left >> place) & 1 == wanted);
            here.map(|(_, node)| node.clone()).collect()
        };
        [side(1), side(0)]
    }
}

fn pick(rng: &mut ChaCha8Rng, of: &[String]) -> String {
    of[rng.random_range(0..of.len())].clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn chooser(seed: u64) -> Chooser {
        let validators: Vec<String> = (0..4).map(|n| format!("validator-{n}")).collect();
        let nodes = validators.iter().cloned().chain(["full-0".to_owned()]).collect();
        Chooser::new(seed, nodes, validators)
    }

    #[test]
    fn a_seed_is_a_sequence() {
        let sequence = |seed| {
            let mut chooser = chooser(seed);
            (0..50).map(|_| (chooser.next(), chooser.peace())).collect::<Vec<_>>()
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }

    #[test]
    fn one_validator_is_spared_and_all_others_are_killed() {
        let mut chooser = chooser(1);
        let spared = chooser.spared().to_owned();
        let mut killed = BTreeSet::new();
        let mut kills = 0;
        for _ in 0..1_000 {
            let next = chooser.next();
            match next {
                Disturbance::Kill { victims, .. } => {
                    kills += victims.len();
                    killed.extend(victims);
                }
                Disturbance::Split { sides, victim, .. } => {
                    assert!(sides.iter().all(|side| !side.is_empty()));
                    assert_eq!(sides.concat().into_iter().collect::<BTreeSet<_>>().len(), 5);
                    kills += usize::from(victim.is_some());
                    killed.extend(victim);
                }
                Disturbance::Cut { from, to, .. } => assert_ne!(from, to),
            }
        }
        assert!(!killed.contains(&spared) && killed.len() == 3, "{killed:?} without {spared}");
        assert!((800..1_300).contains(&kills), "{kills} kills: about one a disturbance");
    }
}
