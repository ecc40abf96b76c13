//! How long this operator may write as the leader.
//!
//! A process that was held up, by a busy machine or by somebody's signal, wakes up believing that it leads. What it wrote
//! then could undo its successor's work, so every write is refused here once the Lease may have ended. Link agents need no
//! such help: they refuse tables of an earlier term.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::Request;
use kube::{Client, client::Body};

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Tenure(Arc<Mutex<Instant>>);

/// Why a write was not sent.
#[derive(Debug, thiserror::Error)]
#[error("this operator has not renewed its Lease in time: it may lead no more, and writes nothing")]
pub struct Over;

impl Tenure {
    pub fn until(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(end)))
    }

    pub fn extend(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    fn is_over(&self) -> bool {
        Instant::now() >= *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that writes during this tenure only; reading is free.
    pub fn client(&self, client: Client) -> Client {
        let tenure = self.clone();
        let namespace = client.default_namespace().to_owned();
        let send = tower::service_fn(move |request: Request<Body>| {
            let (tenure, client) = (tenure.clone(), client.clone());
            async move {
                if tenure.is_over() && !request.method().is_safe() {
                    return Err(tower::BoxError::from(Over));
                }
                Ok(client.send(request).await?)
            }
        });
        Client::new(send, namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use http::Response;
    use k8s_openapi::api::core::v1::Pod;
    use kube::{
        Api,
        api::{Patch, PatchParams},
    };

    use super::*;

    /// An API server that knows one pod and takes every change.
    fn server() -> Client {
        let answer = |_: Request<Body>| async {
            let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"it"}}"#;
            Ok::<_, Infallible>(Response::new(Body::from(pod.as_bytes().to_vec())))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn who_may_lead_no_more_reads_and_does_not_write() {
        let tenure = Tenure::until(Instant::now() + Duration::from_mins(1));
        let pods: Api<Pod> = Api::default_namespaced(tenure.client(server()));
        let write = async || {
            let patch = Patch::Merge(serde_json::json!({"metadata": {"labels": {"a": "b"}}}));
            pods.patch("it", &PatchParams::default(), &patch).await
        };
        write().await.unwrap();
        tenure.extend(Instant::now());
        let refused = write().await.unwrap_err();
        assert!(format!("{refused:?}").contains("Over"), "{refused:?}");
        pods.get("it").await.unwrap();
        tenure.extend(Instant::now() + Duration::from_mins(1));
        write().await.unwrap();
    }
}
