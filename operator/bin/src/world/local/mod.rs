//! This machine: each testnet has a supervisor, which is asked over its control socket.

mod client;
mod down;
mod exec;
mod launch;
mod logs;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use netsplit_backend::local::{Check, LocalConfig};
use netsplit_proto::control::{
    AddFaultRequest, ExperimentEvent, Fault, GetLinksRequest, HealRequest, LoadProgress, RestartRequest,
    RunExperimentRequest, RunLoadRequest,
};
use netsplit_spec::Testnet;
use tonic::{Response, Streaming};

use self::client::Client;
use super::{Asked, Found, Handle, Launched, Links, Logs, Told, World};
use crate::{
    paths::{self, TestnetDir},
    problem, programs,
};

/// The testnets of this user on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Local;

#[async_trait(?Send)]
impl World for Local {
    fn place(&self) -> String {
        "here".to_owned()
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }

    async fn doctor(&self) -> Result<Vec<Check>> {
        let scratch = std::env::temp_dir().join(format!("netsplit-doctor-{}", std::process::id()));
        let config = LocalConfig::new(scratch.clone())?;
        let mut checks = netsplit_backend::local::doctor(config.clone()).await;
        checks.extend(programs::checks(&config));
        match std::fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(checks),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Found>> {
        Ok(found(TestnetDir::of(name)?).await)
    }

    async fn all(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for dir in paths::all()? {
            all.extend(found(dir).await);
        }
        Ok(all)
    }

    async fn names(&self) -> Result<Vec<String>> {
        Ok(paths::all()?.into_iter().map(|dir| dir.name).collect())
    }

    async fn launch(&self, testnet: &Testnet, own: bool) -> Result<Launched> {
        launch::launch(testnet, own).await
    }

    async fn give_up(&self, name: &str) -> Result<String> {
        self.take_down(name, true).await?;
        Ok(format!("logs are kept: `netsplit logs -t {name} NODE`"))
    }

    async fn take_down(&self, name: &str, keep_data: bool) -> Result<()> {
        down::take_down(&TestnetDir::of(name)?, keep_data).await
    }

    async fn logs(&self, testnet: &str, wanted: &Logs) -> Result<()> {
        logs::print(&TestnetDir::of(testnet)?, wanted).await
    }
}

async fn found(dir: TestnetDir) -> Option<Found> {
    let (client, state) = client::running(&dir).await?;
    Some(Found { state, handle: Box::new(Supervised { dir, client }) })
}

/// A testnet whose supervisor answers.
#[derive(Debug)]
struct Supervised {
    dir: TestnetDir,
    client: Client,
}

#[async_trait(?Send)]
impl Handle for Supervised {
    async fn diagnosis(&self) -> String {
        launch::log_tail(&self.dir)
    }

    async fn run(&self, asked: &Asked) -> Result<Told<ExperimentEvent>> {
        let request = RunExperimentRequest {
            document: asked.document.clone(),
            file: asked.file.clone(),
            name: asked.experiment.name.clone(),
        };
        told(self.client.clone().run_experiment(request).await)
    }

    async fn abort(&self, _: &Asked) -> Result<()> {
        // Dropping the events has made the supervisor heal what it had applied.
        Ok(())
    }

    async fn add_fault(&self, request: AddFaultRequest) -> Result<Fault> {
        answered(self.client.clone().add_fault(request).await)
    }

    async fn links(&self) -> Result<Links> {
        let answer = answered(self.client.clone().get_links(GetLinksRequest {}).await)?;
        Ok(Links::all(answer.links))
    }

    async fn heal(&self, request: HealRequest) -> Result<Vec<Fault>> {
        answered(self.client.clone().heal(request).await).map(|answer| answer.healed)
    }

    async fn load(&self, request: RunLoadRequest) -> Result<Told<LoadProgress>> {
        told(self.client.clone().run_load(request).await)
    }

    async fn restart(&self, request: RestartRequest) -> Result<()> {
        answered(self.client.clone().restart(request).await).map(drop)
    }

    async fn exec(&self, node: &str, command: &[String]) -> Result<ExitCode> {
        exec::run(&self.dir, node, command).await
    }
}

fn answered<T>(answer: Result<Response<T>, tonic::Status>) -> Result<T> {
    answer.map(Response::into_inner).map_err(problem::from_status)
}

fn told<T: Send + 'static>(answer: Result<Response<Streaming<T>>, tonic::Status>) -> Result<Told<T>> {
    Ok(answered(answer)?.map_err(problem::from_status).boxed())
}
