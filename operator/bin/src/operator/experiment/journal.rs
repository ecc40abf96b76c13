//! An experiment's status: its state, kept before it acts, and what is seen of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use kube::Api;
use netsplit_plan::experiment::{ExpectationResult, Phase, State};
use netsplit_spec::crd::{ExpectationStatus, Experiment, ExperimentStatus, FaultStatus, set_condition};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::drive::End;
use crate::{
    operator::{
        context::{Written, condition, write_status},
        time,
    },
    session::{self, Session, faults::Fault},
};

/// Well below the pause between two steps that counts as an overloaded host.
const WRITE_TIMEOUT: Duration = Duration::from_millis(700);
/// A state that nothing follows from is kept this often: a successor goes on from one that is at most so old.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// After a failed write of the verdict.
const PAUSE: Duration = Duration::from_secs(1);

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Journal {
    api: Api<Experiment>,
    name: String,
    uid: String,
    generation: Option<i64>,
    session: Arc<Session>,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    /// As it was written last.
    status: ExperimentStatus,
    next: Instant,
}

impl Journal {
    pub fn new(
        api: Api<Experiment>,
        name: String,
        uid: String,
        generation: Option<i64>,
        session: Arc<Session>,
        status: ExperimentStatus,
    ) -> Self {
        let kept = Arc::new(Mutex::new(Kept { status, next: Instant::now() }));
        Self { api, name, uid, generation, session, kept }
    }

    pub fn writer(&self) -> Self {
        self.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, status: ExperimentStatus) -> Result<(), WriteError> {
        let written = timeout(WRITE_TIMEOUT, write_status(&self.api, &self.name, &self.uid, &status)).await;
        let mut kept = self.kept();
        kept.next = Instant::now() + KEEP_EVERY;
        match written {
            Ok(Ok(Written::Yes)) => {
                kept.status = status;
                Ok(())
            }
            Ok(Ok(Written::Gone)) => Err(WriteError::Gone),
            Ok(Err(error)) => Err(WriteError::Failed(error.to_string())),
            Err(_) => Err(WriteError::Failed("no answer in time".to_owned())),
        }
    }

    /// It waits for its turn.
    pub async fn waits(&self) {
        let mut status = self.kept().status.clone();
        status.phase = Some("Waiting".to_owned());
        status.reasons = vec!["waits for the experiment that runs on this testnet".to_owned()];
        if let Err(error) = self.write(status).await {
            tracing::warn!(experiment = self.name, %error, "cannot write the status");
        }
    }

    /// Writes the verdict, however long that takes, unless the object is gone.
    pub async fn finish(&self, end: &End, cancel: &CancellationToken) {
        let status = self.ended(end);
        loop {
            match self.write(status.clone()).await {
                Ok(()) | Err(WriteError::Gone) => return,
                Err(error) => tracing::warn!(experiment = self.name, %error, "cannot write the verdict"),
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    fn ended(&self, end: &End) -> ExperimentStatus {
        let verdict = &end.verdict;
        let mut status = self.kept().status.clone();
        let is_passed = verdict.phase == Phase::Passed;
        let reasons = match verdict.reasons.as_slice() {
            [] if is_passed => "every expectation was met, every fault was proven".to_owned(),
            reasons => reasons.join("\n"),
        };
        status.phase = Some(verdict.phase.as_str().to_owned());
        status.reasons.clone_from(&verdict.reasons);
        status.started_at.get_or_insert_with(time::now);
        status.finished_at = Some(time::now());
        status.expectations = verdict.expectations.iter().map(expectation).collect();
        status.faults = self.faults();
        status.fault_summary = summary(&status.faults);
        status.summary.clone_from(&end.summary);
        status.outcome.clone_from(&end.outcome);
        status.state = None;
        let phase = verdict.phase.as_str();
        let generation = self.generation;
        let complete = condition("Complete", true, phase, reasons.clone(), generation);
        set_condition(&mut status.conditions, complete);
        set_condition(&mut status.conditions, condition("Passed", is_passed, phase, reasons, generation));
        status
    }

    fn faults(&self) -> Vec<FaultStatus> {
        let seen = self.session.faults.watch();
        let faults = seen.borrow();
        faults.iter().filter(|fault| fault.owner == self.name).map(fault_status).collect()
    }
}

#[async_trait]
impl session::experiment::Journal for Journal {
    async fn save(&mut self, state: &State, acts: bool) -> Result<bool> {
        let mut status = self.kept().status.clone();
        let before = status.clone();
        status.phase = Some(state.phase().as_str().to_owned());
        status.observed_generation = self.generation;
        status.reasons.clear();
        status.started_at.get_or_insert_with(|| time::of_unix_ms(state.started_ms()));
        status.faults = self.faults();
        status.fault_summary = summary(&status.faults);
        set_condition(
            &mut status.conditions,
            condition("Accepted", true, "Valid", "the spec is valid", self.generation),
        );
        set_condition(
            &mut status.conditions,
            condition("Complete", false, "Running", "it runs", self.generation),
        );
        // A verdict is written with what belongs to it.
        if state.phase().is_final() {
            return Ok(true);
        }
        let is_news = status.phase != before.phase || status.fault_summary != before.fault_summary;
        if !acts && !is_news && Instant::now() < self.kept().next {
            return Ok(true);
        }
        status.state =
            Some(serde_json::to_string(state).context("cannot write the experiment's state as JSON")?);
        match self.write(status).await {
            Ok(()) => Ok(true),
            // Nobody wants it any more: what it did is healed.
            Err(WriteError::Gone) => Err(WriteError::Gone.into()),
            Err(WriteError::Failed(error)) => {
                tracing::warn!(experiment = self.name, error, acts, "cannot keep the state");
                Ok(false)
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the Experiment object is gone")]
    Gone,
    #[error("{0}")]
    Failed(String),
}

fn expectation(result: &ExpectationResult) -> ExpectationStatus {
    ExpectationStatus {
        text: result.text.clone(),
        outcome: format!("{:?}", result.outcome),
        detail: result.detail.clone(),
        measured_ms: result.measured_ms.and_then(|ms| i64::try_from(ms).ok()),
    }
}

fn fault_status(fault: &Fault) -> FaultStatus {
    FaultStatus {
        id: fault.name.clone(),
        state: fault.state().to_owned(),
        links: fault.links() as i64,
        dropped: fault.dropped() as i64,
        evidence: fault.proof_text(),
        applied_at: fault.applied_at_ms.map(time::of_unix_ms),
        healed_at: fault.healed_at_ms.map(time::of_unix_ms),
    }
}

/// `split proven`, for a column.
fn summary(faults: &[FaultStatus]) -> Option<String> {
    const SHOWN: usize = 3;
    let one = |fault: &FaultStatus| format!("{} {}", fault.id, fault.state);
    let mut texts: Vec<String> = faults.iter().take(SHOWN).map(one).collect();
    if faults.len() > SHOWN {
        texts.push(format!("and {} more", faults.len() - SHOWN));
    }
    (!texts.is_empty()).then(|| texts.join(", "))
}
