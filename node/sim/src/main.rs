//! `netsplit-sim SEEDS [--from N] [--mutation NAME]`: runs seeds, prints what came of them, fails if one did.

use std::time::Instant;

use anyhow::bail;
use clap::Parser;
use netsplit_sim::{Mutation, Outcome, SECOND, run_many};

#[derive(Debug, Parser)]
#[command(about = "Runs the consensus simulator over a range of seeds")]
struct Arguments {
    /// How many seeds.
    #[arg(default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// A defect to put in: no-fsync, no-certificate-check, no-replay or no-reexchange.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// Run each seed once only, without the comparison of traces.
    #[arg(long)]
    once: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, mutation)| *mutation)
        .ok_or_else(|| format!("known are {}", Mutation::ALL.map(|(known, _)| known).join(", ")))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let outcomes = run_many(seeds, arguments.mutation, !arguments.once, arguments.threads);
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let count = outcomes.len().max(1) as u64;
    println!("{count} seeds in {:.1} s", start.elapsed().as_secs_f64());
    println!(
        "heights {}, virtual seconds {}, messages {}, syncs {}, crashes {} ({} in boot), forged {}, evidence {}",
        sum(|o| o.heights),
        sum(|o| o.virtual_time) / SECOND,
        sum(|o| o.messages),
        sum(|o| o.syncs),
        sum(|o| o.crashes),
        sum(|o| o.crashes_in_boot),
        sum(|o| o.forged),
        sum(|o| o.evidence),
    );
    println!(
        "recovery: mean {:.2} s, most {:.2} s; highest round {}",
        sum(|o| o.recovery) as f64 / count as f64 / SECOND as f64,
        outcomes.iter().map(|o| o.recovery).max().unwrap_or(0) as f64 / SECOND as f64,
        outcomes.iter().map(|o| o.max_round).max().unwrap_or(0),
    );
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.failure.is_some()).collect();
    for outcome in failed.iter().take(10) {
        let (n, topology, byzantine) = (outcome.validators, outcome.topology, outcome.byzantine);
        let failure = outcome.failure.as_deref().unwrap_or_default();
        println!("seed {} (n={n} {topology:?} byzantine={byzantine}): {failure}", outcome.seed);
    }
    if !failed.is_empty() {
        bail!("{} of {count} seeds failed", failed.len());
    }
    Ok(())
}
