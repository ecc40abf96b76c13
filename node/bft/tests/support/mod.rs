//! A few engines on one virtual clock, with a chain that is only a list of blocks.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part; a panic is a failure

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netsplit_bft::{
    Application, Engine, EngineConfig, Fatal, Input, LogStorage, Message, Output, PeerId, TimerId, Verdict,
};
use netsplit_core::{
    Block, Commit, Hash, Header, Height, PROTOCOL_VERSION, Seal, SecretKey, Signature, SignedTransaction,
    Validator, ValidatorSet,
};

pub fn chain_id() -> Hash {
    Hash::from_bytes([42; 32])
}

pub fn validator_key(i: usize) -> SecretKey {
    SecretKey::from_seed([1 + i as u8; 32])
}

pub fn peer(i: usize) -> PeerId {
    SecretKey::from_seed([100 + i as u8; 32]).public()
}

pub fn validators(powers: &[u64]) -> ValidatorSet {
    let validator =
        |(i, power): (usize, &u64)| Validator { address: validator_key(i).public(), power: *power };
    ValidatorSet::new(powers.iter().enumerate().map(validator).collect()).unwrap()
}

/// A chain of blocks that only have to follow each other. A block whose first transaction says "invalid" is.
#[derive(Clone, Debug)]
pub struct ListApp {
    pub validators: ValidatorSet,
    pub proposer: usize,
    /// Bytes of filling in each block.
    pub filling: usize,
    pub blocks: Vec<(Bytes, Commit)>,
    pub proposals: u64,
}

impl ListApp {
    pub fn new(validators: ValidatorSet, proposer: usize) -> Self {
        Self { validators, proposer, filling: 0, blocks: Vec::new(), proposals: 0 }
    }

    pub fn id(&self, height: Height) -> Hash {
        self.blocks[height as usize - 1].1.block
    }

    /// The next block, another one for each number.
    pub fn build(&self, proposer: usize, last_commit: Commit, number: u64) -> Block {
        let parent = self.blocks.last().map_or(chain_id(), |(_, commit)| commit.block);
        let filling = |index: usize, len: usize| {
            Arc::new(SignedTransaction {
                body: Bytes::from(vec![index as u8; len]),
                signer: validator_key(0).public(),
                signature: Signature::from_bytes([0; 64]),
            })
        };
        let full = self.filling / 100_000;
        let transactions: Vec<_> =
            (0..full).map(|i| filling(i, 100_000)).chain([filling(full, self.filling % 100_000)]).collect();
        let header = Header {
            protocol_version: PROTOCOL_VERSION,
            chain_id: chain_id(),
            height: self.blocks.len() as u64 + 1,
            parent,
            time_ms: number,
            proposer: validator_key(proposer).public(),
            tx_root: Block::tx_root(&transactions),
            state_root: Hash::ZERO,
            validators_hash: self.validators.hash(),
            next_validators_hash: self.validators.hash(),
            last_commit_hash: last_commit.hash(),
            evidence_root: Block::evidence_root(&[]),
            seal: Seal::Bft,
        };
        Block { header, transactions, last_commit, evidence: Vec::new() }
    }
}

impl Application for ListApp {
    fn propose(&mut self, height: Height, last_commit: &Commit) -> Result<Bytes, Fatal> {
        assert_eq!(height, self.height() + 1);
        assert_eq!(last_commit.height, self.height());
        self.proposals += 1;
        Ok(self.build(self.proposer, last_commit.clone(), self.proposals).to_bytes())
    }

    fn check(&mut self, block: &Bytes) -> Result<Verdict, Fatal> {
        let block = Block::from_bytes(block).map_err(|e| Fatal::application("decode", 0, e))?;
        let parent = self.blocks.last().map_or(chain_id(), |(_, commit)| commit.block);
        if block.header.parent != parent || block.header.state_root != Hash::ZERO {
            return Ok(Verdict::Invalid { reason: "does not follow the head".into() });
        }
        Ok(Verdict::Valid { id: block.id() })
    }

    fn decide(&mut self, block: &Bytes, commit: &Commit) -> Result<ValidatorSet, Fatal> {
        assert_eq!(commit.height, self.height() + 1);
        let id = Block::from_bytes(block).map_err(|e| Fatal::application("decode", 0, e))?.id();
        assert_eq!(id, commit.block);
        commit.verify(&chain_id(), commit.height, &id, &self.validators).expect("a decision has a proof");
        self.blocks.push((block.clone(), commit.clone()));
        Ok(self.validators.clone())
    }

    fn block(&self, height: Height) -> Result<Option<(Bytes, Commit)>, Fatal> {
        Ok(self.blocks.get(height as usize - 1).cloned())
    }

    fn height(&self) -> Height {
        self.blocks.len() as Height
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        Ok(())
    }
}

/// A log in memory that never loses anything.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    pub segments: BTreeMap<u64, Vec<u8>>,
    pub syncs: u64,
}

impl LogStorage for MemoryLog {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.segments.keys().copied().collect())
    }
    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        Ok(self.segments[&segment].clone())
    }
    fn resume(&mut self, segment: u64, len: u64) -> io::Result<()> {
        self.segments.get_mut(&segment).unwrap().truncate(len as usize);
        Ok(())
    }
    fn create(&mut self, segment: u64, content: &[u8]) -> io::Result<()> {
        self.segments.insert(segment, content.to_vec());
        Ok(())
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.segments.values_mut().next_back().unwrap().extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        Ok(())
    }
    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.segments.remove(&segment);
        Ok(())
    }
}

pub fn config(i: usize, powers: &[u64]) -> EngineConfig {
    let validator_key = (i < powers.len()).then(|| validator_key(i));
    EngineConfig { validator_key, ..EngineConfig::new(chain_id(), validators(powers)) }
}

enum Event {
    Deliver { to: usize, from: usize, message: Message },
    Timer { node: usize, id: TimerId },
}

/// Engines, links of one latency, and the clock.
pub struct Net<L> {
    pub engines: Vec<Option<Engine<ListApp, L>>>,
    pub now: Duration,
    pub latency: Duration,
    links: Vec<(usize, usize)>,
    up: Vec<(usize, usize)>,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    /// Node, height, time.
    pub decided: Vec<(usize, Height, Duration)>,
    pub blamed: Vec<(usize, PeerId)>,
    pub evidence: Vec<netsplit_core::Evidence>,
    pub sent: Vec<(usize, usize, Message)>,
    pub keep_sent: bool,
}

impl<L: LogStorage> Net<L> {
    /// Engines in a mesh, not booted yet.
    pub fn mesh(engines: Vec<Engine<ListApp, L>>, latency: Duration) -> Self {
        let n = engines.len();
        let links = (0..n).flat_map(|i| (0..n).filter(move |j| *j != i).map(move |j| (i, j))).collect();
        Self::new(engines, links, latency)
    }

    pub fn ring(engines: Vec<Engine<ListApp, L>>, latency: Duration) -> Self {
        let n = engines.len();
        let links = (0..n).flat_map(|i| [(i, (i + 1) % n), ((i + 1) % n, i)]).collect();
        Self::new(engines, links, latency)
    }

    fn new(engines: Vec<Engine<ListApp, L>>, links: Vec<(usize, usize)>, latency: Duration) -> Self {
        let mut net = Self {
            engines: engines.into_iter().map(Some).collect(),
            now: Duration::ZERO,
            latency,
            links,
            up: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            decided: Vec::new(),
            blamed: Vec::new(),
            evidence: Vec::new(),
            sent: Vec::new(),
            keep_sent: false,
        };
        for i in 0..net.engines.len() {
            let now = net.now;
            let outputs = net.engines[i].as_mut().unwrap().boot(now).expect("boot");
            net.perform(i, outputs);
        }
        net.connect(|_, _| true);
        net
    }

    /// Sessions along exactly those links that `open` allows.
    pub fn connect(&mut self, open: impl Fn(usize, usize) -> bool) {
        for (i, j) in self.links.clone() {
            let (is, was) = (open(i, j), self.up.contains(&(i, j)));
            if is && !was {
                self.up.push((i, j));
                self.input(i, Input::PeerUp(peer(j)));
            } else if was && !is {
                self.up.retain(|link| *link != (i, j));
                self.input(i, Input::PeerDown(peer(j)));
            }
        }
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    pub fn input(&mut self, node: usize, input: Input) {
        let now = self.now;
        let Some(engine) = self.engines[node].as_mut() else { return };
        let outputs = engine.step(now, input).expect("step");
        self.perform(node, outputs);
    }

    pub fn perform(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    let to = (0..self.engines.len()).find(|i| peer(*i) == to).unwrap();
                    // Through the wire form.
                    let message =
                        Message::from_bytes(&message.to_bytes()).expect("an own message is well formed");
                    if self.keep_sent {
                        self.sent.push((node, to, message.clone()));
                    }
                    if self.up.contains(&(node, to)) {
                        self.push(self.now + self.latency, Event::Deliver { to, from: node, message });
                    }
                }
                Output::SetTimer { id, after } => self.push(self.now + after, Event::Timer { node, id }),
                Output::Decided { height, .. } => self.decided.push((node, height, self.now)),
                Output::Misbehaved { peer, .. } => self.blamed.push((node, peer)),
                Output::Evidence(evidence) => self.evidence.push(evidence),
            }
        }
    }

    /// Runs until `done`, or fails at `deadline` of virtual time.
    pub fn run_until(&mut self, deadline: Duration, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let ((at, _), event) = self.queue.pop_first().expect("timers never run out");
            assert!(at <= deadline, "not done at {deadline:?}: {:?}", self.states());
            self.now = at;
            match event {
                Event::Deliver { to, from, message } => {
                    if self.up.contains(&(from, to)) {
                        self.input(to, Input::Received { from: peer(from), message });
                    }
                }
                Event::Timer { node, id } => self.input(node, Input::Timer(id)),
            }
        }
    }

    /// Runs until a moment.
    pub fn run_to(&mut self, until: Duration) {
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            let next = self.queue.first_key_value().map(|(key, _)| *key);
            self.run_until(until, |net| net.queue.first_key_value().map(|(key, _)| *key) != next);
        }
        self.now = until;
    }

    pub fn heights(&self) -> Vec<Height> {
        self.engines.iter().flatten().map(|engine| engine.app().height()).collect()
    }

    pub fn states(&self) -> Vec<String> {
        let state = |engine: &Engine<ListApp, L>| {
            let state = engine.round_state();
            format!("{}/{:?} {}", state.height, state.round, state.step)
        };
        self.engines.iter().flatten().map(state).collect()
    }

    pub fn agree(&self) {
        let least = self.heights().into_iter().min().unwrap();
        for height in 1..=least {
            let mut ids = self.engines.iter().flatten().map(|engine| engine.app().id(height));
            let first = ids.next().unwrap();
            assert!(ids.all(|id| id == first), "fork at {height}");
        }
    }
}

pub fn engines(
    powers: &[u64],
    full: usize,
    change: impl Fn(&mut EngineConfig, &mut ListApp),
) -> Vec<Engine<ListApp, MemoryLog>> {
    let engine = |i| {
        let (mut config, mut app) = (config(i, powers), ListApp::new(validators(powers), i));
        change(&mut config, &mut app);
        Engine::new(config, app, MemoryLog::default())
    };
    (0..powers.len() + full).map(engine).collect()
}
