//! Where testnets run. The verbs of the command line are written once, against [`World`] and [`Handle`], in the words of
//! the control protocol; what a place does about them is behind the two.

mod cluster;
mod local;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use async_trait::async_trait;
use futures::stream::BoxStream;
use netsplit_backend::local::Check;
use netsplit_proto::control::{
    AddFaultRequest, ExperimentEvent, Fault, HealRequest, Link, LoadProgress, RestartRequest, RunLoadRequest,
    Testnet as State,
};
use netsplit_spec::{Experiment, Testnet};

pub use self::{cluster::Kubernetes, local::Local};

/// What a place tells as it happens. Dropping it ends what it tells of, where only the caller wants that.
pub type Told<T> = BoxStream<'static, Result<T>>;

/// A place that runs testnets.
#[async_trait(?Send)]
pub trait World {
    /// As a sentence ends: `here`.
    fn place(&self) -> String;

    /// Longest wait for a testnet's first final block, unless said otherwise.
    fn patience(&self) -> Duration;

    /// Whether testnets can run here, and what to do if not.
    async fn doctor(&self) -> Result<Vec<Check>>;

    /// The testnet of that name, if it runs; also one that has failed and can still tell why.
    async fn get(&self, name: &str) -> Result<Option<Found>>;

    /// All testnets that run.
    async fn all(&self) -> Result<Vec<Found>>;

    /// The names of all that [`Self::take_down`] would find, running or not.
    async fn names(&self) -> Result<Vec<String>>;

    /// Starts a testnet that does not run. With `own` it ends when the returned states are dropped, however that
    /// happens, where the place can promise that.
    async fn launch(&self, testnet: &Testnet, own: bool) -> Result<Launched>;

    /// A testnet that did not come up: ends what is of no use, and says where to look.
    async fn give_up(&self, name: &str) -> Result<String>;

    /// Stops a testnet and removes what it left; there may be nothing.
    async fn take_down(&self, name: &str, keep_data: bool) -> Result<()>;

    /// Prints what a node has written.
    async fn logs(&self, testnet: &str, wanted: &Logs) -> Result<()>;
}

/// A testnet that is there.
#[async_trait(?Send)]
pub trait Handle {
    /// What the place itself has to say about a testnet that does not come up.
    async fn diagnosis(&self) -> String;

    /// Runs an experiment to its verdict, which is the last event.
    async fn run(&self, asked: &Asked) -> Result<Told<ExperimentEvent>>;

    /// Ends it without a verdict; what it did is healed. To be called when the events were dropped before the last.
    async fn abort(&self, asked: &Asked) -> Result<()>;

    /// Applies a fault, and returns when it is proven.
    async fn add_fault(&self, request: AddFaultRequest) -> Result<Fault>;

    /// The directed links: what is asked of them and what was measured.
    async fn links(&self) -> Result<Links>;

    /// Ends faults made by hand, and returns when their links are seen open.
    async fn heal(&self, request: HealRequest) -> Result<Vec<Fault>>;

    async fn load(&self, request: RunLoadRequest) -> Result<Told<LoadProgress>>;

    async fn restart(&self, request: RestartRequest) -> Result<()>;

    /// Runs a command on the caller's own terminal; gives its exit code.
    async fn exec(&self, node: &str, command: &[String]) -> Result<ExitCode>;
}

/// Directed links as a place tells them: all of them, or the worst of very many.
#[derive(Debug, Default)]
pub struct Links {
    pub total: u64,
    /// Those of which something is asked, or was of late.
    pub measured: u64,
    pub as_asked: u64,
    pub told: Vec<Link>,
}

impl Links {
    pub fn all(told: Vec<Link>) -> Self {
        let measured = || told.iter().filter(|link| link.measured.is_some());
        Self {
            total: told.len() as u64,
            measured: measured().count() as u64,
            as_asked: measured().filter(|link| link.problem.is_empty()).count() as u64,
            told,
        }
    }
}

/// A testnet that runs, as it was found.
pub struct Found {
    pub state: State,
    pub handle: Box<dyn Handle>,
}

impl Found {
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Neither failed nor on its way down.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state.state.as_str(), "failed" | "stopping")
    }
}

/// A testnet that this command has started.
pub struct Launched {
    pub handle: Box<dyn Handle>,
    /// States as they change.
    pub states: Told<State>,
    pub since: Instant,
}

/// An experiment, and the text it was read from.
#[derive(Debug)]
pub struct Asked {
    pub experiment: Experiment,
    pub document: String,
    pub file: String,
}

/// Which part of a node's log is wanted.
#[derive(Debug)]
pub struct Logs {
    pub node: String,
    /// Only so many lines from its end.
    pub lines: Option<usize>,
    pub follow: bool,
}

/// The testnet that is meant: the named one, else the only one that runs.
pub async fn find(world: &dyn World, name: Option<&str>) -> Result<Found> {
    let place = world.place();
    if let Some(name) = name {
        if let Some(found) = world.get(name).await? {
            return Ok(found);
        }
        bail!("no testnet `{name}` runs {place}; {}", names(&world.all().await?));
    }
    let mut all = world.all().await?;
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => bail!("no testnet runs {place}: start one with `netsplit up -f quickstart.yaml --detach`"),
        _ => bail!("several testnets run {place}: say which with `-t NAME`; {}", names(&all)),
    }
}

fn names(all: &[Found]) -> String {
    if all.is_empty() {
        return "none runs".to_owned();
    }
    let names: Vec<&str> = all.iter().map(Found::name).collect();
    format!("running: {}", names.join(", "))
}
