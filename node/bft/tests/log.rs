//! The log on real files: reopened after a kill, torn, damaged, rotated, shared; and what a node remembers of its votes.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netsplit_bft::wal::file::FileStorage;
use netsplit_bft::{
    BlockPart, Engine, EngineConfig, Fatal, Input, LogStorage, Message, Output, Proposal, Status,
    SyncResponse, TimerId, Vote, VoteKind, context::proposer_index,
};
use netsplit_core::{Commit, Hash, Height, SecretKey, Signature};
use support::{ListApp, MemoryLog, config, peer, validator_key, validators};

const MS: Duration = Duration::from_millis(1);

/// One engine whose neighbours are played by the test.
struct Lone<L> {
    engine: Engine<ListApp, L>,
    now: Duration,
    timers: BTreeMap<Duration, Vec<TimerId>>,
    sent: Vec<Message>,
}

impl<L: LogStorage> Lone<L> {
    fn boot(config: EngineConfig, app: ListApp, log: L, now: Duration) -> Result<Self, Fatal> {
        let mut engine = Engine::new(config, app, log);
        let outputs = engine.boot(now)?;
        let mut lone = Self { engine, now, timers: BTreeMap::new(), sent: Vec::new() };
        lone.perform(outputs);
        for i in 0..4 {
            lone.input(Input::PeerUp(peer(i)));
        }
        Ok(lone)
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { message, .. } => self.sent.push(message),
                Output::SetTimer { id, after } => self.timers.entry(self.now + after).or_default().push(id),
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input) {
        let outputs = self.engine.step(self.now, input).expect("step");
        self.perform(outputs);
    }

    fn receive(&mut self, from: usize, message: Message) {
        self.input(Input::Received { from: peer(from), message });
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(entry) = self.timers.first_entry().filter(|entry| *entry.key() <= until) {
            let (at, ids) = entry.remove_entry();
            self.now = at;
            for id in ids {
                self.input(Input::Timer(id));
            }
        }
        self.now = until;
    }

    /// The own votes that left, by place.
    fn votes(&self, me: &SecretKey) -> BTreeMap<(Height, u32, VoteKind), Option<Hash>> {
        let mut votes = BTreeMap::new();
        for message in &self.sent {
            if let Message::Vote(v) = message
                && v.validator == me.public()
            {
                let first = *votes.entry((v.height, v.round, v.kind)).or_insert(v.block);
                assert_eq!(first, v.block, "double vote at {}/{}", v.height, v.round);
            }
        }
        votes
    }
}

fn sign_vote(i: usize, kind: VoteKind, height: Height, round: u32, block: Option<Hash>) -> Vote {
    let (validator, signature) = (validator_key(i).public(), Signature::from_bytes([0; 64]));
    let mut vote = Vote { kind, height, round, block, validator, signature };
    vote.signature = validator_key(i).sign(&vote.sign_bytes(&support::chain_id()));
    vote
}

fn proposer(powers: &[u64], height: Height, round: u32) -> usize {
    let set = validators(powers);
    let address = set.as_slice()[proposer_index(&set, height, round)].address;
    (0..powers.len()).find(|i| validator_key(*i).public() == address).unwrap()
}

fn sign_proposal(i: usize, height: Height, round: u32, block: Hash) -> Proposal {
    let signature = Signature::from_bytes([0; 64]);
    let mut proposal =
        Proposal { height, round, block, pol_round: None, proposer: validator_key(i).public(), signature };
    proposal.signature = validator_key(i).sign(&proposal.sign_bytes(&support::chain_id()));
    proposal
}

fn only_segment(directory: &Path) -> PathBuf {
    let mut logs: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

/// A chain of one validator, run for a while on files.
fn run_alone(
    directory: &Path,
    app: ListApp,
    from: Duration,
    time: Duration,
) -> Result<Lone<FileStorage>, Fatal> {
    let mut config = config(0, &[1]);
    config.block_time = 100 * MS;
    let log = FileStorage::open(directory).expect("open the log");
    let mut lone = Lone::boot(config, app, log, from)?;
    lone.run_for(time);
    Ok(lone)
}

fn new_app() -> ListApp {
    ListApp::new(validators(&[1]), 0)
}

#[test]
fn what_was_decided_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let first = run_alone(directory.path(), new_app(), Duration::ZERO, 3000 * MS).unwrap();
    let blocks = first.engine.app().blocks.clone();
    assert!(blocks.len() > 20);
    drop(first); // as a SIGKILL: nothing is flushed or closed in order
    // The application lost everything that it had not synced.
    let second = run_alone(directory.path(), new_app(), 4000 * MS, 1000 * MS).unwrap();
    assert!(second.engine.app().blocks.len() > blocks.len());
    assert_eq!(second.engine.app().blocks[..blocks.len()], blocks);
}

/// The blocks that the committed log of schema 1 holds, at least.
const FIXTURE_BLOCKS: usize = 10;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1")
}

#[test]
fn a_log_written_with_schema_1_is_replayed() {
    if !fixture().exists() {
        // A new schema has no fixture yet: it is made once, and committed.
        run_alone(&fixture(), new_app(), Duration::ZERO, 1500 * MS).unwrap();
        panic!("wrote {}: commit it", fixture().display());
    }
    let directory = tempfile::tempdir().unwrap();
    let log = only_segment(&fixture());
    fs::copy(&log, directory.path().join(log.file_name().unwrap())).unwrap();
    let node = run_alone(directory.path(), new_app(), 2000 * MS, Duration::ZERO).unwrap();
    assert!(node.engine.app().blocks.len() >= FIXTURE_BLOCKS, "{} blocks", node.engine.app().blocks.len());
}

#[test]
fn a_torn_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let height =
        run_alone(directory.path(), new_app(), Duration::ZERO, 1000 * MS).unwrap().engine.app().blocks.len();
    let path = only_segment(directory.path());
    let whole = fs::read(&path).unwrap();
    for torn in [1, 7, 40, 200] {
        fs::write(&path, &whole[..whole.len() - torn]).unwrap();
        let next = run_alone(directory.path(), new_app(), 2000 * MS, 500 * MS).unwrap();
        assert!(next.engine.app().blocks.len() + 2 >= height);
    }
    // Rubbish that was never a record is cut off as well.
    let mut rubbish = whole.clone();
    rubbish.extend_from_slice(&[0; 4096]);
    fs::write(&path, &rubbish).unwrap();
    run_alone(directory.path(), new_app(), 2000 * MS, 500 * MS).unwrap();
}

#[test]
fn damage_in_the_middle_stops_the_node() {
    let directory = tempfile::tempdir().unwrap();
    drop(run_alone(directory.path(), new_app(), Duration::ZERO, 1000 * MS).unwrap());
    let path = only_segment(directory.path());
    let whole = fs::read(&path).unwrap();
    for at in [60, 61, 70, whole.len() / 3, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let error = run_alone(directory.path(), new_app(), 2000 * MS, MS).err().expect("refuses to start");
        assert!(matches!(error, Fatal::Damaged { segment: 1, .. }), "{error}");
        assert!(error.to_string().contains("must not vote again"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "a damaged log stays as it is");
    }
    // The header, too.
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(matches!(
        run_alone(directory.path(), new_app(), 2000 * MS, MS),
        Err(Fatal::Damaged { offset: 0, .. })
    ));
    fs::write(&path, &whole).unwrap();
    run_alone(directory.path(), new_app(), 2000 * MS, MS).unwrap();
}

#[test]
fn segments_rotate_and_old_ones_go() {
    let directory = tempfile::tempdir().unwrap();
    let first = run_alone(directory.path(), new_app(), Duration::ZERO, 20_000 * MS).unwrap();
    assert!(first.engine.app().blocks.len() > 192);
    let app = first.engine.app().clone();
    drop(first);
    let path = only_segment(directory.path());
    assert!(path.ends_with("wal-0000000004.log"), "{}", path.display());
    let height = app.blocks.len();
    let second = run_alone(directory.path(), app, 21_000 * MS, 1000 * MS).unwrap();
    assert!(second.engine.app().blocks.len() > height);
    drop(second);
    // An application older than what the log still holds: the blocks in between are gone.
    let error = run_alone(directory.path(), new_app(), 30_000 * MS, MS).err().expect("refuses to start");
    assert!(matches!(error, Fatal::Inconsistent(_)), "{error}");
}

#[test]
fn a_validator_without_its_log_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let app = run_alone(&directory.path().join("one"), new_app(), Duration::ZERO, 1000 * MS)
        .unwrap()
        .engine
        .app()
        .clone();
    let error = run_alone(&directory.path().join("two"), app, 2000 * MS, MS).err().expect("refuses to start");
    assert!(error.to_string().contains("new validator key"), "{error}");
}

/// As from a backup: what it signed at later heights is forgotten.
#[test]
fn a_log_older_than_the_chain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(run_alone(directory.path(), new_app(), Duration::ZERO, 500 * MS).unwrap());
    let path = only_segment(directory.path());
    let old = fs::read(&path).unwrap();
    let mut app = new_app();
    app = run_alone(directory.path(), app, 1000 * MS, 1000 * MS).unwrap().engine.app().clone();
    fs::write(&path, old).unwrap();
    let error = run_alone(directory.path(), app, 3000 * MS, MS).err().expect("refuses to start");
    assert!(error.to_string().contains("older than the store"), "{error}");
}

#[test]
fn one_process_holds_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let held = FileStorage::open(directory.path()).unwrap();
    assert_eq!(FileStorage::open(directory.path()).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(held);
    FileStorage::open(directory.path()).unwrap();
}

#[test]
fn a_log_of_another_chain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(run_alone(directory.path(), new_app(), Duration::ZERO, 500 * MS).unwrap());
    let other = EngineConfig { chain_id: Hash::from_bytes([43; 32]), ..config(0, &[1]) };
    let log = FileStorage::open(directory.path()).unwrap();
    let error = Engine::new(other, new_app(), log).boot(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("another chain"), "{error}");
}

/// A commit of a later round, whose block is not whole yet, must not move the node: fed to the core it would lift it to
/// that round, where it votes, and since the core does not log commits, a restart would vote there again, differently.
#[test]
fn a_commit_ahead_of_its_block_casts_no_vote() {
    let powers = [1, 1, 1, 1];
    let me = (0..4).find(|i| (0..6).all(|round| proposer(&powers, 1, round) != *i)).unwrap_or(2);
    let leader = proposer(&powers, 1, 3);
    let others: Vec<usize> = (0..4).filter(|i| *i != me).collect();
    let app = ListApp::new(validators(&powers), me);
    let block = app.build(leader, Commit::genesis(support::chain_id()), 7);
    let (id, bytes) = (block.id(), block.to_bytes());
    let precommits = others.iter().map(|i| sign_vote(*i, VoteKind::Precommit, 1, 3, Some(id)));
    let commit = Commit::new(1, 3, id, precommits.map(|v| (v.validator, v.signature)).collect());
    let piece = |index: u8| {
        let half = bytes.len() / 2;
        let bytes = if index == 0 { bytes.slice(..half) } else { bytes.slice(half..) };
        let commit = (index == 0).then(|| commit.clone());
        Message::SyncResponse(SyncResponse { height: 1, index, total: 2, commit, bytes }.into())
    };
    let ahead = Status {
        height: 2,
        round: Some(0),
        prevotes: 0,
        precommits: 0,
        has_proposal: false,
        has_polka: false,
        needs_polka: None,
        validator: None,
        reply: false,
    };
    let source = others[0];

    let mut lone =
        Lone::boot(config(me, &powers), app.clone(), MemoryLog::default(), Duration::ZERO).unwrap();
    lone.receive(source, Message::Status(ahead));
    assert!(lone.sent.iter().any(|m| matches!(m, Message::SyncRequest { from: 1, .. })));
    lone.receive(source, piece(0));
    lone.run_for(900 * MS);
    lone.receive(source, piece(0));
    assert_ne!(lone.engine.round_state().round, Some(3), "the commit alone must not lift the node");
    lone.run_for(900 * MS);
    let before = lone.votes(&validator_key(me));
    assert!(before.keys().all(|place| place.1 != 3), "{before:?}");

    // Crash; then the same round comes by as proposal, block and votes.
    let log = lone.engine.log_storage().clone();
    let mut again = Lone::boot(config(me, &powers), app, log, lone.now).unwrap();
    again.sent.extend(lone.sent.iter().cloned());
    again.receive(source, Message::Proposal(sign_proposal(leader, 1, 3, id)));
    again.receive(source, Message::Have { height: 1, id });
    for i in &others {
        again.receive(source, Message::Vote(sign_vote(*i, VoteKind::Prevote, 1, 3, Some(id))));
    }
    assert!(again.sent.iter().any(|m| matches!(m, Message::Want { height: 1, .. })), "round 3 began");
    let part = BlockPart { height: 1, id, index: 0, total: 1, bytes: bytes.clone() };
    again.receive(source, Message::BlockPart(part));
    let votes = again.votes(&validator_key(me)); // asserts that no place has two
    assert_eq!(votes.get(&(1, 3, VoteKind::Precommit)), Some(&Some(id)));
    assert_eq!(again.engine.round_state().guard_refusals, 0);
    again.receive(source, Message::Status(ahead));
    again.receive(source, piece(0));
    again.receive(source, piece(1));
    assert_eq!(again.engine.app().blocks.len(), 1);
}

/// Votes cast in several rounds come back from the log, and the node stays with them.
#[test]
fn a_restart_repeats_its_votes() {
    let powers = [1, 1, 1, 1];
    let me = 0;
    let app = ListApp::new(validators(&powers), me);
    let mut lone =
        Lone::boot(config(me, &powers), app.clone(), MemoryLog::default(), Duration::ZERO).unwrap();
    let nil = |i, kind, round| Message::Vote(sign_vote(i, kind, 1, round, None));
    for round in 0..5 {
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            for i in 1..4 {
                lone.receive(1, nil(i, kind, round));
            }
            lone.run_for(20 * MS);
        }
        lone.run_for(2500 * MS);
    }
    assert!(lone.engine.round_state().round >= Some(4));
    let before = lone.votes(&validator_key(me));
    let log = lone.engine.log_storage().clone();
    let mut again = Lone::boot(config(me, &powers), app, log, lone.now).unwrap();
    assert_eq!(again.engine.round_state().round, lone.engine.round_state().round);
    again.run_for(10_000 * MS);
    for (place, block) in again.votes(&validator_key(me)) {
        assert_eq!(before.get(&place).copied().unwrap_or(block), block, "{place:?}");
    }
    assert_eq!(again.engine.round_state().guard_refusals, 0);
}
