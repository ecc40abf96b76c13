//! `netsplit-bench`: what netsplit promises in figures, measured on this machine, each beside its baseline.
//!
//! Every row is one function in [`measures`]; several runs, the median counts unless the row says otherwise. A figure that is missed
//! is printed as missed and is no error: the machine may be small or busy, and the load average beside it tells.

mod cometbft;
mod cut;
mod inside;
mod kubernetes;
mod lab;
mod links;
mod measures;
mod report;
mod sleepers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use netsplit_backend::local::{AGENT_COMMAND, INNER_COMMAND, run_agent, run_inner};

/// Measure this machine: start-up, transfers, latency, memory, cuts, heals, links, Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "netsplit-bench", version)]
struct Cli {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fewer and shorter runs: minutes become one or two
    #[arg(long)]
    quick: bool,
    /// The folder of netsplit and netsplit-node [default: where this program is]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// The script that runs the baseline
    #[arg(long, value_name = "FILE", default_value = "bench/cometbft.sh")]
    baseline: PathBuf,
    /// Leave the baseline out
    #[arg(long)]
    no_baseline: bool,
    /// Only these rows: up, throughput, latency, cut, heal, links, kubernetes
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    only: Vec<measures::Part>,
}

fn main() -> ExitCode {
    // The cuts are measured through the backend, which starts the program that it is part of again.
    let result = match std::env::args().nth(1).as_deref() {
        Some(INNER_COMMAND) => run_inner().map_err(anyhow::Error::from),
        Some(AGENT_COMMAND) => run_agent().map_err(anyhow::Error::from),
        _ => bench(&Cli::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netsplit-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(cli: &Cli) -> Result<()> {
    let programs = match &cli.programs {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().context("this program is in no folder")?.to_path_buf(),
    };
    let plan = if cli.quick { measures::Plan::quick() } else { measures::Plan::full() };
    let baseline = (!cli.no_baseline).then_some(cli.baseline.as_path());
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let lab = lab::Lab::new(&programs)?;
    let rows = runtime.block_on(measures::all(&lab, &plan, &cli.only, baseline));
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", report::table(&rows));
    }
    Ok(())
}
