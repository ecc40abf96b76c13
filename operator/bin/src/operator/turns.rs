//! What both controllers have alike: a turn for each object that changed, counted, timed and tried again when it failed.

use std::{fmt, future::Future, sync::Arc};

use futures::StreamExt as _;
use kube::{
    Resource,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use netsplit_spec::crd::Experiment;
use serde::de::DeserializeOwned;

use super::{context::Context, fleet::Guarded};

/// What every turn is given.
pub struct Shared {
    pub context: Arc<Context>,
    pub experiments: Store<Guarded<Experiment>>,
}

/// Runs until it is dropped. `kind` is what metrics and the log call the objects.
pub async fn run<K, E, F>(
    kind: &'static str,
    controller: Controller<Guarded<K>>,
    shared: Shared,
    reconcile: impl Fn(Arc<Guarded<K>>, Arc<Shared>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
    E: std::error::Error + Send + 'static,
    F: Future<Output = Result<Action, E>> + Send + 'static,
{
    let turn = |object: Arc<Guarded<K>>, shared: Arc<Shared>| {
        let key = ObjectRef::from_obj(&*object).to_string();
        let turn = reconcile(object, Arc::clone(&shared));
        async move {
            let _timer = shared.context.metrics.reconcile_seconds.with_label_values(&[kind]).start_timer();
            let action = turn.await?;
            shared.context.succeeded(kind, &key);
            Ok(action)
        }
    };
    let on_error = |object: Arc<Guarded<K>>, error: &E, shared: Arc<Shared>| {
        let key = ObjectRef::from_obj(&*object).to_string();
        tracing::warn!(kind, object = key, %error, "could not be reconciled");
        shared.context.failed(kind, &key)
    };
    controller
        .run(turn, on_error, Arc::new(shared))
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, kind, "a turn");
            }
        })
        .await;
}
