//! The engine: one step takes an input, runs the core until it is quiet, makes the log durable, and only then returns
//! what may leave the node.

mod bodies;
mod boot;
mod decide;
mod effects;
mod receive;
mod status;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use malachitebft_core_consensus::r#gen::{CoResult, Gen};
use malachitebft_core_consensus::{Input as CoreInput, Params, Resume, State, handle};
use malachitebft_core_types::{
    NilOrVal, ThresholdParams, Timeout, ValuePayload, VoteExtensionPolicy, VoteType,
};
use netsplit_core::{Address, Commit, Domain, Hash, Height, SecretKey};

use crate::bodies::Bodies;
use crate::certificates::Checker;
use crate::context::{Addr, At, Ctx, Members};
use crate::convert;
use crate::gossip::Gossip;
use crate::guard::Guard;
use crate::io::{Input, Output, PeerId};
use crate::message::limits;
use crate::pool::Pool;
use crate::sync::Sync;
use crate::timers::{Purpose, Timers};
use crate::wal::Log;
use crate::{Application, EngineConfig, Fatal, LogStorage};

type Core = State<Ctx>;

/// Consensus of one node: the core, its host, the application and the log.
pub struct Engine<A, L> {
    core: Core,
    host: Host<A, L>,
    /// Set while an input is handled: an error leaves it set, and the engine refuses from then on.
    stopped: bool,
    booted: bool,
}

/// All but the core. The core's effects are performed on it.
struct Host<A, L> {
    config: EngineConfig,
    address: Address,
    app: A,
    log: Log<L>,
    members: Members,
    /// The validators of the next height, once this one is decided.
    next_members: Option<Members>,
    last_commit: Commit,
    now: Duration,
    timers: Timers,
    /// Inputs for the core that arose while it was busy.
    queue: VecDeque<CoreInput<Ctx>>,
    outputs: Vec<Output>,
    gossip: Gossip,
    /// Something of this node's own leaves with this step: sync first.
    must_sync: bool,
    pool: Pool,
    bodies: Bodies,
    sync: Sync,
    guard: Guard,
    /// Hashes of the records being replayed. The core asks to log them again; what is new must be logged.
    replaying: Option<HashSet<Hash>>,
    /// The core waits for a block to propose.
    build: Option<(Height, u32)>,
    /// When the block before was proposed, as far as this node saw it.
    previous_proposal: Option<Duration>,
    /// The certificate that the core is being fed was checked already.
    certificate_checked: bool,
    /// The core entered a round, whose proposals may have arrived before.
    round_started: Option<(Height, u32)>,
}

/// Where the current height stands, for status pages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundState {
    /// The height being decided.
    pub height: Height,
    /// `None` before the height's first round.
    pub round: Option<u32>,
    /// `unstarted`, `propose`, `prevote`, `precommit` or `commit`.
    pub step: &'static str,
    pub proposer: Address,
    /// Power of the prevotes and precommits held for this round, and the set's total.
    pub prevote_power: u64,
    pub precommit_power: u64,
    pub total_power: u64,
    /// Rounds of the locked and the valid block.
    pub locked_round: Option<u32>,
    pub valid_round: Option<u32>,
    /// Neighbours with a session, and the greatest height one of them claims to decide.
    pub peers: usize,
    pub best_peer_height: Height,
    /// Times that the sign guard refused a second message. Anything but 0 is a defect.
    pub guard_refusals: u64,
}

impl<A: Application, L: LogStorage> Engine<A, L> {
    /// Touches neither log nor application; [`Self::boot`] does.
    pub fn new(config: EngineConfig, app: A, log: L) -> Self {
        // A full node needs an address that is nobody's.
        let nobody =
            || SecretKey::from_seed(*Hash::of(Domain::Seed, b"a node without a validator key").as_bytes());
        let address = config.validator_key.clone().unwrap_or_else(nobody).public();
        let members = Members::new(config.validators.clone());
        let core = new_core(address, app.height() + 1, members.clone());
        let last_commit = Commit::genesis(config.chain_id);
        let gossip = Gossip::new(config.mutations.no_reexchange);
        let host = Host {
            address,
            app,
            log: Log::new(log, config.chain_id),
            members,
            next_members: None,
            last_commit,
            now: Duration::ZERO,
            timers: Timers::default(),
            queue: VecDeque::new(),
            outputs: Vec::new(),
            gossip,
            must_sync: false,
            pool: Pool::default(),
            bodies: Bodies::default(),
            sync: Sync::new(config.seed),
            guard: Guard::default(),
            replaying: None,
            build: None,
            previous_proposal: None,
            certificate_checked: false,
            round_started: None,
            config,
        };
        Self { core, host, stopped: false, booted: false }
    }

    /// Starts, or restarts from the log. To be called once, before any [`Self::step`].
    pub fn boot(&mut self, now: Duration) -> Result<Vec<Output>, Fatal> {
        self.begin(now)?;
        self.replay()?;
        self.booted = true;
        self.settle()
    }

    /// Handles one input. The outputs must be performed in their order; all they reveal is durable.
    pub fn step(&mut self, now: Duration, input: Input) -> Result<Vec<Output>, Fatal> {
        self.begin(now)?;
        if !self.booted {
            return Err(Fatal::Stopped);
        }
        match input {
            Input::PeerUp(peer) => {
                self.host.peer_gone(&peer);
                if self.host.gossip.up(peer, now) {
                    self.tell(peer, true);
                }
            }
            Input::PeerDown(peer) => self.host.peer_gone(&peer),
            Input::Received { from, message } => self.receive(from, message)?,
            Input::Timer(id) => {
                if let Some(purpose) = self.host.timers.take(id) {
                    self.elapsed(purpose)?;
                }
            }
            Input::Tick => self.host.gossip.tick(),
        }
        self.settle()
    }

    pub fn app(&self) -> &A {
        &self.host.app
    }

    pub fn app_mut(&mut self) -> &mut A {
        &mut self.host.app
    }

    /// The log's storage, for tests and metrics.
    pub fn log_storage(&self) -> &L {
        self.host.log.storage()
    }

    pub fn round_state(&self) -> RoundState {
        let (driver, host) = (&self.core.driver, &self.host);
        let round = driver.round();
        let power = |kind| driver.votes().per_round(round).map_or(0, |votes| votes.votes().weight_sum(kind));
        let state = driver.round_state();
        RoundState {
            height: self.height(),
            round: round.as_u32(),
            step: step_name(&self.core),
            proposer: host.members.proposer(self.height(), convert::round(round)),
            prevote_power: power(VoteType::Prevote),
            precommit_power: power(VoteType::Precommit),
            total_power: host.members.set.total_power(),
            locked_round: state.locked.as_ref().and_then(|value| value.round.as_u32()),
            valid_round: state.valid.as_ref().and_then(|value| value.round.as_u32()),
            peers: host.gossip.len(),
            best_peer_height: host.gossip.iter().map(|(_, peer)| peer.height).max().unwrap_or(0),
            guard_refusals: host.guard.refused,
        }
    }

    fn height(&self) -> Height {
        self.core.height().0
    }

    fn begin(&mut self, now: Duration) -> Result<(), Fatal> {
        if std::mem::replace(&mut self.stopped, true) {
            return Err(Fatal::Stopped);
        }
        self.host.now = self.host.now.max(now);
        Ok(())
    }

    fn elapsed(&mut self, purpose: Purpose) -> Result<(), Fatal> {
        match purpose {
            Purpose::Core(timeout) => self.host.queue.push_back(CoreInput::TimeoutElapsed(timeout)),
            Purpose::Build(height, round) => self.propose(height, round)?,
            Purpose::Status => {
                self.tell_all();
                self.request_blocks();
                let every = self.host.config.timeouts.status;
                self.host.set_timer(Purpose::Status, every);
            }
            Purpose::Body(height, id) => self.host.body_overdue(height, id),
            Purpose::Sync => {
                self.host.sync.expire(self.host.now);
                self.request_blocks();
            }
            Purpose::Continue => {}
        }
        Ok(())
    }

    /// Runs until nothing is left to do, makes it durable, and hands out what may leave.
    fn settle(&mut self) -> Result<Vec<Output>, Fatal> {
        let mut synced_blocks = 0;
        loop {
            while let Some(input) = self.host.queue.pop_front() {
                self.feed(input)?;
            }
            if let Some((height, round)) = self.host.round_started.take() {
                self.seek_round(height, round);
                continue;
            }
            if self.end_hopeless_wait() {
                continue;
            }
            if self.host.sync.is_ready(self.height()) {
                if synced_blocks == decide::SYNCED_PER_STEP {
                    self.host.set_timer(Purpose::Continue, Duration::ZERO);
                    break;
                }
                synced_blocks += 1;
                self.apply_synced()?;
                continue;
            }
            break;
        }
        if self.host.must_sync {
            self.host.log.sync()?;
            self.host.must_sync = false;
        }
        let mut outputs = std::mem::take(&mut self.host.outputs);
        self.host.gossip.release(&mut outputs);
        self.stopped = false;
        Ok(outputs)
    }

    fn feed(&mut self, input: CoreInput<Ctx>) -> Result<(), Fatal> {
        match input {
            CoreInput::StartHeight(height, ..) => self.start_height(height.0),
            input => self.run(input),
        }
    }

    /// Runs the core on one input.
    ///
    /// The core's own macro for this goes on with `Continue` when an effect fails, so that a vote would be published
    /// although its log entry was not synced. Driven by hand, an error drops the generator half-way, and `stopped`
    /// makes sure that the core's state is never used again.
    fn run(&mut self, input: CoreInput<Ctx>) -> Result<(), Fatal> {
        let (core, host) = (&mut self.core, &mut self.host);
        let mut generator = Gen::new(|co| handle(co, core, &(), input));
        let mut result = generator.resume_with(Resume::Start);
        loop {
            match result {
                CoResult::Yielded(effect) => {
                    let answer = host.perform(effect)?;
                    result = generator.resume_with(answer);
                }
                CoResult::Complete(Ok(())) => return Ok(()),
                CoResult::Complete(Err(error)) => return Err(Fatal::Consensus(error.to_string())),
            }
        }
    }

    /// Ends a wait for votes that can no longer change anything: when even all missing votes together would not make a
    /// quorum for any one block, waiting on teaches nothing. Halves agree on the next round at the speed of the network
    /// after a partition, and need not sit out their timeouts.
    fn end_hopeless_wait(&mut self) -> bool {
        let round = self.core.driver.round();
        let Some(votes) = self.core.driver.votes().per_round(round) else { return false };
        let set = &self.host.members.set;
        for (kind, timeout) in
            [(VoteType::Prevote, Timeout::prevote(round)), (VoteType::Precommit, Timeout::precommit(round))]
        {
            if !self.host.timers.is_set(Purpose::Core(timeout)) {
                continue;
            }
            let missing = set.total_power() - votes.votes().weight_sum(kind).min(set.total_power());
            let best = votes
                .received_votes()
                .iter()
                .filter(|vote| vote.kind == kind)
                .filter_map(|vote| match &vote.ballot {
                    NilOrVal::Nil => None,
                    block @ NilOrVal::Val(_) => Some(votes.votes().get_weight(kind, block)),
                })
                .max()
                .unwrap_or(0);
            if best + missing < set.quorum() {
                self.host.timers.cancel(Purpose::Core(timeout));
                self.host.queue.push_back(CoreInput::TimeoutElapsed(timeout));
                return true;
            }
        }
        false
    }
}

impl<A: Application, L: LogStorage> Host<A, L> {
    fn set_timer(&mut self, purpose: Purpose, after: Duration) {
        self.timers.set(purpose, after, &mut self.outputs);
    }

    fn checker(&self) -> Checker<'_> {
        Checker {
            chain_id: &self.config.chain_id,
            set: &self.members.set,
            verifier: &*self.config.verifier,
            pool: &self.pool,
        }
    }

    fn blame(&mut self, peer: PeerId, reason: crate::Misbehaviour) {
        tracing::warn!(%peer, reason = reason.label(), "peer misbehaved");
        self.outputs.push(Output::Misbehaved { peer, reason });
    }

    fn peer_gone(&mut self, peer: &PeerId) {
        self.gossip.down(peer);
        self.bodies.gone(peer);
        self.sync.gone(peer);
    }

    /// The input that begins a height. `target_time` stays `None`: with one the core reads the real clock. The block
    /// interval is kept by the proposer.
    fn start_input(&self, height: Height) -> CoreInput<Ctx> {
        CoreInput::StartHeight(At(height), self.members.clone(), false, None, VoteExtensionPolicy::Disabled)
    }
}

/// `ProposalAndParts`: with `ProposalOnly` the core takes every proposal for valid without asking.
fn new_core(address: Address, height: Height, members: Members) -> Core {
    let params = Params {
        address: Addr(address),
        threshold_params: ThresholdParams::default(),
        value_payload: ValuePayload::ProposalAndParts,
        enabled: true,
    };
    // Messages of later heights wait in this crate's own pools, so the core's queue stays empty.
    State::new(Ctx, At(height), members, params, 2, 2 * limits::VALIDATORS)
}

fn step_name(core: &Core) -> &'static str {
    let driver = &core.driver;
    match () {
        () if driver.step_is_propose() => "propose",
        () if driver.step_is_prevote() => "prevote",
        () if driver.step_is_precommit() => "precommit",
        () if driver.step_is_commit() => "commit",
        () => "unstarted",
    }
}

impl<A, L> fmt::Debug for Engine<A, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("height", &self.core.height().0)
            .field("round", &self.core.round().as_i64())
            .field("config", &self.host.config)
            .finish_non_exhaustive()
    }
}
