//! `netsplit load`: transfers by hand.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use netsplit_proto::control::{LoadProgress, RunLoadRequest};
use serde_json::{Value, json};

use crate::{
    cli::LoadArgs,
    world::{self, World},
};

pub async fn run(world: &dyn World, args: &LoadArgs) -> Result<()> {
    let found = world::find(world, args.testnet.testnet.as_deref()).await?;
    let request = RunLoadRequest { rate: args.rate.0, for_ms: args.duration.0.as_millis() as u64 };
    let mut told = found.handle.load(request).await?;
    let live = !args.json && std::io::stderr().is_terminal();
    let mut last = LoadProgress::default();
    while let Some(progress) = told.try_next().await? {
        if live {
            eprint!("\r{:>5.1} s  {}\x1b[K", progress.seconds, line(&progress));
        }
        last = progress;
    }
    if live {
        eprintln!();
    }
    anyhow::ensure!(last.done, "the load broke off after {:.1} s", last.seconds);
    if args.json {
        println!("{:#}", json(&last));
    } else {
        println!("{}", line(&last));
        for (reason, count) in &last.refused_by_reason {
            println!("  refused, {reason}: {count}");
        }
    }
    (last.committed > 0 || last.offered == 0).then_some(()).context("not one transfer became final")
}

/// One line of figures.
pub fn line(load: &LoadProgress) -> String {
    let unchecked = if load.signatures_checked { "" } else { "; no signature is checked" };
    format!(
        "{} offered, {} accepted, {} refused, {} final ({:.0}/s); submit to final p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms{unchecked}",
        load.offered,
        load.accepted,
        load.refused,
        load.committed,
        load.committed_per_second,
        load.latency_p50_ms,
        load.latency_p90_ms,
        load.latency_p99_ms,
        load.latency_max_ms
    )
}

pub fn json(load: &LoadProgress) -> Value {
    json!({
        "seconds": load.seconds, "offered": load.offered, "accepted": load.accepted, "refused": load.refused,
        "refusedByReason": load.refused_by_reason, "committed": load.committed,
        "committedPerSecond": load.committed_per_second,
        "latencyMs": {
            "p50": load.latency_p50_ms, "p90": load.latency_p90_ms, "p99": load.latency_p99_ms,
            "max": load.latency_max_ms,
        },
        "signaturesChecked": load.signatures_checked,
    })
}
