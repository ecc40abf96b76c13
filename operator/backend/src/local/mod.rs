//! One Linux machine: every node a process in a network namespace of its own.
//!
//! Three processes, and a fourth while nodes are paused. The *outer* one (whoever holds a [`LocalBackend`]) stays in the host's network. The *inner* one
//! ([`run_inner`]) lives in the hub namespace, owns the nodes' namespaces and processes, and when not root is the first
//! process of a user namespace. The *link agent* ([`run_agent`]) is a child of the inner one and may die at any time. So
//! is the *watchdog* ([`run_watchdog`]), which has paused nodes go on when the inner process hangs.
//! Namespaces have no name and no mount: they exist as long as the inner process holds them. Each process ends with its parent
//! (parent-death signal) and with its control socket, so SIGKILL of any of them, in any order, leaves nothing behind.
//!
//! The host program wires three hidden subcommands, [`INNER_COMMAND`], [`AGENT_COMMAND`] and [`WATCHDOG_COMMAND`], each before
//! any thread is started; all have their control socket as standard input.

mod agents;
mod client;
mod doctor;
mod holds;
mod inner;
mod logs;
mod namespaces;
mod network;
mod process;
pub(crate) mod rpc;
mod spawn;
mod supervisor;
mod topology;
mod uplink;
mod watchdog;
mod wire;

use std::os::fd::{AsFd, OwnedFd};

pub use doctor::{Check, CheckStatus, doctor};
pub use inner::run_inner;
pub use network::MAX_NODES;
pub use supervisor::{LocalBackend, LocalConfig, is_program};
pub use watchdog::run_watchdog;

/// Subcommand that must call [`run_inner`].
pub const INNER_COMMAND: &str = "__inner";
/// Subcommand that must call [`run_agent`].
pub const AGENT_COMMAND: &str = "agent";
/// Subcommand that must call [`run_watchdog`].
pub const WATCHDOG_COMMAND: &str = "__watchdog";

/// Why one of the processes ended.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the supervisor's message is not understood")]
    Message(#[source] std::io::Error),
    #[error(transparent)]
    Agent(#[from] netsplit_links::agent::AgentError),
}

impl LocalError {
    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Runs the link agent on standard input until its supervisor is gone.
pub fn run_agent() -> Result<(), LocalError> {
    let control = control_socket()?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|errno| LocalError::system("ask to end with the parent process")(errno.into()))?;
    Ok(netsplit_links::agent::run(&control, netsplit_links::agent::Options::default())?)
}

fn control_socket() -> Result<OwnedFd, LocalError> {
    std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(LocalError::system("take the control socket from standard input"))
}

/// An error and its causes in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
