//! What an engine is told once, when it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use malachitebft_core_types::{Timeout, TimeoutKind};
use netsplit_core::{Hash, SecretKey, ValidatorSet};

use crate::message::limits;
use crate::signing::{Ed25519Verifier, Verifier};

/// How long a round waits in each step: `base + delta * round`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub propose: Duration,
    pub propose_delta: Duration,
    pub prevote: Duration,
    pub prevote_delta: Duration,
    pub precommit: Duration,
    pub precommit_delta: Duration,
    /// Upper bound of each of the above.
    pub max: Duration,
    /// Time between two status messages to each neighbour.
    pub status: Duration,
    /// How long to wait for parts that the proposer pushes, or for an answer to a request for them, before asking
    /// (another neighbour).
    pub body: Duration,
    /// How long to wait for an answer to a sync request before asking another neighbour.
    pub sync: Duration,
}

impl Default for Timeouts {
    /// For block times of 100 to 500 ms on links of 0 to 100 ms.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            propose: ms(1000),
            propose_delta: ms(250),
            prevote: ms(400),
            prevote_delta: ms(200),
            precommit: ms(400),
            precommit_delta: ms(200),
            max: ms(4000),
            status: ms(500),
            body: ms(100),
            sync: ms(1000),
        }
    }
}

impl Timeouts {
    pub(crate) fn of(&self, timeout: Timeout) -> Duration {
        let round = u32::try_from(timeout.round.as_i64().max(0)).unwrap_or(u32::MAX);
        let linear =
            |base: Duration, delta: Duration| base.saturating_add(delta.saturating_mul(round)).min(self.max);
        match timeout.kind {
            TimeoutKind::Propose => linear(self.propose, self.propose_delta),
            TimeoutKind::Prevote => linear(self.prevote, self.prevote_delta),
            TimeoutKind::Precommit => linear(self.precommit, self.precommit_delta),
            // The core's rebroadcast repeats bytes that the gossip has seen; the status exchange does the repair.
            TimeoutKind::Rebroadcast => self.max,
            TimeoutKind::FinalizeHeight(after) => after,
        }
    }
}

/// What an [`Engine`](crate::Engine) is made of, beside its application and its log.
#[derive(Clone)]
pub struct EngineConfig {
    /// The genesis hash, which every signature covers.
    pub chain_id: Hash,
    /// `None`: a full node, which follows and relays but never signs.
    pub validator_key: Option<SecretKey>,
    /// The validators of the height after the application's last one.
    pub validators: ValidatorSet,
    pub timeouts: Timeouts,
    /// Time between two proposals of consecutive heights.
    pub block_time: Duration,
    /// Largest encoded block, in bytes; at most `limits::PARTS * limits::PART_BYTES`.
    pub max_block_bytes: usize,
    /// Bytes of a block sent in one message; at most `limits::PART_BYTES`.
    pub part_bytes: usize,
    /// Rules the choice among peers that can serve the same thing.
    pub seed: u64,
    /// Checks signatures; a simulator of many nodes remembers answers.
    pub verifier: Arc<dyn Verifier>,
    #[doc(hidden)]
    pub mutations: Mutations,
}

impl EngineConfig {
    /// A full node with default timeouts, 500 ms block time and blocks of up to 4 MiB.
    pub fn new(chain_id: Hash, validators: ValidatorSet) -> Self {
        Self {
            chain_id,
            validator_key: None,
            validators,
            timeouts: Timeouts::default(),
            block_time: Duration::from_millis(500),
            max_block_bytes: 4 * 1024 * 1024,
            part_bytes: limits::PART_BYTES,
            seed: 0,
            verifier: Arc::new(Ed25519Verifier),
            mutations: Mutations::default(),
        }
    }
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("chain_id", &self.chain_id)
            .field("signs", &self.validator_key.is_some())
            .field("timeouts", &self.timeouts)
            .field("block_time", &self.block_time)
            .finish_non_exhaustive()
    }
}

/// Defects that a test switches on to see itself fail. All off, always, outside the simulator's tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Certificates are believed.
    pub no_certificate_check: bool,
    /// The log is not replayed at boot.
    pub no_replay: bool,
    /// What a neighbour was once sent is never sent to it again.
    pub no_reexchange: bool,
}
