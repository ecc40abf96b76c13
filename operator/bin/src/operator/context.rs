//! What everything that a leader does shares.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource,
    runtime::{controller::Action, events::EventType},
};
use netsplit_backend::kubernetes::{TableHub, TablesAddress};
use netsplit_spec::crd::{Condition, ConditionStatus};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{OperatorArgs, events::Events, fleet::Fleet, metrics::Metrics, time};

/// First pause after an error; doubled at each that follows, up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

pub struct Context {
    pub client: Client,
    pub args: OperatorArgs,
    pub hub: Arc<TableHub>,
    pub tables: TablesAddress,
    pub metrics: Metrics,
    pub fleet: Fleet,
    events: Events,
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
        Arc::new(Self {
            events: Events::new(client.clone(), args.pod_name.clone()),
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

    /// Tells people what happened to an object.
    pub async fn tell(&self, object: &ObjectReference, type_: EventType, reason: &str, note: String) {
        self.events.tell(object, type_, reason, note).await;
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

/// What became of a status that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    Yes,
    /// The object is gone, or is another one of the same name.
    Gone,
}

/// Replaces an object's status.
pub async fn write_status<K>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    status: &impl Serialize,
) -> kube::Result<Written>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
{
    // A merge would be asked of whatever has the name: for a status, the API server does not look at the UID in it.
    let patch = serde_json::json!([
        { "op": "test", "path": "/metadata/uid", "value": uid },
        { "op": "add", "path": "/status", "value": status },
    ]);
    let request = http::Request::patch(format!("{}/{name}/status", api.resource_url()))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(serde_json::to_vec(&patch).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    match api.clone().into_client().request::<IgnoredAny>(request).await {
        Ok(_) => Ok(Written::Yes),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Gone),
        // A test that fails and a status that is not valid have the same code.
        Err(kube::Error::Api(status)) if status.code == 422 => match api.get_metadata_opt(name).await? {
            Some(found) if found.metadata.uid.as_deref() == Some(uid) => Err(kube::Error::Api(status)),
            _ => Ok(Written::Gone),
        },
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use netsplit_spec::crd::{Experiment, ExperimentStatus};

    use super::*;

    /// An API server that refuses every write with this code, and has an object of the UID `2`.
    fn refusing(code: u16) -> Client {
        let answer = move |request: Request<Body>| async move {
            let (code, body) = if request.method() == Method::PATCH {
                let status = serde_json::json!({ "kind": "Status", "status": "Failure", "code": code });
                (code, status)
            } else {
                let meta = serde_json::json!({ "name": "e", "namespace": "n", "uid": "2" });
                (
                    200,
                    serde_json::json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta }),
                )
            };
            let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.expect("it is an answer"))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    async fn write(code: u16, uid: &str) -> kube::Result<Written> {
        let api: Api<Experiment> = Api::namespaced(refusing(code), "n");
        write_status(&api, "e", uid, &ExperimentStatus::default()).await
    }

    #[tokio::test]
    async fn another_object_of_the_same_name_is_left_alone() {
        assert_eq!(write(422, "1").await.unwrap(), Written::Gone);
        assert_eq!(write(404, "1").await.unwrap(), Written::Gone);
        // Nothing is known of an object that could not be written just now, or with that status.
        for code in [409, 422, 500] {
            assert!(write(code, "2").await.is_err(), "{code}");
        }
        assert_eq!(write(200, "2").await.unwrap(), Written::Yes);
    }
}
