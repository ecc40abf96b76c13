//! The process that owns a testnet on this machine: it starts the backend and the nodes, follows them, keeps the
//! faults and their leases, runs experiments and load, and serves the control socket. The command line only talks to it.

mod control;
mod exec;
mod experiment;
mod forward;
mod testnet;

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
pub use exec::{ExecAnswer, ExecRequest};

use self::testnet::Testnet;
use crate::{lock, paths::TestnetDir, shutdown::Shutdown};

/// Runs until the testnet is taken down: by request, by a signal, or because its owner or its network is gone.
pub async fn run(root: &Path) -> Result<()> {
    let dir = TestnetDir::at(root)?;
    let _lock = lock::take(&dir.lock_file())?.context("another supervisor owns this testnet")?;
    let spec = std::fs::read(dir.spec_file())
        .with_context(|| format!("cannot read {}", dir.spec_file().display()))?;
    let spec = serde_json::from_slice(&spec)
        .with_context(|| format!("{} is malformed", dir.spec_file().display()))?;
    let shutdown = Shutdown::on_signals()?;
    let testnet = Testnet::create(dir, spec).await?;

    let control = tokio::spawn(control::serve(Arc::clone(&testnet), shutdown.clone()));
    exec::serve(&testnet)?;
    tokio::select! {
        started = testnet.start() => match started {
            Ok(()) => {
                let lost = testnet.session.watch_backend();
                tokio::select! {
                    () = shutdown.asked() => {}
                    reason = lost => {
                        tracing::error!(reason, "the testnet is lost");
                        testnet.session.fail(reason).await;
                        shutdown.asked_within(testnet::FAILED_LINGER).await;
                    }
                }
            }
            Err(error) => {
                tracing::error!("{error:#}");
                testnet.session.fail(format!("{error:#}")).await;
                // The command line has to read why before the socket goes away.
                shutdown.asked_within(testnet::FAILED_LINGER).await;
            }
        },
        () = shutdown.asked() => {}
    }
    let stopped = testnet.session.stop().await;
    control.abort();
    stopped
}
