//! Virtual time: events in their order, and what they do.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use netsplit_bft::{Application, Input, Message, Output, PeerId, TimerId, Verifier};
use netsplit_core::ledger::{GenesisParts, Limits};
use netsplit_core::{Block, Domain, Hash, Height, PROTOCOL_VERSION, SecretKey, Validator, ValidatorSet};

use crate::app::{Shared, SimApp};
use crate::byzantine::Byzantine;
use crate::checker::Checker;
use crate::fuse::Fuse;
use crate::network::Network;
use crate::node::{self, Durable, Slot, peer_id, validator_key};
use crate::scenario::{Mutation, Scenario, Topology};
use crate::{Micros, SECOND};

/// Heights that every honest node must reach.
pub const HEIGHTS: Height = 30;
/// How long after the last fault every honest node must have decided three more heights (and [`HEIGHTS`]).
const BOUND: Micros = 60 * SECOND;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub failure: Option<String>,
    /// Equal for equal histories.
    pub trace: u64,
    pub topology: Topology,
    pub validators: usize,
    pub byzantine: bool,
    /// Least height of an honest node at the end.
    pub heights: Height,
    pub virtual_time: Micros,
    /// From the last fault until every honest node had three more heights.
    pub recovery: Micros,
    pub crashes: u64,
    pub crashes_in_boot: u64,
    pub messages: u64,
    pub syncs: u64,
    pub forged: u64,
    pub evidence: u64,
    pub max_round: u32,
}

enum Event {
    Deliver {
        to: usize,
        from: usize,
        bytes: bytes::Bytes,
    },
    Timer {
        node: usize,
        life: u64,
        id: TimerId,
    },
    Tick {
        node: usize,
        life: u64,
    },
    Restart(usize),
    /// Node `.0` looks whether it has a session with node `.1`.
    Session(usize, usize),
    Byzantine,
    PowerLoss,
}

pub struct World {
    scenario: Scenario,
    shared: Rc<Shared>,
    verifier: Arc<dyn Verifier>,
    network: Network,
    neighbours: Vec<Vec<usize>>,
    peers: BTreeMap<PeerId, usize>,
    slots: Vec<Slot>,
    byzantine: Option<Byzantine>,
    /// Counts the lives of each node.
    lives: Vec<u64>,
    /// The life of each neighbour that a node has a session with.
    sessions: Vec<BTreeMap<usize, u64>>,
    queue: BTreeMap<(Micros, u64), Event>,
    sequence: u64,
    now: Micros,
    last_fault: Micros,
    checker: Checker,
    out: Outcome,
}

impl World {
    pub fn new(mut scenario: Scenario, verifier: Arc<dyn Verifier>) -> Self {
        let n = scenario.nodes();
        let validator = |(i, power): (usize, &u64)| Validator { address: node::validator(i), power: *power };
        let validators = ValidatorSet::new(scenario.powers.iter().enumerate().map(validator).collect())
            .expect("keys differ and powers are small");
        let accounts: Vec<SecretKey> = (8..12).map(|i| validator_key(i).clone()).collect();
        let chain_id = Hash::of(Domain::Genesis, &scenario.seed.to_be_bytes());
        let genesis = GenesisParts {
            chain_id,
            time_ms: 1_000_000,
            protocol_version: PROTOCOL_VERSION,
            limits: Limits {
                max_block_bytes: 64 * 1024,
                max_block_transactions: 100,
                max_time_ahead_ms: 10_000,
            },
            validators: validators.clone(),
            accounts: accounts.iter().map(|key| (key.public(), 1_000_000)).collect(),
        };
        let clock_ms = Cell::new(genesis.time_ms);
        let shared = Rc::new(Shared { genesis, accounts, signed: RefCell::new(HashSet::new()), clock_ms });
        let links = scenario.rng.fork();
        let network = Network::new(&scenario, links);
        let neighbours: Vec<Vec<usize>> = (0..n).map(|i| scenario.topology.neighbours(n, i)).collect();
        let byzantine = scenario.byzantine.map(|i| {
            let rng = scenario.rng.fork();
            Byzantine::new(validator_key(i).clone(), chain_id, validators.clone(), neighbours[i].clone(), rng)
        });
        let slot =
            |i| if scenario.byzantine == Some(i) { Slot::Byzantine } else { Slot::Down(Durable::default()) };
        let mut world = Self {
            slots: (0..n).map(slot).collect(),
            checker: Checker::new(chain_id, validators, Arc::clone(&verifier), scenario.byzantine, n),
            peers: (0..n).map(|i| (peer_id(i), i)).collect(),
            shared,
            verifier,
            network,
            neighbours,
            byzantine,
            lives: vec![0; n],
            sessions: vec![BTreeMap::new(); n],
            queue: BTreeMap::new(),
            sequence: 0,
            now: 0,
            last_fault: scenario.faults_until,
            out: Outcome {
                seed: scenario.seed,
                topology: scenario.topology,
                validators: scenario.powers.len(),
                byzantine: scenario.byzantine.is_some(),
                ..Outcome::default()
            },
            scenario,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        for i in 0..self.slots.len() {
            match self.slots[i] {
                Slot::Byzantine => self.push(0, Event::Byzantine),
                _ => self.push(0, Event::Restart(i)),
            }
        }
        if let Some(at) = self.scenario.power_loss {
            self.push(at, Event::PowerLoss);
        }
        for cut in self.scenario.cuts.clone().into_iter().filter(|cut| cut.ends_sessions) {
            for (i, j) in self.links() {
                if cut.separates(i, j) {
                    let (down, up) =
                        (self.scenario.rng.range(0, SECOND), self.scenario.rng.range(1000, SECOND / 2));
                    self.push(cut.from + down, Event::Session(i, j));
                    self.push(cut.until + up, Event::Session(i, j));
                }
            }
        }
    }

    fn links(&self) -> Vec<(usize, usize)> {
        self.neighbours.iter().enumerate().flat_map(|(i, js)| js.iter().map(move |j| (i, *j))).collect()
    }

    pub fn run(mut self) -> Outcome {
        let mut target = None;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.shared.clock_ms.set(self.shared.genesis.time_ms + at / 1000);
            if target.is_none() && at >= self.last_fault {
                target = Some(self.heights().max().unwrap_or(0) + 3);
            }
            if let Some(target) = target {
                let least = self.heights().min().unwrap_or(0);
                if least >= target && self.out.recovery == 0 {
                    self.out.recovery = (at - self.last_fault).max(1);
                }
                if least >= target.max(HEIGHTS) {
                    break;
                }
                if at > self.last_fault + BOUND {
                    let states: Vec<_> = (0..self.slots.len()).filter_map(|i| self.describe(i)).collect();
                    self.checker.fail(format!("stall: wanted {}, have {states:?}", target.max(HEIGHTS)));
                }
            }
            self.handle(event);
            if self.checker.failure.is_some() {
                break;
            }
        }
        self.out.heights = self.heights().min().unwrap_or(0);
        self.out.virtual_time = self.now;
        self.out.syncs = self.durables().map(|durable| durable.disk.borrow().syncs).sum();
        self.out.forged = self.byzantine.as_ref().map_or(0, |byzantine| byzantine.forged);
        self.out.evidence = self.checker.evidence;
        self.out.failure = self.checker.failure;
        self.out
    }

    fn describe(&self, i: usize) -> Option<String> {
        let Slot::Up(live, _) = &self.slots[i] else { return None };
        let state = live.engine.round_state();
        Some(format!(
            "{i}: {}/{:?} {} locked {:?}",
            state.height, state.round, state.step, state.locked_round
        ))
    }

    fn durables(&self) -> impl Iterator<Item = &Durable> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Up(_, durable) | Slot::Down(durable) => Some(durable),
            Slot::Byzantine => None,
        })
    }

    /// Heights of honest nodes; of one that is down the height it was at.
    fn heights(&self) -> impl Iterator<Item = Height> + '_ {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Up(live, _) => Some(live.engine.app().height()),
            Slot::Down(_) => Some(0),
            Slot::Byzantine => None,
        })
    }

    fn push(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn trace(&mut self, value: u64) {
        self.out.trace = (self.out.trace ^ value).wrapping_mul(0x100_0000_01B3).rotate_left(17);
    }

    fn trace_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.trace(u64::from_le_bytes(word));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, bytes } => {
                self.trace(self.now ^ (to as u64) << 56 ^ (from as u64) << 48);
                self.trace_bytes(&bytes);
                let message = match Message::from_bytes(&bytes) {
                    Ok(message) => message,
                    Err(error) => {
                        return self.checker.fail(format!("node {from} sent what is no message: {error}"));
                    }
                };
                if self.scenario.byzantine == Some(to) {
                    self.wake_byzantine(|byzantine, build, out| {
                        byzantine.on_message(from, &message, build, out);
                    });
                } else {
                    self.step(to, Input::Received { from: peer_id(from), message });
                }
            }
            Event::Timer { node, life, id } if life == self.lives[node] => {
                self.trace(self.now ^ id.0 << 40 ^ node as u64);
                self.step(node, Input::Timer(id));
            }
            Event::Tick { node, life } if life == self.lives[node] => {
                self.push(self.now + SECOND, Event::Tick { node, life });
                if let (Some(Mutation::NoFsync), Slot::Up(_, durable)) =
                    (self.scenario.mutation, &self.slots[node])
                {
                    durable.disk.borrow_mut().write_back();
                }
                self.step(node, Input::Tick);
            }
            Event::Timer { .. } | Event::Tick { .. } => {}
            Event::Restart(node) => self.restart(node),
            Event::Session(node, other) => self.look(node, other),
            Event::Byzantine => {
                self.wake_byzantine(|byzantine, build, out| byzantine.tick(build, out));
                self.push(self.now + 150_000, Event::Byzantine);
            }
            Event::PowerLoss => {
                for node in 0..self.slots.len() {
                    if matches!(self.slots[node], Slot::Up(..)) {
                        self.crash(node);
                    }
                }
            }
        }
    }

    fn wake_byzantine(
        &mut self,
        act: impl FnOnce(&mut Byzantine, crate::byzantine::Builder<'_>, &mut Vec<(usize, Message)>),
    ) {
        let (Some(mut byzantine), Some(index)) = (self.byzantine.take(), self.scenario.byzantine) else {
            return;
        };
        let mut out = Vec::new();
        let me = node::validator(index);
        let now_ms = self.shared.clock_ms.get();
        let build = |height: Height, number: u64| -> Option<Block> {
            let chain = self.slots.iter().find_map(|slot| match slot {
                Slot::Up(live, _) if live.engine.app().height() + 1 == height => {
                    Some(&live.engine.app().chain)
                }
                _ => None,
            })?;
            let commit = chain.last_commit().ok()?;
            chain.build(me, now_ms + number, Vec::new(), commit).ok()
        };
        act(&mut byzantine, &build, &mut out);
        self.byzantine = Some(byzantine);
        for (to, message) in out {
            self.send(index, to, &message);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        self.out.messages += 1;
        if let Some(at) = self.network.route(self.now, from, to) {
            let bytes = message.to_bytes();
            self.push(at, Event::Deliver { to, from, bytes });
        }
    }

    /// Brings `node`'s view of its session with `other` up to date.
    fn look(&mut self, node: usize, other: usize) {
        if !matches!(self.slots[node], Slot::Up(..)) {
            return;
        }
        let alive = !matches!(self.slots[other], Slot::Down(_));
        let wanted =
            (alive && !self.network.ends_session(self.now, node, other)).then_some(self.lives[other]);
        if self.sessions[node].get(&other).copied() == wanted {
            return;
        }
        if let Some(life) = wanted {
            self.sessions[node].insert(other, life);
            self.step(node, Input::PeerUp(peer_id(other)));
        } else {
            self.sessions[node].remove(&other);
            self.step(node, Input::PeerDown(peer_id(other)));
        }
    }

    fn restart(&mut self, node: usize) {
        let Slot::Down(durable) = &mut self.slots[node] else { return };
        let durable = std::mem::take(durable);
        self.lives[node] += 1;
        self.sessions[node].clear();
        let crashes = &mut self.scenario.crashes[node];
        let no_more = self.now >= self.scenario.faults_until || crashes.is_empty();
        let fuse = Fuse::new(if no_more { u64::MAX } else { crashes.remove(0) });
        self.trace(self.now ^ 0xB007 ^ node as u64);
        let parts = (&self.shared, &self.checker.validators, Arc::clone(&self.verifier));
        match node::boot(&self.scenario, node, &durable, parts, fuse.clone(), self.now) {
            Ok((live, outputs)) => {
                let height = live.engine.app().height();
                self.slots[node] = Slot::Up(Box::new(live), durable);
                self.check_chain(node);
                self.checker.booted(node, height);
                let life = self.lives[node];
                let at = self.now + self.scenario.rng.range(1, SECOND);
                self.push(at, Event::Tick { node, life });
                for other in self.neighbours[node].clone() {
                    let (near, far) =
                        (self.scenario.rng.range(1000, 30_000), self.scenario.rng.range(1000, 30_000));
                    self.push(self.now + near, Event::Session(node, other));
                    self.push(self.now + far, Event::Session(other, node));
                }
                self.perform(node, outputs);
            }
            Err(_) if fuse.is_burnt() => {
                self.slots[node] = Slot::Down(durable);
                self.out.crashes_in_boot += 1;
                self.crashed(node);
            }
            Err(error) => self.checker.fail(format!("node {node} did not boot: {}", chain_of(&error))),
        }
    }

    fn step(&mut self, node: usize, input: Input) {
        let Slot::Up(live, _) = &mut self.slots[node] else { return };
        if self.now >= self.scenario.faults_until {
            live.fuse.disarm();
        }
        let result = live.engine.step(Duration::from_micros(self.now), input);
        let burnt = live.fuse.is_burnt();
        self.out.max_round = self.out.max_round.max(live.engine.round_state().round.unwrap_or(0));
        self.check_chain(node);
        match result {
            Ok(outputs) => self.perform(node, outputs),
            Err(_) if burnt => self.crash(node),
            Err(error) => self.checker.fail(format!("node {node} stopped: {}", chain_of(&error))),
        }
    }

    /// What leaves the node leaves in order; a crash in between keeps the rest back.
    fn perform(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            let Slot::Up(live, _) = &self.slots[node] else { return };
            match output {
                Output::Send { to, message } => {
                    if live.fuse.burn().is_err() {
                        return self.crash(node);
                    }
                    self.checker.sent(node, &message);
                    let to = self.peers[&to];
                    self.send(node, to, &message);
                }
                Output::SetTimer { id, after } => {
                    let life = self.lives[node];
                    self.push(self.now + after.as_micros() as u64, Event::Timer { node, life, id });
                }
                Output::Decided { height, id, .. } => self.checker.told(node, height, id),
                Output::Misbehaved { peer, reason } => {
                    let peer = self.peers[&peer];
                    self.checker.blamed(node, peer, reason.label());
                }
                Output::Evidence(evidence) => self.checker.evidence(node, &evidence),
            }
        }
    }

    fn crash(&mut self, node: usize) {
        let slot = std::mem::replace(&mut self.slots[node], Slot::Byzantine);
        if let Slot::Up(live, durable) = slot {
            drop(live);
            self.slots[node] = Slot::Down(durable);
        } else {
            self.slots[node] = slot;
        }
        self.crashed(node);
    }

    /// The disks forget, and a restart is due.
    fn crashed(&mut self, node: usize) {
        let Slot::Down(durable) = &self.slots[node] else { return };
        let rng = &mut self.scenario.rng;
        durable.disk.borrow_mut().crash(rng);
        let kept = rng.below(durable.store.unsynced() as u64 + 1) as usize;
        durable.store.crash_keeping(kept);
        let at = self.now + rng.range(20_000, 3 * SECOND);
        self.out.crashes += 1;
        self.last_fault = self.last_fault.max(at);
        self.trace(self.now ^ 0xDEAD ^ node as u64);
        self.push(at, Event::Restart(node));
        for other in self.neighbours[node].clone() {
            let noticed = self.now + self.scenario.rng.range(0, 50_000);
            self.push(noticed, Event::Session(other, node));
        }
    }

    fn check_chain(&mut self, node: usize) {
        let Slot::Up(live, _) = &self.slots[node] else { return };
        let app: &SimApp = live.engine.app();
        self.checker.chain_of(node, app.height(), |height| {
            let (bytes, commit) = app.block(height).ok()??;
            Some((Block::from_bytes(&bytes).ok()?.id(), commit))
        });
    }
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
