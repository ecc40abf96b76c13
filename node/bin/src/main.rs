//! The command line of the node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use netsplit_config::{Genesis, LogConfig, LogFormat, NodeConfig};
use netsplit_core::SecretKey;
use netsplit_node::{Identity, run, system_clock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// A netsplit node.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The node's configuration (TOML). Relative paths in it start at its folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new key, writes it to FILE (mode 0600, never over an existing one) and prints the public key.
    Keygen {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Prints the hash of a genesis file.
    GenesisHash {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netsplit-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> anyhow::Result<()> {
    let Cli { command, run: RunArgs { config } } = Cli::parse();
    match command {
        Some(Command::Keygen { file }) => keygen(&file),
        Some(Command::GenesisHash { file }) => {
            println!("{}", Genesis::load(&file)?.hash());
            Ok(())
        }
        None => node(&config.context("which configuration? use --config FILE")?),
    }
}

fn keygen(file: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = SecretKey::from_seed(rand::random());
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot create {}", file.display()))?;
    out.write_all(key.to_file_text().as_bytes())
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", key.public());
    Ok(())
}

fn node(file: &Path) -> anyhow::Result<()> {
    let config = NodeConfig::load(file)?;
    let genesis = Genesis::load(&config.genesis_file)?;
    let identity = Identity::load(&config)?;
    start_log(&config.log)?;
    // Two threads carry what a node does beside consensus and signatures, which have their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let on_signal = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            on_signal.cancel();
        });
        run(config, genesis, identity, system_clock(), stop).await
    });
    if let Err(error) = &result {
        error!(error = format!("{error:#}"), "the node failed");
    }
    result
}

fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    // The consensus core reports each vote at level info; name its target in `log.level` to see them.
    let filter = EnvFilter::try_new(format!("arc_malachitebft=warn,{}", config.level))
        .context("log.level is no filter such as \"info\"")?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
