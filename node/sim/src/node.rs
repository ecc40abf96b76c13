//! One honest node: what outlives its crashes, and its present life.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netsplit_bft::{Engine, EngineConfig, Fatal, Mutations, Output, PeerId, Verifier};
use netsplit_core::{PublicKey, SecretKey, ValidatorSet};
use netsplit_store::MemoryStore;

use crate::Micros;
use crate::app::{Shared, SimApp};
use crate::fuse::Fuse;
use crate::rng::Rng;
use crate::scenario::{Mutation, Scenario};
use crate::storage::{Disk, SimLog};

pub type SimEngine = Engine<SimApp, SimLog>;

/// Disks.
#[derive(Debug, Default)]
pub struct Durable {
    pub disk: Rc<RefCell<Disk>>,
    pub store: Arc<MemoryStore>,
}

#[derive(Debug)]
pub struct Live {
    pub engine: SimEngine,
    pub fuse: Fuse,
}

#[derive(Debug)]
pub enum Slot {
    Up(Box<Live>, Durable),
    Down(Durable),
    Byzantine,
}

/// Deriving a public key is slow, and the keys of a node never change.
fn keys() -> &'static [(SecretKey, PublicKey, PeerId)] {
    static KEYS: OnceLock<Vec<(SecretKey, PublicKey, PeerId)>> = OnceLock::new();
    let node = |i: u8| {
        let key = SecretKey::from_seed([1 + i; 32]);
        let public = key.public();
        (key, public, SecretKey::from_seed([100 + i; 32]).public())
    };
    KEYS.get_or_init(|| (0..16).map(node).collect())
}

/// The node key of node `i`, which is not its validator key.
pub fn peer_id(i: usize) -> PeerId {
    keys()[i].2
}

/// The validator key of node `i`.
pub fn validator_key(i: usize) -> &'static SecretKey {
    &keys()[i].0
}

/// Its public half.
pub fn validator(i: usize) -> PublicKey {
    keys()[i].1
}

/// Begins a life. An error is a crash if the fuse is burnt.
pub fn boot(
    scenario: &Scenario,
    i: usize,
    durable: &Durable,
    parts: (&Rc<Shared>, &ValidatorSet, Arc<dyn Verifier>),
    fuse: Fuse,
    now: Micros,
) -> Result<(Live, Vec<Output>), Fatal> {
    let (shared, validators, verifier) = parts;
    let is_validator = i < scenario.powers.len();
    let mutated = |mutation| scenario.mutation == Some(mutation);
    let config = EngineConfig {
        validator_key: is_validator.then(|| validator_key(i).clone()),
        block_time: scenario.block_time,
        max_block_bytes: 64 * 1024,
        part_bytes: scenario.part_bytes,
        seed: i as u64,
        verifier,
        mutations: Mutations {
            no_certificate_check: mutated(Mutation::NoCertificateCheck),
            no_replay: mutated(Mutation::NoReplay),
            no_reexchange: mutated(Mutation::NoReexchange),
        },
        ..EngineConfig::new(shared.genesis.chain_id, validators.clone())
    };
    let rng = Rng::new(scenario.seed ^ (i as u64) << 32 ^ now);
    let address = validator(i);
    let app = SimApp::new(Arc::clone(&durable.store), address, Rc::clone(shared), fuse.clone(), rng)?;
    let log = SimLog { disk: Rc::clone(&durable.disk), fuse: fuse.clone(), lies: mutated(Mutation::NoFsync) };
    let mut engine = Engine::new(config, app, log);
    let outputs = engine.boot(Duration::from_micros(now))?;
    Ok((Live { engine, fuse }, outputs))
}
