//! Byzantine fault tolerant consensus: Malachite's sans-IO core behind [`Engine`], with everything the core leaves to
//! its host: a write-ahead log, gossip over any topology, block dissemination, status exchange and value sync.
//!
//! The engine is synchronous and deterministic. Clock, timers, network, log and application enter as arguments:
//! [`Engine::boot`] and [`Engine::step`] take the time and an [`Input`] and return [`Output`]s in the order in which
//! they must happen. Whatever an output reveals is durable in the log before `step` returns it.
//!
//! **Proposer rule.** See [`context::proposer_index`]: a low-discrepancy sequence over `height + round`, weighted by
//! power, a pure function of the validator set.

mod application;
mod bodies;
mod certificates;
mod config;
pub mod context;
mod convert;
mod engine;
mod error;
mod gossip;
mod guard;
mod io;
mod message;
mod pool;
mod signing;
mod sync;
mod timers;
pub mod wal;

pub use application::{Application, Verdict};
pub use config::{EngineConfig, Mutations, Timeouts};
pub use engine::{Engine, RoundState};
pub use error::Fatal;
pub use io::{Input, Misbehaviour, Output, PeerId, TimerId};
pub use message::{
    BlockPart, Message, MessageError, PolkaCertificate, Proposal, RoundCertificate, RoundVote, Status,
    SyncResponse, Vote, limits,
};
pub use netsplit_core::sign_bytes::VoteKind;
pub use signing::{Ed25519Verifier, Verifier};
pub use wal::LogStorage;
