//! What outer and inner process say to each other. Both are the same program, so there is no version to agree on.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use netsplit_links::{Cut, CutEvidence, emulator::LinksEvidence, shape::LinkUpdate};
use serde::{Deserialize, Serialize};

use super::{doctor::Check, network::Network};
use crate::backend::{ExecExit, NodeHold, NodeSignal, NodeStatus};

/// The inner process's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Hello {
    Ready {
        rootless: bool,
    },
    /// The machine refuses; the sentence says what to enable.
    Refused(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NodeSpec {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) directory: PathBuf,
    pub(super) log: PathBuf,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToInner {
    Call {
        id: u64,
        request: Request,
    },
    /// Nobody waits for this call any more.
    Cancel {
        id: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Start {
        network: Network,
        /// Whether the outer process has joined the hub to the host's network.
        uplink: bool,
        nodes: Vec<NodeSpec>,
    },
    Nodes,
    /// The connected socket comes back beside the answer.
    Connect {
        address: Ipv4Addr,
        port: u16,
    },
    SetCuts {
        cuts: Vec<Cut>,
    },
    SetLinks {
        update: LinkUpdate,
    },
    SetNodes {
        holds: Vec<NodeHold>,
        lease: Duration,
        grace: Duration,
    },
    Renew,
    Evidence,
    Links,
    /// Standard input, output and error come beside the request.
    Exec {
        node: String,
        argv: Vec<String>,
        tty: bool,
    },
    Signal {
        node: String,
        signal: NodeSignal,
    },
    Restart {
        node: String,
        grace: Duration,
    },
    Stop {
        grace: Duration,
    },
    Doctor,
    /// The agent's process id, for tests and `doctor`.
    AgentPid,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FromInner {
    pub(super) id: u64,
    pub(super) result: Result<Response, Failure>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    Done,
    Connected,
    Nodes(Vec<NodeStatus>),
    Evidence(Vec<CutEvidence>),
    Links(LinksEvidence),
    Exited(ExecExit),
    Checks(Vec<Check>),
    Pid(Option<u32>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    UnknownNode(String),
    Invalid(String),
    /// An operating system error number.
    Connect(i32),
    Failed(String),
}
