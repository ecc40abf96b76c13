//! A Kubernetes cluster: testnets and experiments are objects of one namespace, and an operator does what they ask.

mod api;
mod doctor;
mod exec;
mod faults;
mod follow;
mod held;
mod links;
mod load;
mod run;
mod state;

use std::{
    process::ExitCode,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use netsplit_backend::local::Check;
use netsplit_proto::control::{
    AddFaultRequest, ExperimentEvent, Fault, HealRequest, LoadProgress, RestartRequest, RunLoadRequest,
    Testnet as State,
};
use netsplit_spec::{Testnet, crd};

use self::api::Cluster;
use super::{Asked, Found, Handle, Launched, Links, Logs, Told, World};
use crate::problem::Usage;

/// How often a testnet that starts is looked at, and one that runs.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Longest silence of an API server that is taken for a pause.
const AWAY_FOR: Duration = Duration::from_secs(30);

/// The testnets of one namespace of a cluster.
pub struct Kubernetes(Cluster);

impl Kubernetes {
    /// Of the kubeconfig's current context, and its namespace unless one is given.
    pub async fn connect(namespace: Option<String>) -> Result<Self> {
        Cluster::connect(namespace).await.map(Self)
    }

    async fn found(&self, object: crd::Testnet) -> Result<Found> {
        let state = state::look(&self.0, &object).await?;
        Ok(Found { state, handle: Box::new(Applied::of(&self.0, &object)?) })
    }
}

#[async_trait(?Send)]
impl World for Kubernetes {
    fn place(&self) -> String {
        format!("in namespace {}", self.0.namespace)
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(5)
    }

    async fn doctor(&self) -> Result<Vec<Check>> {
        Ok(doctor::examine(&self.0).await)
    }

    async fn get(&self, name: &str) -> Result<Option<Found>> {
        let found = self.0.testnets().get_opt(name).await;
        match found.map_err(|error| self.0.explain(error, "cannot read the testnet"))? {
            Some(object) => self.found(object).await.map(Some),
            None => Ok(None),
        }
    }

    async fn all(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for object in self.0.list(&self.0.testnets()).await? {
            all.push(self.found(object).await?);
        }
        Ok(all)
    }

    async fn names(&self) -> Result<Vec<String>> {
        let all = self.0.list(&self.0.testnets()).await?;
        Ok(all.into_iter().filter_map(|object| object.metadata.name).collect())
    }

    async fn launch(&self, testnet: &Testnet, _own: bool) -> Result<Launched> {
        let since = Instant::now();
        let name = testnet.name.clone();
        if let Some(there) = self.get(&name).await? {
            if there.is_alive() {
                bail!(
                    "testnet `{name}` runs already: `netsplit status -t {name}`, `netsplit down -t {name}`"
                );
            }
            self.take_down(&name, false).await?;
        }
        let object = crd::Testnet::of(testnet)
            .map_err(|error| Usage(format!("testnet `{name}` cannot be an object of Kubernetes: {error}")))?;
        let object = self.0.create(&self.0.testnets(), &object).await?;
        let handle = Box::new(Applied::of(&self.0, &object)?);
        Ok(Launched { handle, states: states(self.0.clone(), name), since })
    }

    async fn give_up(&self, name: &str) -> Result<String> {
        let namespace = &self.0.namespace;
        Ok(format!(
            "the testnet stays for a look at it: `kubectl -n {namespace} describe testnet/{name}`, then `netsplit --on \
             kubernetes --namespace {namespace} down -t {name}`"
        ))
    }

    async fn take_down(&self, name: &str, keep_data: bool) -> Result<()> {
        if keep_data {
            return Err(Usage("on Kubernetes a node's data goes with its testnet".to_owned()).into());
        }
        self.0.take_down(name).await
    }

    async fn logs(&self, testnet: &str, wanted: &Logs) -> Result<()> {
        self.0.logs(testnet, wanted).await
    }
}

/// The testnet's states for as long as they are read. Nothing can be owned here: the cluster runs what it was told to.
fn states(cluster: Cluster, name: String) -> Told<State> {
    stream::unfold((cluster, name, None::<bool>), |(cluster, name, ran)| async move {
        match ran {
            None => {}
            Some(false) => tokio::time::sleep(LOOK_EVERY.0).await,
            Some(true) => tokio::time::sleep(LOOK_EVERY.1).await,
        }
        let state = state_of(&cluster, &name).await;
        let runs = state.as_ref().is_ok_and(|state| state.state == "running");
        Some((state, (cluster, name, Some(runs))))
    })
    .boxed()
}

/// An API server that is away for a moment is asked again: the testnet goes on meanwhile.
async fn state_of(cluster: &Cluster, name: &str) -> Result<State> {
    let deadline = Instant::now() + AWAY_FOR;
    loop {
        let failed = match cluster.testnets().get_opt(name).await {
            Ok(None) => bail!("testnet `{name}` was deleted"),
            Ok(Some(object)) => match state::look(cluster, &object).await {
                Ok(state) => return Ok(state),
                Err(error) => error,
            },
            Err(error) => cluster.explain(error, "cannot read the testnet"),
        };
        if Instant::now() >= deadline {
            return Err(failed);
        }
        tokio::time::sleep(LOOK_EVERY.0).await;
    }
}

/// A testnet whose object is there.
struct Applied {
    cluster: Cluster,
    name: String,
    /// As the object was found; none that cannot be read.
    spec: Option<Testnet>,
    /// UID of the Experiment that this command runs.
    running: OnceLock<String>,
}

impl Applied {
    fn of(cluster: &Cluster, object: &crd::Testnet) -> Result<Self> {
        let name = object.metadata.name.clone().context("an object of the API server has a name")?;
        Ok(Self { cluster: cluster.clone(), name, spec: object.read().ok(), running: OnceLock::new() })
    }

    fn spec(&self) -> Result<&Testnet> {
        self.spec.as_ref().with_context(|| {
            format!("the object of testnet `{}` is of another version of netsplit", self.name)
        })
    }
}

#[async_trait(?Send)]
impl Handle for Applied {
    async fn diagnosis(&self) -> String {
        self.cluster.diagnosis(&self.name).await
    }

    async fn run(&self, asked: &Asked) -> Result<Told<ExperimentEvent>> {
        let (uid, events) = run::begin(&self.cluster, self.spec()?, asked).await?;
        self.running.set(uid).ok().context("a command runs one experiment")?;
        Ok(events)
    }

    async fn abort(&self, asked: &Asked) -> Result<()> {
        match self.running.get() {
            Some(uid) => self.cluster.delete(&self.cluster.experiments(), &asked.experiment.name, uid).await,
            None => Ok(()),
        }
    }

    async fn add_fault(&self, request: AddFaultRequest) -> Result<Fault> {
        faults::add(&self.cluster, self.spec()?, request).await
    }

    async fn links(&self) -> Result<Links> {
        let found = self.cluster.testnets().get(&self.name).await;
        let object = found.map_err(|error| self.cluster.explain(error, "cannot read the testnet"))?;
        object.status.and_then(|status| status.links).map_or_else(|| Ok(Links::default()), links::read)
    }

    async fn heal(&self, request: HealRequest) -> Result<Vec<Fault>> {
        faults::heal(&self.cluster, self.spec()?, request).await
    }

    async fn load(&self, request: RunLoadRequest) -> Result<Told<LoadProgress>> {
        load::begin(&self.cluster, self.spec()?, request).await
    }

    async fn restart(&self, request: RestartRequest) -> Result<()> {
        self.cluster.restart(&self.name, self.spec()?, &request).await
    }

    async fn exec(&self, node: &str, command: &[String]) -> Result<ExitCode> {
        exec::run(&self.cluster, &self.name, node, command).await
    }
}
