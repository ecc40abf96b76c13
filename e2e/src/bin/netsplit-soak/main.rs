//! `netsplit-soak`: the trials that take long. An hour of load with random cuts and kills, after which memory, logs and
//! disk must be flat and every node must agree; many runs beside busy loops, none of which may blame the chain, and many on
//! shaped links with nothing wrong, none of which may raise an alarm; and faults in whose middle all of netsplit hangs or dies.
//!
//! Exit codes: 0 everything held, 1 something did not, 2 usage, 3 the soak itself broke off.

mod agreement;
mod disturb;
mod follow;
mod hour;
mod judge;
mod meter;
mod progress;
mod report;
mod shape;
mod trend;

use std::{panic::AssertUnwindSafe, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use netsplit_e2e::{Busy, BusyLoops, Experiment, Lab, Testnet, busy_run, held_beyond_their_lease};

use crate::{
    progress::Progress,
    report::{Check, Report, Runs},
    shape::Shape,
};

/// Shorter runs end before there is anything to judge.
const SHORTEST: Duration = Duration::from_mins(2);

/// Run a testnet for long under load, kills and cuts; say what does not hold.
#[derive(Debug, Parser)]
#[command(name = "netsplit-soak", version)]
struct Cli {
    /// Length of the hour; the rest is scaled by it
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = netsplit_spec::parse_duration)]
    duration: Duration,
    /// Rules what is killed and cut, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Transfers a second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,
    /// Runs of the other parts [default: 50 beside busy loops and 100 of the others in an hour, at least 5]
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// Write all measurements of the hour into this file, as CSV
    #[arg(long, value_name = "FILE")]
    readings: Option<PathBuf>,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Load, kills and cuts
    Hour,
    /// A split brain beside two busy loops, again and again
    Busy,
    /// Shaped links with nothing wrong, again and again
    Clean,
    /// All of netsplit hangs or dies in the middle of faults, again and again
    Leases,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.duration < SHORTEST {
        eprintln!("netsplit-soak: --duration must be at least {} s", SHORTEST.as_secs());
        return ExitCode::from(2);
    }
    // A lab panics when it cannot do its work, and says why; its testnets are ended all the same.
    match std::panic::catch_unwind(AssertUnwindSafe(|| soak(&cli))) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("netsplit-soak: {error:#}");
            ExitCode::from(3)
        }
        Err(_) => ExitCode::from(3),
    }
}

fn soak(cli: &Cli) -> Result<bool> {
    let wanted = |part| cli.only.is_empty() || cli.only.contains(&part);
    let mut report = Report::default();
    if wanted(Part::Hour) {
        let mut lab = Lab::new();
        let shape = Shape::new(cli.duration, cli.seed, cli.rate);
        report.hour = Some(hour::run(&mut lab, &shape, cli.readings.as_deref())?);
    }
    if wanted(Part::Busy) {
        report.busy = Some(busy(cli.runs.unwrap_or_else(|| Shape::busy_runs(cli.duration)))?);
    }
    let runs = cli.runs.unwrap_or_else(|| Shape::other_runs(cli.duration));
    if wanted(Part::Clean) {
        report.clean = Some(clean(runs)?);
    }
    if wanted(Part::Leases) {
        report.leases = Some(leases(runs));
    }
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        eprint!("{}", report.text());
    } else {
        print!("{}", report.text());
    }
    Ok(report.held())
}

/// Passed, or Invalid because the host was overloaded: never Failed.
fn busy(runs: u32) -> Result<Runs> {
    let testnet = Testnet::new("busy");
    let experiment = Experiment::halves("busy").expect_all();
    let name = "a busy machine is never a failing chain";
    again_and_again(name, &testnet, &experiment, "beside two busy loops", runs, true)
}

/// What is measured of links that do what they are asked to must say so each time, whatever their jitter and losses.
fn clean(runs: u32) -> Result<Runs> {
    let links = "latency: 20ms, jitter: 4ms, loss: 0.5%, duplicate: 1%, reorder: 1%";
    let testnet = Testnet { links, load: 20, ..Testnet::new("clean") };
    let mut experiment = Experiment::halves("clean").expect("progress: {within: 10s}");
    "link: {from: [validator-0], to: [validator-1, validator-2], latency: 60ms, jitter: 10ms, loss: 2%}"
        .clone_into(&mut experiment.fault);
    let name = "links that are as asked raise no alarm";
    again_and_again(name, &testnet, &experiment, "with nothing wrong", runs, false)
}

fn again_and_again(
    name: &'static str,
    testnet: &Testnet,
    experiment: &Experiment,
    how: &str,
    runs: u32,
    beside_loops: bool,
) -> Result<Runs> {
    ensure!(runs > 0, "a trial of no runs shows nothing");
    let lab = Lab::new();
    let progress = Progress::new();
    let file = lab.write("testnet.yaml", &testnet.yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    let file = lab.write("experiment.yaml", &experiment.yaml());
    let (mut passed, mut host_overloaded) = (0, 0);
    let mut wrong = Vec::new();
    let loops = beside_loops.then(BusyLoops::start);
    for run in 1..=runs {
        let came_to = busy_run(&lab, &file);
        progress.say(&format!("run {run} of {runs} {how}: {came_to:?}"));
        match came_to {
            Busy::Passed => passed += 1,
            Busy::HostOverloaded => host_overloaded += 1,
            Busy::Wrong(why) => wrong.push(format!("run {run}: {why}")),
        }
    }
    drop(loops);
    lab.ok(&["down"]);
    lab.assert_nothing_left();
    let detail = if wrong.is_empty() { format!("{runs} runs") } else { wrong.join("; ") };
    Ok(Runs { passed, host_overloaded, check: Check { name, held: wrong.is_empty(), detail } })
}

fn leases(times: u32) -> Check {
    let lab = Lab::new();
    let progress = Progress::new();
    let wrong = held_beyond_their_lease(&lab, times, |line| progress.say(line));
    let detail = if wrong.is_empty() { format!("{times} times each") } else { wrong.join("; ") };
    Check {
        name: "no fault outlives its lease, though all of netsplit hangs or dies",
        held: wrong.is_empty(),
        detail,
    }
}
