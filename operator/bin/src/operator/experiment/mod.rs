//! Experiments: from the object to its verdict.
//!
//! [`validate`] says what the object asks of which testnet; [`drive`] runs it in the testnet's session; [`journal`] keeps
//! its state in its status, before it acts, and says there what is seen.

mod drive;
mod journal;
mod validate;

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::{
        Controller,
        controller::Action,
        events::EventType,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use netsplit_spec::crd::{Experiment, ExperimentStatus, set_condition};

use self::validate::Refused;
use super::{
    context::{Context, Written, condition, write_status},
    fleet::Guarded,
    turns::{self, Shared},
};

/// What waits looks again this often: for its testnet, or its turn.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// And one that runs, should its task have ended without a verdict, or have been another object's.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Why an experiment's turn broke off; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write the status: {0}")]
    Status(#[source] kube::Error),
}

/// Not yet running, so that others can have its store first.
pub struct Experiments {
    controller: Controller<Guarded<Experiment>>,
    context: Arc<Context>,
}

pub fn controller(context: &Arc<Context>) -> Experiments {
    let api = context.watched::<Guarded<Experiment>>();
    let controller = Controller::new(api, watcher::Config::default());
    Experiments { controller, context: Arc::clone(context) }
}

impl Experiments {
    pub fn store(&self) -> Store<Guarded<Experiment>> {
        self.controller.store()
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        let shared = Shared { context: self.context, experiments: self.controller.store() };
        turns::run("experiment", self.controller, shared, reconcile).await;
    }
}

async fn reconcile(object: Arc<Guarded<Experiment>>, shared: Arc<Shared>) -> Result<Action, Error> {
    let context = &shared.context;
    let is_over = object.0.as_ref().is_ok_and(|experiment| {
        experiment.status.as_ref().is_some_and(|status| status.finished_at.is_some())
    });
    if is_over || object.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if context.fleet.is_running(&ObjectRef::from_obj(&*object)) {
        return Ok(Action::requeue(LOOK_AFTER));
    }
    Ok(match validate::validate(&object, &shared.experiments, &context.fleet) {
        Ok(ready) => {
            drive::start(context, ready);
            Action::await_change()
        }
        Err(Refused::Waits(why)) => {
            say(
                context,
                &object,
                Told { phase: "Waiting", reason: "Waiting", why: vec![why], accepted: true },
            )
            .await?;
            Action::requeue(LOOK_AGAIN)
        }
        Err(Refused::Invalid(why)) => {
            say(context, &object, Told { phase: "Invalid", reason: "Invalid", why, accepted: false }).await?;
            // The testnet may change, so that it fits.
            Action::requeue(Duration::from_secs(30))
        }
    })
}

/// Why an experiment does not run.
struct Told {
    phase: &'static str,
    reason: &'static str,
    why: Vec<String>,
    accepted: bool,
}

async fn say(context: &Context, object: &Guarded<Experiment>, told: Told) -> Result<(), Error> {
    let old = object.0.as_ref().ok().and_then(|experiment| experiment.status.clone()).unwrap_or_default();
    let generation = object.meta().generation;
    let text = told.why.join("\n");
    let mut status = ExperimentStatus {
        phase: Some(told.phase.to_owned()),
        observed_generation: generation,
        reasons: told.why,
        ..old.clone()
    };
    let accepted = if told.accepted {
        condition("Accepted", true, "Valid", "the spec is valid", generation)
    } else {
        condition("Accepted", false, told.reason, text.clone(), generation)
    };
    set_condition(&mut status.conditions, accepted);
    let complete = condition("Complete", false, told.reason, text.clone(), generation);
    set_condition(&mut status.conditions, complete);
    if status == old {
        return Ok(());
    }
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<Experiment>::namespaced(context.client.clone(), &namespace);
    let written = write_status(&api, &object.name_any(), &object.uid().unwrap_or_default(), &status).await;
    if written.map_err(Error::Status)? == Written::Gone {
        return Ok(());
    }
    let type_ = if told.accepted { EventType::Normal } else { EventType::Warning };
    context.tell(&object.object_ref(&()), type_, told.reason, text).await;
    Ok(())
}
