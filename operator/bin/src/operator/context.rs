//! What everything that a leader does shares.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
    },
};
use netsplit_backend::kubernetes::{TableHub, TablesAddress};
use netsplit_spec::crd::{Condition, ConditionStatus};
use serde::{Serialize, de::DeserializeOwned};

use super::{OperatorArgs, fleet::Fleet, metrics::Metrics, time};

/// First pause after an error; doubled at each that follows, up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

pub struct Context {
    pub client: Client,
    pub args: OperatorArgs,
    pub hub: Arc<TableHub>,
    pub tables: TablesAddress,
    pub metrics: Metrics,
    pub fleet: Fleet,
    recorder: Recorder,
    /// Errors in a row, by object.
    failures: Mutex<HashMap<String, u32>>,
}

impl Context {
    pub fn new(
        client: Client,
        args: OperatorArgs,
        hub: Arc<TableHub>,
        tables: TablesAddress,
        metrics: Metrics,
    ) -> Arc<Self> {
        let reporter =
            Reporter { controller: "netsplit-operator".to_owned(), instance: Some(args.pod_name.clone()) };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            args,
            hub,
            tables,
            metrics,
            fleet: Fleet::default(),
            failures: Mutex::default(),
        })
    }

    /// The objects of a kind that this operator looks after.
    pub fn watched<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match &self.args.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Tells people what happened to an object. Failing to is logged only.
    pub async fn tell(&self, object: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let note = if note.len() > 1_000 { note.chars().take(900).collect() } else { note };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::warn!(%error, reason, "cannot publish an event");
        }
    }

    pub fn succeeded(&self, kind: &str, key: &str) {
        self.metrics.reconciles.with_label_values(&[kind, "ok"]).inc();
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// When to try again what failed.
    pub fn failed(&self, kind: &str, key: &str) -> Action {
        self.metrics.reconciles.with_label_values(&[kind, "error"]).inc();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.to_owned()).or_default();
        let pause = (BACKOFF.0 * 2_u32.pow((*count).min(8))).min(BACKOFF.1);
        *count += 1;
        Action::requeue(pause.mul_f64(rand::random_range(0.75..1.25)))
    }
}

/// Replaces parts of an object's status. An object of this name that is not the one of this UID is left alone.
pub async fn patch_status<K>(api: &Api<K>, name: &str, uid: &str, status: &impl Serialize) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = serde_json::json!({ "metadata": { "uid": uid }, "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// The object is gone, or is another one of the same name.
pub fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// A condition as of now.
pub fn condition(
    type_: &str,
    status: impl Into<ConditionStatus>,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time: time::now(),
        observed_generation: generation,
    }
}
