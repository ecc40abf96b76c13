//! What a seed stands for.

use std::time::Duration;

use crate::rng::Rng;
use crate::{Micros, SECOND};

/// A defect put in on purpose; the simulator must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The disk acknowledges syncs and writes back each second.
    NoFsync,
    /// Certificates are believed.
    NoCertificateCheck,
    /// The log is not replayed at boot.
    NoReplay,
    /// A neighbour is never sent the same bytes twice, though it says that it lacks them.
    NoReexchange,
}

impl Mutation {
    pub const ALL: [(&'static str, Self); 4] = [
        ("no-fsync", Self::NoFsync),
        ("no-certificate-check", Self::NoCertificateCheck),
        ("no-replay", Self::NoReplay),
        ("no-reexchange", Self::NoReexchange),
    ];
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    #[default]
    Mesh,
    Ring,
    Star,
}

impl Topology {
    /// Neighbours of node `i` of `n`. The star's hub is node 0.
    pub fn neighbours(self, n: usize, i: usize) -> Vec<usize> {
        let mut neighbours: Vec<usize> = match self {
            Self::Mesh => (0..n).filter(|j| *j != i).collect(),
            Self::Ring => vec![(i + 1) % n, (i + n - 1) % n],
            Self::Star if i == 0 => (1..n).collect(),
            Self::Star => vec![0],
        };
        neighbours.sort_unstable();
        neighbours.dedup();
        neighbours
    }
}

/// A partition: nodes on either side of `side` (a bit mask) do not reach each other.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub from: Micros,
    pub until: Micros,
    pub side: u64,
    /// Sessions across the cut end, and begin anew when it heals. Otherwise messages are lost silently.
    pub ends_sessions: bool,
}

impl Cut {
    pub fn separates(&self, a: usize, b: usize) -> bool {
        (self.side >> a & 1) != (self.side >> b & 1)
    }
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub mutation: Option<Mutation>,
    /// Validators come first, then full nodes.
    pub powers: Vec<u64>,
    pub full_nodes: usize,
    pub topology: Topology,
    /// The validator that breaks the rules.
    pub byzantine: Option<usize>,
    /// One-way delay, least and most.
    pub delay: (Micros, Micros),
    pub loss_percent: u64,
    pub cuts: Vec<Cut>,
    /// No loss, no cut and no crash from then on.
    pub faults_until: Micros,
    /// For each node the effects after which it crashes, one for each of its lives.
    pub crashes: Vec<Vec<u64>>,
    /// All nodes crash at once.
    pub power_loss: Option<Micros>,
    pub block_time: Duration,
    pub part_bytes: usize,
    pub rng: Rng,
}

impl Scenario {
    pub fn of(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng::new(seed);
        let validators = if rng.percent(25) { 7 } else { 4 };
        let full_nodes = usize::from(rng.percent(15));
        let n = validators + full_nodes;
        let topology = *rng.pick(&[Topology::Mesh, Topology::Ring, Topology::Star]);
        let powers: Vec<u64> = if rng.percent(30) {
            (0..validators).map(|_| rng.range(1, 10)).collect()
        } else {
            vec![1; validators]
        };
        // Never the hub of the star, and always less than a third of the power.
        let byzantine = rng.percent(50).then(|| rng.range(1, validators as u64 - 1) as usize);
        let byzantine = byzantine.filter(|i| 3 * powers[*i] < powers.iter().sum());
        let faults_until = rng.range(6, 14) * SECOND;
        let cuts = (0..rng.below(4))
            .map(|_| {
                let from = rng.range(0, faults_until - SECOND);
                let until = (from + rng.range(1, 4) * SECOND).min(faults_until);
                Cut { from, until, side: rng.range(1, (1 << n) - 2), ends_sessions: rng.percent(50) }
            })
            .collect();
        let mut crashes = vec![Vec::new(); n];
        for _ in 0..rng.below(7) {
            let node: &mut Vec<u64> = &mut crashes[rng.below(n as u64) as usize];
            let most = if node.is_empty() { 2500 } else { *rng.pick(&[20, 100, 500]) };
            node.push(rng.range(1, most));
        }
        let low = rng.range(1, 20) * 1000;
        Self {
            seed,
            mutation,
            powers,
            full_nodes,
            topology,
            byzantine,
            delay: (low, low + rng.range(1, 60) * 1000),
            loss_percent: *rng.pick(&[0, 2, 5, 10, 20]),
            cuts,
            faults_until,
            crashes,
            power_loss: rng.percent(15).then(|| rng.range(SECOND, faults_until - SECOND)),
            block_time: Duration::from_millis(rng.range(50, 250)),
            part_bytes: if rng.percent(30) { rng.range(200, 800) as usize } else { 192 * 1024 },
            rng,
        }
    }

    pub fn nodes(&self) -> usize {
        self.powers.len() + self.full_nodes
    }
}
