//! What the engine asks of the chain above it.

use bytes::Bytes;
use netsplit_core::{Commit, Hash, Height, ValidatorSet};

use crate::Fatal;

/// The answer to a check of a whole block against the chain's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The block may be decided. `id` is the hash of its header.
    Valid { id: Hash },
    /// The block breaks a rule of the chain; the engine prevotes nil.
    Invalid { reason: String },
}

/// The chain that the engine decides blocks for. An `Err` is fatal: the node stops, and recovers at its next boot.
///
/// All calls are synchronous and happen inside [`Engine::boot`](crate::Engine::boot) and
/// [`Engine::step`](crate::Engine::step).
pub trait Application {
    /// Builds a block for `height` (always one above [`Self::height`]) on the current head; its encoded bytes.
    /// May return different bytes at each call: the engine calls it at most once for a round it proposes in.
    fn propose(&mut self, height: Height, last_commit: &Commit) -> Result<Bytes, Fatal>;

    /// Checks a block against the current head. The engine has already matched the block's id and body to its header.
    fn check(&mut self, block: &Bytes) -> Result<Verdict, Fatal>;

    /// Applies a decided block. The decision is already durable in the engine's log, so that this need not be: blocks
    /// missing at boot (above [`Self::height`]) are decided again, in order. Returns the validators of the next height.
    fn decide(&mut self, block: &Bytes, commit: &Commit) -> Result<ValidatorSet, Fatal>;

    /// A decided block and the commit that decided it; `None` if unknown or pruned. Serves value sync.
    fn block(&self, height: Height) -> Result<Option<(Bytes, Commit)>, Fatal>;

    /// The height of the last block decided; 0 for genesis alone.
    fn height(&self) -> Height;

    /// Makes every block decided so far durable. Called before the log drops the segments that hold them.
    fn sync(&mut self) -> Result<(), Fatal>;
}
