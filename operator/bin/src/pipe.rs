//! What happens when the reader of our output goes away, as in `netsplit status | head -1`.

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigHandler, Signal, signal};

/// End in silence, as every command in a pipeline does; Rust's default is a panic at the next line printed. Only for
/// commands that people type: a supervisor must survive a closed connection.
#[allow(
    unsafe_code,
    reason = "the kernel's default action is no Rust handler, but the call cannot know that"
)]
pub fn end_when_closed() -> Result<()> {
    // SAFETY: no handler of ours is installed, so none can run code that is not async-signal-safe.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.context("cannot set what a closed pipe does")?;
    Ok(())
}
