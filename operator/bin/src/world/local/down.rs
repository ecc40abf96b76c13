//! Taking a testnet down: its supervisor, then its directory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netsplit_proto::control::DownRequest;

use super::client;
use crate::{lock, paths::TestnetDir, problem};

/// Longest wait for a supervisor to stop its nodes in order.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Stops the supervisor if one runs, then removes the directory.
pub async fn take_down(dir: &TestnetDir, keep_data: bool) -> Result<()> {
    if let Some((mut client, _)) = client::running(dir).await {
        // It may be on its way out already; what counts is the lock.
        match client.down(DownRequest { keep_data }).await {
            Err(status) if !problem::supervisor_is_gone(&status) => return Err(problem::from_status(status)),
            _ => {}
        }
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    // The supervisor's end takes its namespaces and nodes with it, however it ended; the lock tells that it did.
    while !lock::is_free(&dir.lock_file())? {
        if Instant::now() >= deadline {
            bail!("the supervisor of `{}` does not stop: see {}", dir.name, dir.log_file().display());
        }
        tokio::time::sleep(POLL).await;
    }
    if !keep_data {
        match std::fs::remove_dir_all(&dir.root) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", dir.root.display())),
        }
    }
    Ok(())
}
