//! Errors after which the engine must not be used again.

use std::error::Error;

use netsplit_core::Height;
use thiserror::Error;

/// A failure that stops the node. The engine's memory may be ahead of its log afterwards, so it must be dropped; a new
/// engine over the same log recovers.
#[derive(Debug, Error)]
pub enum Fatal {
    /// The log's storage failed.
    #[error("consensus log: {action} failed")]
    Log {
        action: String,
        #[source]
        source: std::io::Error,
    },
    /// The log holds a damaged record that was durable once. Starting without it could sign two different votes.
    #[error(
        "consensus log: segment {segment} is damaged at byte {offset} ({detail}), before data that was written after it; \
         a validator that lost part of its log must not vote again: restore the log, or start this node from an empty \
         data directory with a new validator key"
    )]
    Damaged { segment: u64, offset: u64, detail: String },
    /// The log is of a schema that this version does not read.
    #[error("consensus log: segment {segment} has schema version {found}, this node reads {supported}")]
    Schema { segment: u64, found: u32, supported: u32 },
    /// The log and the application do not belong together.
    #[error("consensus log: {0}")]
    Inconsistent(String),
    /// The application failed.
    #[error("application: {action} failed at height {height}")]
    Application {
        action: &'static str,
        height: Height,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// More than a third of the power broke the protocol, or this build disagrees with the network about validity.
    #[error("consensus: {0}")]
    Consensus(String),
    /// The engine was used after an earlier fatal error.
    #[error("consensus engine stopped after an earlier error")]
    Stopped,
}

impl Fatal {
    /// An application's failure, for implementors of [`Application`](crate::Application).
    pub fn application(
        action: &'static str,
        height: Height,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Application { action, height, source: source.into() }
    }

    pub(crate) fn log(action: impl Into<String>, source: std::io::Error) -> Self {
        Self::Log { action: action.into(), source }
    }
}
