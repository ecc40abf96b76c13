//! The link agent of a pod, as its container starts it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use netsplit_backend::kubernetes::{AGENT_PORT, KEEPER_PROGRAM, KEEPER_SOCKET, agent};
use netsplit_links::{PeerPorts, shape::ShapeOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Rendered into the pod by [`netsplit_backend::kubernetes::render`].
#[derive(Clone, Debug, Args)]
pub struct PodAgentArgs {
    /// The table server
    #[arg(long, value_name = "HOST:PORT")]
    tables: String,
    /// Its certificate authority (PEM)
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The pod's service account token for it
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// The nodes' peer port: what faults act on
    #[arg(long, value_name = "PORT", default_value_t = PeerPorts::default().peer)]
    peer_port: u16,
    /// The folder that the node's container mounts, too: its keeper is put there
    #[arg(long, value_name = "FOLDER")]
    keeper: PathBuf,
    /// After this time without a table the node may start
    #[arg(long, value_name = "MILLISECONDS")]
    fault_lease_ms: u64,
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod: String,
    #[arg(long, env = "POD_UID", value_name = "UID")]
    uid: String,
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    address: Ipv4Addr,
}

/// Runs until the container is told to end. Cuts outlive it in the kernel, until their leases end.
pub async fn run(args: PodAgentArgs) -> Result<()> {
    let PodAgentArgs { tables, ca, token, peer_port, keeper, fault_lease_ms, pod, uid, address } = args;
    // The node cannot start without it.
    let program = std::env::current_exe().context("cannot find this program")?.with_file_name(KEEPER_PROGRAM);
    agent::install_keeper(&program, &keeper).with_context(|| {
        format!(
            "cannot copy {} to {}: an image of netsplit holds both programs (see the Dockerfile)",
            program.display(),
            keeper.display()
        )
    })?;
    let options = agent::AgentOptions {
        tables,
        ca,
        token,
        pod,
        uid,
        address,
        ports: PeerPorts { peer: peer_port, ..PeerPorts::default() },
        timed: ShapeOptions::default().timed,
        keeper: keeper.join(KEEPER_SOCKET),
        fault_lease: Duration::from_millis(fault_lease_ms),
        startup: SocketAddr::from((Ipv4Addr::UNSPECIFIED, AGENT_PORT)),
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        ended = agent::run(options) => ended.context("the link agent failed"),
        _ = terminate.recv() => Ok(()),
    }
}
