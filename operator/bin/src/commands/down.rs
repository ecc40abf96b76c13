//! `netsplit down`: what a testnet was, removed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netsplit_proto::control::DownRequest;

use crate::{
    cli::DownArgs,
    client::{self, Running},
    lock,
    paths::{self, TestnetDir},
    problem,
};

/// Longest wait for a supervisor to stop its nodes in order.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

pub async fn run(args: &DownArgs) -> Result<()> {
    let dirs = if args.all {
        paths::all()?
    } else if let Some(name) = &args.testnet.testnet {
        vec![TestnetDir::of(name)?]
    } else {
        let all = paths::all()?;
        match all.len() {
            0 => Vec::new(),
            1 => all,
            _ => vec![client::find(None).await?.dir],
        }
    };
    if dirs.is_empty() {
        println!("nothing to take down");
    }
    for dir in dirs {
        if !dir.root.exists() {
            bail!("there is no testnet `{}`", dir.name);
        }
        take_down(&dir, args.keep_data).await?;
        println!("{} is down", dir.name);
    }
    Ok(())
}

/// Stops the supervisor if one runs, then removes the directory.
pub async fn take_down(dir: &TestnetDir, keep_data: bool) -> Result<()> {
    if let Some(Running { mut client, .. }) = client::running(dir).await {
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
