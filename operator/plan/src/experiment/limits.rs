//! Every limit of a run, in milliseconds. They are part of what a verdict means: docs/spec.md repeats them.

/// A fault that is not applied, not proven or not healed for so long makes the run Invalid.
pub const PROOF_MS: u64 = 5_000;
/// So much longer, if it ends nodes in order: they have this time to end.
pub const ORDERLY_MS: u64 = 5_000;
/// A fault may end so much before its time: the caller keeps time too. Sooner is Invalid.
pub const EARLY_MS: u64 = 500;
/// All nodes must run and be followed so soon after the start.
pub const PENDING_MS: u64 = 60_000;
/// How much longer than asked the baseline waits for the chain to make progress; at least 20 block times.
pub const BASELINE_WAIT_MS: u64 = 30_000;
/// The end of a baseline must have seen each node's last block within this; at least 4 block times.
pub const FRESH_MS: u64 = 2_000;
/// An action whose effect is not seen is given again after this.
pub const REPEAT_MS: u64 = 1_000;
/// How long after a deadline a block that was final before it may still be reported.
pub const REPORT_GRACE_MS: u64 = 1_000;
/// A node whose block stream is away for longer cannot be judged.
pub const UNWATCHED_MS: u64 = 10_000;

/// A longer pause between two steps counts as an overloaded host.
pub const STEP_GAP_MS: u64 = 1_000;
/// A 99th percentile of the scheduling lag above this counts as an overloaded host.
pub const LAG_MS: f64 = 250.0;
/// Shares of the time above which CPU pressure and steal count; they must last for [`BUSY_MS`] of the window.
pub const CPU_PRESSURE: f64 = 0.8;
pub const STEAL: f64 = 0.2;
/// High pressure or steal excuses a missed expectation if it lasted so long in its window.
pub const BUSY_MS: u64 = 500;
