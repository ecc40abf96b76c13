//! The testnet's load: one generator at a time, since two would use each other's nonces.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use netsplit_chains::{ChainClient, LoadConfig, LoadGenerator, LoadReport, Wallet};
use tokio::sync::{Mutex, mpsc};

/// How often a load that is followed reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// How far a load by hand has come.
#[derive(Clone, Debug)]
pub struct LoadProgress {
    pub report: LoadReport,
    /// It has ended: these are its last figures.
    pub done: bool,
}

pub struct LoadSlot {
    wallet: Arc<dyn Wallet>,
    clients: Vec<Arc<dyn ChainClient>>,
    /// The load of the testnet's spec, while no other runs.
    background: Mutex<Option<(u32, LoadGenerator)>>,
    /// Held by a load by hand from its start to its end.
    by_hand: Mutex<()>,
}

impl std::fmt::Debug for LoadSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadSlot").finish_non_exhaustive()
    }
}

impl LoadSlot {
    pub fn new(wallet: Arc<dyn Wallet>, clients: Vec<Arc<dyn ChainClient>>) -> Self {
        Self { wallet, clients, background: Mutex::new(None), by_hand: Mutex::new(()) }
    }

    /// Starts the spec's load: transfers a second, until the testnet ends. One that runs goes on.
    pub async fn start_background(&self, rate: u32) -> Result<()> {
        let mut background = self.background.lock().await;
        if background.is_none() {
            *background = Some((rate, self.generator(LoadConfig::new(rate))?));
        }
        Ok(())
    }

    /// Ends the spec's load, if it runs, until it is started again: what it has sent had its time to become final. Gives its
    /// rate.
    pub async fn pause_background(&self) -> Option<u32> {
        let (rate, generator) = self.background.lock().await.take()?;
        generator.stop();
        generator.finish().await;
        Some(rate)
    }

    /// Runs a load by hand and sends its progress; the spec's load pauses meanwhile.
    pub async fn run(&self, rate: u32, lasts: Duration, progress: mpsc::Sender<LoadProgress>) -> Result<()> {
        let _one = self.by_hand.try_lock().context("a load runs already: wait for its end")?;
        let paused = self.pause_background().await;
        let ended = self.follow(rate, lasts, progress).await;
        if let Some(rate) = paused {
            self.start_background(rate).await?;
        }
        ended
    }

    async fn follow(&self, rate: u32, lasts: Duration, progress: mpsc::Sender<LoadProgress>) -> Result<()> {
        let generator = self.generator(LoadConfig::new(rate).lasting(lasts))?;
        let live = generator.live();
        let mut finish = std::pin::pin!(generator.finish());
        let mut tick = tokio::time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                report = &mut finish => {
                    progress.send(LoadProgress { report, done: true }).await.ok();
                    return Ok(());
                }
                _ = tick.tick() => {
                    let report = live.borrow().clone();
                    // Nobody follows any more: the load ends by being dropped.
                    if progress.send(LoadProgress { report, done: false }).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The spec's load so far; none when there is none.
    pub async fn report(&self) -> Option<LoadReport> {
        let background = self.background.lock().await;
        background.as_ref().map(|(_, generator)| generator.live().borrow().clone())
    }

    pub async fn end(&self) {
        drop(self.background.lock().await.take());
    }

    fn generator(&self, config: LoadConfig) -> Result<LoadGenerator> {
        Ok(LoadGenerator::start(config, Arc::clone(&self.wallet), self.clients.clone())?)
    }
}
