//! What an object asks of which testnet, and whether it may begin.

use std::sync::Arc;

use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use netsplit_spec::{
    ValidExperiment,
    crd::{Experiment, ExperimentStatus},
};

use crate::{
    operator::fleet::{Fleet, Followed, Guarded, Key},
    session::Session,
};

/// An experiment that can run now.
pub struct Ready {
    pub object: ObjectRef<Guarded<Experiment>>,
    pub experiment: Experiment,
    pub uid: String,
    pub testnet: Key,
    pub session: Arc<Session>,
    pub valid: ValidExperiment,
    pub status: ExperimentStatus,
}

/// Why an experiment does not run.
pub enum Refused {
    /// A sentence; it may run later.
    Waits(String),
    /// Sentences; not unless it is changed.
    Invalid(Vec<String>),
}

pub fn validate(
    object: &Guarded<Experiment>,
    experiments: &Store<Guarded<Experiment>>,
    fleet: &Fleet,
) -> Result<Ready, Refused> {
    let experiment = object
        .0
        .as_ref()
        .map_err(|error| Refused::Invalid(vec![format!("the object cannot be read: {error}")]))?;
    let sentences = |problems: netsplit_spec::Problems| {
        let sentence = |problem: &netsplit_spec::Problem| format!("{}: {}", problem.path, problem.message);
        Refused::Invalid(problems.iter().map(sentence).collect())
    };
    let spec = experiment.read().map_err(sentences)?;
    let namespace = experiment.namespace().unwrap_or_default();
    let testnet: Key = (namespace, spec.testnet.clone());
    let Some(Followed { session, .. }) = fleet.testnet(&testnet) else {
        let why = format!("waits for testnet {}, which is not there or not valid", spec.testnet);
        return Err(Refused::Waits(why));
    };
    let valid = netsplit_spec::validate(&spec, &session.spec).map_err(sentences)?;
    let status = experiment.status.clone().unwrap_or_default();
    let has_begun = status.started_at.is_some();
    // Who has begun goes first; the session keeps the others in turn.
    if !has_begun
        && !valid.expect.is_empty()
        && let Some(other) = unfinished(experiment, experiments)
    {
        return Err(Refused::Waits(format!("waits for experiment {other}, which runs on this testnet")));
    }
    Ok(Ready {
        object: ObjectRef::from_obj(object),
        uid: experiment.uid().unwrap_or_default(),
        experiment: experiment.clone(),
        testnet,
        session,
        valid,
        status,
    })
}

/// Another experiment on the same testnet that has begun, expects something and is not over.
fn unfinished(of: &Experiment, experiments: &Store<Guarded<Experiment>>) -> Option<String> {
    let found = experiments.find(|object| {
        object.0.as_ref().is_ok_and(|other| {
            let status = other.status.clone().unwrap_or_default();
            other.namespace() == of.namespace()
                && other.spec.testnet == of.spec.testnet
                && other.uid() != of.uid()
                && other.metadata.deletion_timestamp.is_none()
                && !other.spec.expect.is_empty()
                && status.started_at.is_some()
                && status.finished_at.is_none()
        })
    })?;
    Some(found.name_any())
}
