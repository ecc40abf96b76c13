//! The link agent in a pod: the loop of [`netsplit_links::pod`] on a thread of its own, and around it what needs async:
//! the stream from the operator, the word to the node's keeper, and the answer to the kubelet whether the node may start.
//!
//! It ends with the process. Started again it takes over: the kernel held its cuts in between.

mod follow;
mod keeper;
mod links;
mod startup;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use netsplit_links::{PeerPorts, pod};
use tokio::sync::watch;

pub use self::keeper::install as install_keeper;
use self::{
    follow::{Able, Follower},
    keeper::Keeper,
    links::Links,
};

/// The subcommand of `netsplit` that must call [`run`].
pub const COMMAND: &str = "pod-agent";

/// How the agent is run; a pod's environment and arguments have all of it.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// `host:port` of the table server; every address of the host is tried.
    pub tables: String,
    /// The certificate authority (PEM) and the service account token: read at every connection, since both change.
    pub ca: PathBuf,
    pub token: PathBuf,
    pub pod: String,
    pub uid: String,
    /// The pod's own.
    pub address: Ipv4Addr,
    pub ports: PeerPorts,
    /// UDP port of the probes that time shaped links.
    pub timed: u16,
    /// Without a table for so long, no cut of before can be active any more.
    pub fault_lease: Duration,
    /// The socket of the node's keeper.
    pub keeper: PathBuf,
    /// Where `GET /startup` is answered; port 0 takes any.
    pub startup: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum PodAgentError {
    #[error("cannot answer the kubelet at {address}")]
    Startup {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{0:?} is no host:port of a table server")]
    Tables(String),
    #[error("cannot start the link agent's thread")]
    Thread(#[source] io::Error),
    /// The container is to be started again: the cuts stay in the kernel until then.
    #[error("the link agent's thread ended: {0}")]
    Links(String),
}

/// Runs the agent until something ends that cannot be mended from inside; dropping the future ends it.
pub async fn run(options: AgentOptions) -> Result<(), PodAgentError> {
    let (ready, readiness) = watch::channel(false);
    let startup = startup::serve(options.startup, readiness).await?;
    let AgentOptions { address, ports, timed, .. } = options;
    let opened = Links::start(pod::Options { address, ports, timed, renewal: None }).await;
    // The testnet runs without faults; whoever asks for one is told why there is none.
    let (links, able) = match opened {
        Ok((links, cannot_shape)) => {
            if let Some(why) = &cannot_shape {
                tracing::error!(%why, "this pod's links cannot be shaped");
            }
            (Some(links), Able { unable: None, cannot_shape })
        }
        Err(links::StartError::Unable(why)) => {
            tracing::error!(%why, "this pod's links cannot be cut");
            (None, Able { unable: Some(why.clone()), cannot_shape: Some(why) })
        }
        Err(links::StartError::Thread(source)) => return Err(PodAgentError::Thread(source)),
    };
    let keeper = Keeper::follow(options.keeper.clone());
    let follower = Follower::new(&options, links, keeper, able, ready)?;
    tokio::select! {
        error = follower.run() => Err(error),
        error = startup => Err(error),
    }
}
