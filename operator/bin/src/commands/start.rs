//! Waiting for a testnet's first final block.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::{Result, bail};
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use netsplit_proto::control::Testnet as State;

use crate::world::Launched;

/// Waits until every node holds a final block. Shows progress on standard error.
pub async fn first_final(launched: &mut Launched, timeout: Duration) -> Result<State> {
    let spinner = spinner();
    let deadline = tokio::time::Instant::now() + timeout;
    let mut last = String::from("nothing was heard of it");
    loop {
        let next = tokio::time::timeout_at(deadline, launched.states.try_next()).await;
        let Ok(next) = next else {
            spinner.finish_and_clear();
            bail!(
                "no block was final on every node after {} s: {last}\n{}",
                timeout.as_secs(),
                launched.handle.diagnosis().await
            );
        };
        let Some(state) = next? else {
            spinner.finish_and_clear();
            bail!("the testnet went away:\n{}", launched.handle.diagnosis().await);
        };
        if state.state == "failed" {
            spinner.finish_and_clear();
            bail!("testnet `{}` cannot start: {}", state.name, state.problem);
        }
        last = progress(&state);
        spinner.set_message(last.clone());
        if state.state == "running"
            && !state.nodes.is_empty()
            && state.nodes.iter().all(|n| n.final_height > 0)
        {
            spinner.finish_and_clear();
            return Ok(state);
        }
    }
}

fn progress(state: &State) -> String {
    let running = state.nodes.iter().filter(|node| node.state == "running").count();
    let with_block = state.nodes.iter().filter(|node| node.final_height > 0).count();
    let total = state.nodes.len();
    format!("{}: {running} of {total} nodes run, {with_block} hold a final block", state.name)
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
