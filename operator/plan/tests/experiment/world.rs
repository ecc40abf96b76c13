//! A chain, its links and a caller of the state machine, all on a simulated clock.

use netsplit_plan::experiment::{
    Action, FaultObserved, FinalBlock, HostPressure, LoadObserved, NodeObserved, Observed, Phase, Spread,
    State, Verdict, resume, start, step,
};
use netsplit_plan::{CutRect, HeldNodes, NodeFault, NodeIndex};
use netsplit_spec::{Document, ValidExperiment, parse, validate};

pub const EPOCH: u64 = 1_700_000_000_000;
pub const STEP: u64 = 100;
const BLOCK: u64 = 500;
const NODES: usize = 6;

pub type When = Box<dyn Fn(u64) -> bool>;

/// What happens; times are milliseconds since the start. The defaults are a healthy chain and honest links.
#[allow(clippy::struct_excessive_bools)] // each is a way to go wrong by itself
pub struct World {
    /// No blocks at these times.
    pub dead: When,
    /// Blocks come in spite of an applied fault.
    pub ignores_cuts: bool,
    /// How long blocks in flight still become final after a fault is applied.
    pub in_flight: u64,
    /// How long after a heal the first block comes; `None`: never.
    pub recovers_after: Option<u64>,
    /// A node that does not come back after a heal, though it runs.
    pub lost_node: Option<usize>,
    /// From this height on, the last node has other blocks.
    pub forks_at: Option<u64>,
    /// What a node tells of the state after that height.
    pub state_root: Box<dyn Fn(usize, u64) -> Option<String>>,
    pub applies: bool,
    pub proves: When,
    pub violated: When,
    pub heals: bool,
    /// When whoever drives the run applies the fault once more, having lost what it had applied.
    pub applied_anew_at: Option<u64>,
    /// When the links open although nobody asked the state machine.
    pub opens_at: Option<u64>,
    pub confirms: bool,
    /// Milliseconds from a heal to the word that it is over.
    pub confirms_after: u64,
    pub host: Box<dyn Fn(u64) -> HostPressure>,
    /// Whether a node runs, and whether its stream is connected.
    pub up: Box<dyn Fn(usize, u64) -> bool>,
    pub following: Box<dyn Fn(usize, u64) -> bool>,
    pub abort_at: Option<u64>,
    /// The caller does not step at these times.
    pub asleep: When,
    pub loses_blocks: u64,
    /// A load of ten transfers a block, each of which takes so long to become final.
    pub load_latency_ms: Option<u64>,
    /// The fault of an earlier run under the same name is still told of.
    pub tells_old_news: bool,
    /// Checks at every step that the state survives being persisted; else only where the caller dies.
    pub thorough: bool,

    pub now: Now,
    /// What was asked for: time, fault, links.
    pub applied: Vec<(u64, String, Vec<CutRect>)>,
    pub healed: Vec<(u64, String)>,
}

/// Where the world stands.
pub struct Now {
    faults: Vec<Active>,
    height: u64,
    last_block: u64,
    nodes: Vec<Node>,
}

struct Active {
    id: String,
    held: Option<HeldNodes>,
    applied: Option<u64>,
    healed: Option<u64>,
}

impl Active {
    fn is_on(&self, now: u64) -> bool {
        self.applied.is_some_and(|at| at <= now) && self.healed.is_none_or(|at| at > now)
    }

    fn holds(&self, node: NodeIndex) -> bool {
        self.held.as_ref().is_some_and(|held| held.nodes.contains(&node))
    }

    fn ends(&self, node: NodeIndex) -> bool {
        self.holds(node) && self.held.as_ref().is_some_and(|held| held.what != NodeFault::Pause)
    }
}

#[derive(Default)]
struct Node {
    height: u64,
    /// Final, not yet reported.
    pending: Vec<FinalBlock>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            dead: Box::new(|_| false),
            ignores_cuts: false,
            in_flight: 300,
            recovers_after: Some(700),
            lost_node: None,
            forks_at: None,
            state_root: Box::new(|_, height| Some(format!("r{height:04}"))),
            applies: true,
            proves: Box::new(|_| true),
            violated: Box::new(|_| false),
            heals: true,
            applied_anew_at: None,
            opens_at: None,
            confirms: true,
            confirms_after: 300,
            host: Box::new(|_| HostPressure {
                lag_p99_ms: 2.0,
                cpu_pressure: Some(0.2),
                ..HostPressure::default()
            }),
            up: Box::new(|_, _| true),
            following: Box::new(|_, _| true),
            abort_at: None,
            asleep: Box::new(|_| false),
            loses_blocks: 0,
            load_latency_ms: None,
            tells_old_news: false,
            thorough: true,
            now: Now {
                faults: Vec::new(),
                height: 10,
                last_block: 0,
                nodes: (0..NODES).map(|_| Node { height: 10, ..Node::default() }).collect(),
            },
            applied: Vec::new(),
            healed: Vec::new(),
        }
    }
}

pub fn experiment(fields: &str) -> ValidExperiment {
    let text = format!(
        "apiVersion: netsplit.dev/v1alpha1
kind: Testnet
metadata: {{name: quickstart}}
spec:
  consensus: {{bft: {{blockTime: 500ms}}}}
  nodes: [{{name: validator, role: validator, count: 4}}, {{name: full, role: full, count: 2}}]
  load: {{transfersPerSecond: 20}}
---
apiVersion: netsplit.dev/v1alpha1
kind: Experiment
metadata: {{name: e}}
spec:
  testnet: quickstart
  {fields}
"
    );
    let documents = parse(&text, "e.yaml").unwrap_or_else(|problems| panic!("{problems}"));
    match &documents[..] {
        [Document::Testnet(testnet), Document::Experiment(experiment)] => {
            validate(experiment, testnet).expect("a valid experiment")
        }
        other => panic!("{other:?}"),
    }
}

const SPLIT: &str = "faults: [{name: split, at: 5s, for: 15s, \
     partition: [[validator-0, validator-1, full-0], [validator-2, validator-3, full-1]]}]";

const EXPECT: &str = "expect: [{stall: {within: 5s}}, {recover: {within: 5s}}, {agreement: {}}]";

pub fn split_brain_experiment() -> ValidExperiment {
    experiment(&format!("{SPLIT}\n  {EXPECT}"))
}

pub fn split_brain(world: &mut World) -> Run {
    world.run(&split_brain_experiment(), &|_| false)
}

pub fn after(ms: u64) -> When {
    Box::new(move |now| now >= ms)
}

pub struct Run {
    pub verdict: Verdict,
    pub ended_at: u64,
    pub state: State,
    pub phases: Vec<Phase>,
}

impl World {
    /// Runs to the verdict. At the steps in `crashes`, the caller dies after it has persisted the state and before
    /// it acts.
    pub fn run(&mut self, experiment: &ValidExperiment, crashes: &dyn Fn(u64) -> bool) -> Run {
        let mut state = start(experiment, EPOCH);
        let mut phases = vec![state.phase()];
        for tick in 1..2_000 {
            let now = tick * STEP;
            self.tick(now);
            if (self.asleep)(now) {
                continue;
            }
            let observed = self.observe(now);
            let (next, actions) = step(&state, EPOCH + now, &observed);
            state = next;
            if self.thorough || crashes(tick) {
                let text = serde_json::to_string(&state).expect("a state can be written");
                let read: State = serde_json::from_str(&text).expect("a state can be read");
                assert_eq!(read, state, "the state survives being persisted");
                state = read;
            }
            if phases.last() != Some(&state.phase()) {
                phases.push(state.phase());
            }
            if crashes(tick) {
                state = resume(state);
                continue;
            }
            for action in actions {
                match action {
                    Action::ApplyFault { id, rects, held, .. } => self.apply(now, &id, rects, held),
                    Action::HealFault { id } => self.heal(now, &id),
                    Action::Note(_) => {}
                    Action::Finish(verdict) => {
                        return Run { verdict, ended_at: now, state, phases };
                    }
                }
            }
        }
        panic!("no verdict: {:#?}", state.timeline());
    }

    fn apply(&mut self, now: u64, id: &str, rects: Vec<CutRect>, held: Option<HeldNodes>) {
        self.applied.push((now, id.to_owned(), rects));
        if !self.now.faults.iter().any(|fault| fault.id == id) {
            let applied = self.applies.then_some(now + 5);
            self.now.faults.push(Active { id: id.to_owned(), held, applied, healed: None });
        }
    }

    fn heal(&mut self, now: u64, id: &str) {
        self.healed.push((now, id.to_owned()));
        if !self.heals {
            return;
        }
        if let Some(fault) = self.now.faults.iter_mut().find(|fault| fault.id == id) {
            fault.healed.get_or_insert(now + 5);
        } else {
            let (id, held) = (id.to_owned(), None);
            self.now.faults.push(Active { id, held, applied: None, healed: Some(now) });
        }
    }

    /// Links that are cut now.
    pub fn is_cut(&self) -> bool {
        self.now.faults.iter().any(|fault| fault.applied.is_some() && fault.healed.is_none())
    }

    fn tick(&mut self, now: u64) {
        if let Some(at) = self.applied_anew_at.filter(|at| *at <= now) {
            for fault in self.now.faults.iter_mut().filter(|fault| fault.applied.is_some()) {
                fault.applied = Some(at);
            }
        }
        if let Some(at) = self.opens_at.filter(|at| *at <= now) {
            for fault in self.now.faults.iter_mut().filter(|fault| fault.applied.is_some()) {
                fault.healed.get_or_insert(at);
            }
        }
        let held = |node| self.now.faults.iter().any(|fault| fault.is_on(now) && fault.holds(node));
        let no_quorum = (0..4).filter(|node| held(*node)).count() > 1;
        let stalled = self.now.faults.iter().filter(|fault| fault.held.is_none()).any(|fault| {
            let Some(applied) = fault.applied else { return false };
            let until = match (fault.healed, self.recovers_after) {
                (None, _) | (_, None) => u64::MAX,
                (Some(healed), Some(after)) => healed + after,
            };
            now > applied + self.in_flight && now < until
        });
        if (self.dead)(now)
            || no_quorum
            || (stalled && !self.ignores_cuts)
            || now < self.now.last_block + BLOCK
        {
            return;
        }
        self.now.last_block = now;
        self.now.height += 1;
        let healed = self.now.faults.iter().any(|fault| fault.healed.is_some());
        for index in 0..NODES {
            if !(self.up)(index, now) || self.is_held(index, now) || (healed && self.lost_node == Some(index))
            {
                continue;
            }
            let node = &mut self.now.nodes[index];
            // A node that was away fetches what it missed.
            for height in node.height + 1..=self.now.height {
                let forked = index == NODES - 1 && self.forks_at.is_some_and(|at| height >= at);
                let id = format!("{}{height:04}", if forked { "b" } else { "a" });
                let state_root = (self.state_root)(index, height);
                node.pending.push(FinalBlock { height, id, at_ms: EPOCH + now + index as u64, state_root });
            }
            node.height = self.now.height;
        }
    }

    fn is_held(&self, node: NodeIndex, now: u64) -> bool {
        self.now.faults.iter().any(|fault| fault.is_on(now) && fault.holds(node))
    }

    fn observe(&mut self, now: u64) -> Observed {
        let nodes = (0..NODES)
            .map(|index| {
                let ends = || self.now.faults.iter().filter(|fault| fault.ends(index));
                let up = (self.up)(index, now) && !ends().any(|fault| fault.is_on(now));
                let following = (self.following)(index, now) && !self.is_held(index, now);
                let restarts = ends().filter(|fault| fault.healed.is_some_and(|at| at <= now)).count() as u32;
                let node = &mut self.now.nodes[index];
                let new_blocks = if up && following { std::mem::take(&mut node.pending) } else { Vec::new() };
                NodeObserved {
                    name: if index < 4 {
                        format!("validator-{index}")
                    } else {
                        format!("full-{}", index - 4)
                    },
                    up,
                    restarts,
                    following: up && following,
                    final_height: node.height,
                    new_blocks,
                    lost_blocks: if now == 8_000 { self.loses_blocks } else { 0 },
                    peers: 5,
                }
            })
            .collect();
        let old_news = self.tells_old_news.then(|| FaultObserved {
            id: "split".to_owned(),
            applied_at_ms: Some(EPOCH - 30_000),
            proven: true,
            violations: Vec::new(),
            healed_at_ms: Some(EPOCH - 15_000),
            confirmed_open: true,
        });
        let faults = old_news
            .into_iter()
            .chain(self.now.faults.iter().map(|fault| FaultObserved {
                id: fault.id.clone(),
                applied_at_ms: fault.applied.map(|at| EPOCH + at),
                proven: (self.proves)(now) && fault.applied.is_some_and(|at| now > at + 800),
                violations: if (self.violated)(now) && fault.applied.is_some() {
                    vec!["12 probes crossed from full-0 to full-1".to_owned()]
                } else {
                    Vec::new()
                },
                healed_at_ms: fault.healed.map(|at| EPOCH + at),
                confirmed_open: self.confirms
                    && fault.healed.is_some_and(|at| now > at + self.confirms_after),
            }))
            .collect();
        let abort = self.abort_at.filter(|at| now >= *at).map(|_| "interrupted by the user".to_owned());
        let load = self.load_latency_ms.map(|ms| {
            let committed = 10 * (self.now.height - 10);
            let mut latencies = Spread::default();
            latencies.record(ms * 1_000, committed);
            LoadObserved { committed, latencies }
        });
        Observed { nodes, faults, link_problem: None, load, host: (self.host)(now), abort }
    }
}
