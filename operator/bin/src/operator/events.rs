//! What people are told of an object, as its events.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// What is told again within this time is counted, and is no new event.
const SAME_EVENT_WITHIN: Duration = Duration::from_mins(6);

pub struct Events {
    client: Client,
    reporter: Reporter,
    /// By note, and when each was last needed. A recorder takes all that has one reason and is about one object for one event,
    /// and keeps the first note only: what has another note needs another recorder.
    recorders: Mutex<HashMap<String, (Instant, Recorder)>>,
}

impl Events {
    /// Told by that operator.
    pub fn new(client: Client, pod: String) -> Self {
        let reporter = Reporter { controller: "netsplit-operator".to_owned(), instance: Some(pod) };
        Self { client, reporter, recorders: Mutex::default() }
    }

    /// Failing to is logged only.
    pub async fn tell(&self, object: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let note = if note.len() > 1_000 { note.chars().take(900).collect() } else { note };
        let recorder = self.recorder(&note);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, object).await {
            tracing::warn!(%error, reason, "cannot publish an event");
        }
    }

    fn recorder(&self, note: &str) -> Recorder {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|_, (needed, _)| needed.elapsed() < SAME_EVENT_WITHIN);
        let new = || Recorder::new(self.client.clone(), self.reporter.clone());
        let (needed, recorder) = recorders.entry(note.to_owned()).or_insert_with(|| (Instant::now(), new()));
        *needed = Instant::now();
        recorder.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Method, Request, Response};
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn what_differs_in_its_note_only_is_another_event() {
        let written: Arc<Mutex<Vec<Method>>> = Arc::default();
        let seen = Arc::clone(&written);
        // An API server that takes whatever it is given.
        let answer = move |request: Request<Body>| {
            seen.lock().unwrap().push(request.method().clone());
            async { Ok::<_, Infallible>(Response::new(Body::from(br#"{"metadata":{"name":"e"}}"#.to_vec()))) }
        };
        let events = Events::new(Client::new(tower::service_fn(answer), "n"), "operator-0".to_owned());
        let object = ObjectReference { name: Some("net".to_owned()), ..ObjectReference::default() };
        for note in ["the Service was changed", "the ConfigMap was changed", "the Service was changed"] {
            events.tell(&object, EventType::Warning, "PutBack", note.to_owned()).await;
        }
        assert_eq!(*written.lock().unwrap(), [Method::POST, Method::POST, Method::PATCH]);
    }
}
