//! Transfers at a set rate, from many accounts over many nodes, measured from submit to final.
//!
//! A pacer hands out credit by the clock, so that a late tick is made up for and never adds drift. Each node has
//! a lane, which owns a share of the accounts: one account always goes through one node, so that its nonces
//! arrive in order. A tracker follows one block stream and matches transaction ids.
//!
//! ```text
//! pacer --credit--> lane (a node, its accounts) --sign, submit--> node
//!                     ^ confirmed nonces                            | blocks with ids
//!                     +------------------- tracker <----------------+
//! ```
//!
//! Nothing here grows with the length of an outage: credit that cannot be used is dropped and counted, and an
//! account has at most [`LoadConfig::max_in_flight`] transfers that are not final.

mod account;
mod conductor;
mod gate;
mod lane;
mod report;
mod tracker;
mod wallet;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use report::{Latency, LoadReport};
pub(crate) use wallet::account_count;
pub use wallet::{SignedTransfer, Wallet};

use crate::client::ChainClient;

/// What load to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadConfig {
    /// Transfers per second over all nodes, 1 to [`MAX_RATE`].
    pub rate: u32,
    /// For how long; until [`LoadGenerator::stop`] if none.
    pub duration: Option<Duration>,
    /// How long to wait at the end for transfers that are not final yet.
    pub settle: Duration,
    /// Most transfers of one account that are not final.
    pub max_in_flight: u64,
}

/// Highest rate that a generator takes, in transfers per second.
pub const MAX_RATE: u32 = 100_000;

impl LoadConfig {
    /// Load at that rate, until stopped.
    pub fn new(rate: u32) -> Self {
        Self { rate, duration: None, settle: Duration::from_secs(2), max_in_flight: 64 }
    }

    /// The same load for that long.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        Self { duration: Some(duration), ..self }
    }
}

/// Why load cannot start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    #[error("a load of {rate} transfers a second is out of range: give 1 to {MAX_RATE}")]
    Rate { rate: u32 },
    #[error("load needs at least one node to go to")]
    NoNodes,
    #[error("load over {nodes} nodes needs at least as many accounts, but there are {accounts}")]
    TooFewAccounts { accounts: usize, nodes: usize },
}

/// A running load. Dropping it ends it at once; [`finish`](Self::finish) waits for the transfers under way.
#[derive(Debug)]
pub struct LoadGenerator {
    stop: watch::Sender<bool>,
    live: watch::Receiver<LoadReport>,
    conductor: JoinHandle<LoadReport>,
}

impl LoadGenerator {
    /// Starts in the background of the current tokio runtime. Nodes that cannot be reached are tried again until
    /// they can; what was meant for them meanwhile is dropped and counted.
    ///
    /// The clock starts when the accounts' nonces are known and a block stream is open, or after 3 s without.
    pub fn start(
        config: LoadConfig,
        wallet: Arc<dyn Wallet>,
        clients: Vec<Arc<dyn ChainClient>>,
    ) -> Result<Self, LoadError> {
        if config.rate == 0 || config.rate > MAX_RATE {
            return Err(LoadError::Rate { rate: config.rate });
        }
        if clients.is_empty() {
            return Err(LoadError::NoNodes);
        }
        if wallet.accounts() < clients.len() {
            return Err(LoadError::TooFewAccounts { accounts: wallet.accounts(), nodes: clients.len() });
        }
        let (stop, stopped) = watch::channel(false);
        let nothing = LoadReport { signatures_checked: wallet.is_checked(), ..LoadReport::default() };
        let (publish, live) = watch::channel(nothing);
        let conductor = tokio::spawn(conductor::run(config, wallet, clients, stopped, publish));
        Ok(Self { stop, live, conductor })
    }

    /// The report so far, renewed four times a second.
    pub fn live(&self) -> watch::Receiver<LoadReport> {
        self.live.clone()
    }

    /// Asks for an end: no new transfers, those under way get [`LoadConfig::settle`] to become final.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end of the load and gives the final report. Without a duration, call
    /// [`stop`](Self::stop) first.
    pub async fn finish(mut self) -> LoadReport {
        match (&mut self.conductor).await {
            Ok(report) => report,
            Err(error) => {
                // Only a panic ends it this way; what was counted until then is still true.
                tracing::error!(%error, "the load generator broke off");
                self.live.borrow().clone()
            }
        }
    }
}

impl Drop for LoadGenerator {
    fn drop(&mut self) {
        self.conductor.abort();
    }
}
