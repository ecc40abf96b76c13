//! What the scenarios need to drive `netsplit` as a person does: the real binary, a state directory of their own, and the
//! certainty that nothing outlives them.
//!
//! Everything here panics when it fails: it serves tests only, and a panic is how a test says what went wrong.

mod busy;
mod cluster;
mod http;
mod lab;
mod leases;
mod outcome;
mod pod;
mod process;
mod spec;
mod wait;

pub use busy::{Busy, BusyLoops, busy_run};
pub use cluster::{Claim, Cluster, Images, Namespace, Volume};
pub use http::http_get;
pub use lab::{Background, Ended, Lab, programs};
pub use leases::held_beyond_their_lease;
pub use outcome::{
    Expectation, FaultOutcome, Link, LoadStatus, MeasuredLink, NodeOutcome, NodeStatus, Outcome, Status,
    Verdict,
};
pub use pod::process_of_pod;
pub use process::{Kind, Process, kill, of_state_dir as processes_of};
pub use spec::{Experiment, Testnet};
pub use wait::{until, until_some};

/// Exit codes of `netsplit`, as its help promises them.
pub mod exit {
    pub const PASSED: i32 = 0;
    pub const FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const INVALID: i32 = 3;
}
