//! `netsplit`: launch a test network, break it on purpose, get a verdict.

mod by_hand;
mod cli;
mod commands;
mod documents;
mod lock;
mod nearest;
mod operator;
mod outcome;
mod outer;
mod paths;
mod pipe;
mod pod_agent;
mod problem;
mod programs;
mod progress;
mod quality;
mod report;
mod selector;
mod session;
mod shutdown;
mod table;
mod units;
mod world;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use netsplit_plan::experiment::ExitCode as Verdict;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Command, Place, PlaceArgs},
    problem::Usage,
    world::{Kubernetes, Local, World},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.chain().any(<dyn std::error::Error>::is::<Usage>);
            ExitCode::from(if usage { Verdict::Usage } else { Verdict::Failed } as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        // Namespaces can only be entered before the first thread starts.
        Command::Inner => netsplit_backend::local::run_inner().context("the inner process failed")?,
        Command::Agent => netsplit_backend::local::run_agent().context("the link agent failed")?,
        Command::Watchdog => netsplit_backend::local::run_watchdog().context("the watchdog failed")?,
        Command::Operator(args) => {
            log_to_stderr();
            runtime()?.block_on(operator::run(args))?;
        }
        Command::Outer { dir } => {
            log_to_stderr();
            runtime()?.block_on(outer::run(&dir))?;
        }
        Command::PodAgent(args) => {
            log_to_stderr();
            runtime()?.block_on(pod_agent::run(args))?;
        }
        Command::Init(args) => {
            pipe::end_when_closed();
            commands::init::run(&args)?;
        }
        // Needs no place: it touches nothing.
        Command::Run(args) if args.dry_run => {
            pipe::end_when_closed();
            commands::dry_run::run(&args)?;
        }
        command => {
            pipe::end_when_closed();
            return runtime()?.block_on(dispatch_async(&cli.place, command));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn dispatch_async(place: &PlaceArgs, command: Command) -> Result<ExitCode> {
    let world: Box<dyn World> = match (place.on, &place.namespace) {
        (Place::Machine, Some(_)) => {
            return Err(Usage("--namespace is for --on kubernetes".to_owned()).into());
        }
        (Place::Machine, None) => Box::new(Local),
        (Place::Kubernetes, namespace) => Box::new(Kubernetes::connect(namespace.clone()).await?),
    };
    let world = &*world;
    match command {
        Command::Run(args) => {
            return commands::run::run(world, &args).await.map(|verdict| ExitCode::from(verdict as u8));
        }
        Command::Doctor(args) => {
            return commands::doctor::run(world, &args).await.map(|verdict| ExitCode::from(verdict as u8));
        }
        Command::Exec(args) => return commands::exec::run(world, &args).await,
        Command::Up(args) => commands::up::run(world, &args).await?,
        Command::Status(args) => commands::status::run(world, &args).await?,
        Command::Split(args) => commands::faults::split(world, &args).await?,
        Command::Cut(args) => commands::faults::cut(world, &args).await?,
        Command::Link(args) => commands::faults::link(world, &args).await?,
        Command::Links(args) => commands::links::run(world, &args).await?,
        Command::Heal(args) => commands::faults::heal(world, &args).await?,
        Command::Load(args) => commands::load::run(world, &args).await?,
        Command::Restart(args) => commands::restart::run(world, &args).await?,
        Command::Logs(args) => commands::logs::run(world, &args).await?,
        Command::Down(args) => commands::down::run(world, &args).await?,
        Command::Operator(_)
        | Command::Init(_)
        | Command::PodAgent(_)
        | Command::Outer { .. }
        | Command::Inner
        | Command::Agent
        | Command::Watchdog => {
            unreachable!("dispatched before the runtime starts")
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// The supervisor's log; `NETSPLIT_LOG` sets what it holds.
fn log_to_stderr() {
    let filter = ["NETSPLIT_LOG", "RUST_LOG"].iter().find_map(|name| EnvFilter::try_from_env(name).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
