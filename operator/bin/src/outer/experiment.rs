//! Experiments on this machine: their state is a file, their story goes to the command line.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use netsplit_plan::experiment::State;
use netsplit_proto::control::ExperimentEvent;
use netsplit_spec::ValidExperiment;
use tokio::sync::mpsc;

use super::testnet::Testnet;
use crate::{
    outcome,
    session::{
        experiment::{self, Journal, Progress},
        unix_ms,
    },
};

/// Runs the experiment to its verdict, as [`experiment::run`].
pub async fn run(
    testnet: Arc<Testnet>,
    valid: ValidExperiment,
    events: mpsc::Sender<Progress>,
) -> Result<()> {
    let journal = File(testnet.dir.experiment_file());
    experiment::run(Arc::clone(&testnet.session), valid, None, journal, events).await
}

/// The state in one file, replaced as a whole.
struct File(PathBuf);

#[async_trait]
impl Journal for File {
    async fn save(&mut self, state: &State, _acts: bool) -> Result<bool> {
        let Self(file) = self;
        let next = file.with_extension("json.new");
        let bytes = serde_json::to_vec(state).context("cannot write the experiment's state as JSON")?;
        std::fs::write(&next, bytes).with_context(|| format!("cannot write {}", next.display()))?;
        std::fs::rename(&next, &*file).with_context(|| format!("cannot replace {}", file.display()))?;
        Ok(true)
    }
}

/// Progress as the command line is told.
pub fn to_event(progress: Progress) -> Result<ExperimentEvent> {
    Ok(match progress {
        Progress::Waits => ExperimentEvent {
            kind: "note".to_owned(),
            text: "waits for the experiment that runs now".to_owned(),
            ..ExperimentEvent::default()
        },
        Progress::Event(event) => outcome::to_event(&event)?,
        Progress::Ended(outcome) => ExperimentEvent {
            at_ms: unix_ms().saturating_sub(outcome.started_ms),
            kind: "verdict".to_owned(),
            text: String::new(),
            verdict: serde_json::to_string(&outcome).context("cannot write the verdict as JSON")?,
        },
    })
}
