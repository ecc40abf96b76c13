//! One place that knows whether the testnet is to end.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<bool>);

impl Shutdown {
    /// Asked for by SIGTERM and SIGINT; a closed terminal (SIGHUP) does not end a detached testnet.
    pub fn on_signals() -> Result<Self> {
        let shutdown = Self(watch::Sender::new(false));
        let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => asked.ask(),
                    _ = interrupt.recv() => asked.ask(),
                    _ = hangup.recv() => {}
                }
            }
        });
        Ok(shutdown)
    }

    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    pub async fn asked(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        self.0.subscribe().wait_for(|asked| *asked).await.ok();
    }

    pub async fn asked_within(&self, limit: Duration) {
        // Either way the testnet ends now.
        tokio::time::timeout(limit, self.asked()).await.ok();
    }
}
