//! Testnets: from the object to what runs, in steps.
//!
//! [`validate`] (fallible, asks nobody), [`build`] (asks nobody), [`apply`] (server-side), [`status`] (of what was
//! applied, for as long as it is followed).

mod apply;
mod build;
mod load;
mod status;
mod validate;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Secret, Service},
};
use kube::{
    Resource as _, ResourceExt as _,
    runtime::{Controller, controller::Action, events::EventType, reflector::Store, watcher},
};
use netsplit_backend::{BackendError, kubernetes::TESTNET_LABEL};
use netsplit_spec::crd::{Experiment, Testnet, TestnetStatus, set_condition};

pub use self::status::Facts;
use super::{
    context::{Context, Written, condition, write_status},
    fleet::Guarded,
    turns::{self, Shared},
};

/// What was applied is applied again after this, should somebody have changed it unseen.
const APPLY_AGAIN: Duration = Duration::from_mins(10);

/// Why a testnet could not be reconciled; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error("{0:#}")]
    Session(#[from] anyhow::Error),
    #[error("cannot list the experiments: {0}")]
    Experiments(#[source] kube::Error),
    #[error("cannot write the status: {0}")]
    Status(#[source] kube::Error),
}

/// Runs until it is dropped.
pub async fn controller(context: &Arc<Context>, experiments: Store<Guarded<Experiment>>) {
    let ours = || watcher::Config::default().labels(TESTNET_LABEL);
    let controller = Controller::new(context.watched::<Guarded<Testnet>>(), watcher::Config::default())
        .owns(context.watched::<StatefulSet>(), ours())
        .owns(context.watched::<Service>(), ours())
        .owns(context.watched::<ConfigMap>(), ours())
        .owns(context.watched::<Secret>(), ours());
    context.fleet.watch_objects(controller.store(), experiments.clone());
    let shared = Shared { context: Arc::clone(context), experiments };
    turns::run("testnet", controller, shared, reconcile).await;
}

async fn reconcile(object: Arc<Guarded<Testnet>>, shared: Arc<Shared>) -> Result<Action, Error> {
    let context = &shared.context;
    if object.meta().deletion_timestamp.is_some() {
        // What it owns goes with it; the sweep ends what follows it.
        return Ok(Action::await_change());
    }
    let valid = match validate::validate(&object) {
        Ok(valid) => valid,
        Err(problems) => {
            refuse(context, &object, problems).await?;
            return Ok(Action::await_change());
        }
    };
    let built = match build::build(&valid, context) {
        Ok(built) => built,
        Err(problem) => {
            refuse(context, &object, vec![problem]).await?;
            return Ok(Action::await_change());
        }
    };
    apply::apply(context, &valid, &built).await
}

/// Nothing can be made of the object: says why, in its status and as an event.
async fn refuse(context: &Context, object: &Guarded<Testnet>, problems: Vec<String>) -> Result<(), Error> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let key = (namespace.clone(), name.clone());
    let text = problems.join("\n");
    // A testnet that runs goes on as it was; its status says what stands in the way of the change.
    if let Some(followed) = context.fleet.testnet(&key) {
        followed.facts.send_modify(|facts| facts.refused = Some(text.clone()));
    } else {
        let old = object.0.as_ref().ok().and_then(|testnet| testnet.status.clone()).unwrap_or_default();
        let generation = object.meta().generation;
        let mut status = TestnetStatus {
            phase: Some("Invalid".to_owned()),
            observed_generation: generation,
            problem: problems.first().cloned(),
            ..old.clone()
        };
        let refused = condition("Accepted", false, "Invalid", text.clone(), generation);
        set_condition(&mut status.conditions, refused);
        let ready = condition("Ready", false, "Invalid", "the spec is not valid", generation);
        set_condition(&mut status.conditions, ready);
        if status == old {
            return Ok(());
        }
        let api = kube::Api::<Testnet>::namespaced(context.client.clone(), &namespace);
        let written = write_status(&api, &name, &object.uid().unwrap_or_default(), &status).await;
        if written.map_err(Error::Status)? == Written::Gone {
            return Ok(());
        }
    }
    context.tell(&object.object_ref(&()), EventType::Warning, "Invalid", text).await;
    Ok(())
}
