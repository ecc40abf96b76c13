//! What happened at the nodes, as the observer saw it.

use std::fmt;

use serde::Serialize;

/// Something that happened at one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEvent {
    /// Unix milliseconds.
    pub at_ms: u64,
    pub node: String,
    #[serde(flatten)]
    pub kind: NodeEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum NodeEventKind {
    /// Its block stream is open, from that height on.
    Connected { from: u64 },
    /// The stream broke off, or could not be opened for the first time since it broke off.
    Disconnected { reason: String },
    /// It no longer holds blocks that were not seen yet.
    Skipped { from: u64, to: u64 },
}

impl fmt::Display for NodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match &self.kind {
            NodeEventKind::Connected { from } => write!(f, "{node}: following blocks from height {from}"),
            NodeEventKind::Disconnected { reason } => write!(f, "{node}: not followed: {reason}"),
            NodeEventKind::Skipped { from, to } => {
                write!(f, "{node}: blocks {from} to {to} were pruned before they were seen")
            }
        }
    }
}
