//! What a person types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    operator::OperatorArgs,
    units::{Bits, Duration, Rate, Share},
};

#[derive(Debug, Parser)]
#[command(
    name = "netsplit",
    version,
    about = "Launch a blockchain test network, break its links on purpose, get a verdict",
    after_help = "Exit codes: 0 passed or done, 1 failed, 2 usage, 3 invalid or aborted.\n\n\
                  Start here:\n  netsplit init\n  netsplit run split-brain.yaml"
)]
pub struct Cli {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Where testnets run.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Where testnets run: on this machine, or in the cluster of the kubeconfig's current context
    #[arg(long, global = true, value_name = "PLACE", default_value = "machine")]
    pub on: Place,
    /// The namespace, instead of the kubeconfig's
    #[arg(long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    Machine,
    Kubernetes,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented quickstart.yaml and split-brain.yaml
    Init(InitArgs),
    /// Check that testnets can run here; say what to enable where they cannot
    Doctor(JsonArgs),
    /// Launch a testnet: in the foreground until Ctrl-C, or detached
    #[command(after_help = "Example:\n  netsplit up -f quickstart.yaml --detach")]
    Up(UpArgs),
    /// Show a testnet's nodes and active faults
    Status(StatusArgs),
    /// Run an experiment and return its verdict
    #[command(after_help = "Exit codes: 0 passed, 1 failed, 2 usage, 3 invalid or aborted.\n\n\
                            Examples:\n  netsplit run split-brain.yaml --json > verdict.json\n  \
                            netsplit run split-brain.yaml --report out\n  netsplit run crashes.yaml --dry-run")]
    Run(RunArgs),
    /// Split the network into groups that cannot reach each other
    #[command(
        after_help = "Example:\n  netsplit split validator-0,validator-1,full-0 validator-2,validator-3,full-1 --for 20s"
    )]
    Split(SplitArgs),
    /// Cut the links between nodes
    #[command(after_help = "Example:\n  netsplit cut validator-0 validator-1,full-0 --one-way --for 20s")]
    Cut(CutArgs),
    /// Change what the links between nodes do to packets
    #[command(
        after_help = "Examples:\n  netsplit link validator-0 validator-1,full-0 --latency 80ms --loss 2% --for 30s\n  \
                            netsplit heal validator-0 validator-1,full-0"
    )]
    Link(LinkArgs),
    /// Show what each directed link is asked to do, and what was measured
    #[command(after_help = "Example:\n  netsplit links --json")]
    Links(StatusArgs),
    /// End faults: all of them, or the one made with the same arguments
    #[command(after_help = "Examples:\n  netsplit heal\n  netsplit heal validator-0 validator-1")]
    Heal(HealArgs),
    /// Send signed transfers at a set rate
    #[command(after_help = "Example:\n  netsplit load --rate 500/s --for 10s")]
    Load(LoadArgs),
    /// Run a command in a node's network
    #[command(
        after_help = "Example:\n  netsplit exec full-0 -- ping -c 3 10.77.0.1\n\nOn Kubernetes it is a program of the \
                            node's image: netsplit's own holds /netsplit-node and no shell."
    )]
    Exec(ExecArgs),
    /// End a node if it runs, and start it again with its data
    #[command(after_help = "Example:\n  netsplit restart validator-2 --kill")]
    Restart(RestartArgs),
    /// Print a node's log
    Logs(LogsArgs),
    /// Stop a testnet and remove what it left
    Down(DownArgs),
    /// Run testnets and experiments that are objects of a Kubernetes cluster (the chart starts it there)
    Operator(OperatorArgs),
    /// The process that owns a testnet (started by `up` and `run`)
    #[command(name = "__outer", hide = true)]
    Outer { dir: PathBuf },
    /// The process that owns a testnet's namespaces (started by `__outer`)
    #[command(name = "__inner", hide = true)]
    Inner,
    /// The link agent (started by `__inner`)
    #[command(hide = true)]
    Agent,
    /// Has paused nodes go on when their owner hangs (started by `__inner`)
    #[command(name = netsplit_backend::local::WATCHDOG_COMMAND, hide = true)]
    Watchdog,
    /// The link agent of a pod (started by Kubernetes)
    #[command(name = netsplit_backend::kubernetes::agent::COMMAND, hide = true)]
    PodAgent(crate::pod_agent::PodAgentArgs),
}

/// Which testnet is meant.
#[derive(Clone, Debug, Args)]
pub struct TestnetArg {
    /// Name of the testnet; not needed when one runs
    #[arg(short = 't', long = "testnet", value_name = "NAME")]
    pub testnet: Option<String>,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write the files
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// The file that holds the testnet
    #[arg(short, long, value_name = "FILE", default_value = "quickstart.yaml")]
    pub file: PathBuf,
    /// Which testnet of the file, when it holds several
    #[arg(short = 't', long = "testnet", value_name = "NAME")]
    pub testnet: Option<String>,
    /// Return when the first block is final, leave the testnet running
    #[arg(short, long)]
    pub detach: bool,
    /// Give up when no block is final by then (1m; on Kubernetes, which may have to pull images, 5m)
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The file that holds the experiment
    pub experiment: PathBuf,
    /// The file that holds its testnet, if it is neither in the same file nor beside it nor running
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Which experiment of the file, when it holds several
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print the verdict as JSON on standard output, the timeline on standard error
    #[arg(long)]
    pub json: bool,
    /// Write report.html, report.json and junit.xml into this directory
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Leave the testnet running that this command started
    #[arg(long)]
    pub keep: bool,
    /// Print what each phase does to which link and node, and start nothing; with --json for programs
    #[arg(long, conflicts_with_all = ["report", "keep"])]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct SplitArgs {
    /// Two or more sides: comma-separated nodes, groups, role:R, region:R or GROUP/random:N
    #[arg(required = true, num_args = 2.., value_name = "GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// Heal by itself after this time; without it until `heal`
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct CutArgs {
    /// Comma-separated nodes, groups, role:R, region:R or GROUP/random:N
    pub from: String,
    /// Comma-separated nodes, groups, role:R, region:R or GROUP/random:N
    pub to: String,
    /// Cut only what FROM sends to TO
    #[arg(long)]
    pub one_way: bool,
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// Heal by itself after this time; without it until `heal`
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Comma-separated nodes, groups, role:R, region:R or GROUP/random:N
    pub from: String,
    /// Comma-separated nodes, groups, role:R, region:R or GROUP/random:N
    pub to: String,
    #[command(flatten)]
    pub quality: QualityArgs,
    /// Change only what FROM sends to TO
    #[arg(long)]
    pub one_way: bool,
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// Heal by itself after this time; without it until `heal`
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<Duration>,
}

/// What links do to packets; what is left out stays as the testnet has it.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub struct QualityArgs {
    /// One way, such as 80ms
    #[arg(long, value_name = "DURATION")]
    pub latency: Option<Duration>,
    /// Largest deviation from the latency, both ways
    #[arg(long, value_name = "DURATION")]
    pub jitter: Option<Duration>,
    /// Packets that are lost, such as 2%
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<Share>,
    /// Bits a second, such as 10mbit
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Bits>,
    /// Packets that come twice
    #[arg(long, value_name = "SHARE")]
    pub duplicate: Option<Share>,
    /// Packets that skip the latency
    #[arg(long, value_name = "SHARE")]
    pub reorder: Option<Share>,
    /// Packets in which a bit is flipped
    #[arg(long, value_name = "SHARE")]
    pub corrupt: Option<Share>,
}

#[derive(Debug, Args)]
pub struct HealArgs {
    /// The arguments of the `split`, `cut` or `link` to end; without any, all faults made by hand
    pub groups: Vec<String>,
    /// The fault was made one-way
    #[arg(long)]
    pub one_way: bool,
    #[command(flatten)]
    pub testnet: TestnetArg,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Transfers a second, such as 500/s
    #[arg(long, value_name = "RATE", default_value = "100/s")]
    pub rate: Rate,
    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "10s")]
    pub duration: Duration,
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The node whose network the command sees
    pub node: String,
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The node
    pub node: String,
    /// End it as a crash would (SIGKILL), not in order
    #[arg(long)]
    pub kill: bool,
    #[command(flatten)]
    pub testnet: TestnetArg,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The node
    pub node: String,
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// Go on printing what is added
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub testnet: TestnetArg,
    /// All testnets of this user
    #[arg(long)]
    pub all: bool,
    /// Keep the nodes' data and logs
    #[arg(long)]
    pub keep_data: bool,
}
