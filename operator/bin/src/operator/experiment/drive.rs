//! One experiment from its beginning, or from where another operator left it, to its verdict.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Resource as _, ResourceExt as _, runtime::events::EventType};
use netsplit_plan::experiment::{Phase, State, TimelineKind, Verdict};
use netsplit_spec::crd::Experiment;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    journal::{Journal, WriteError},
    validate::Ready,
};
use crate::{
    operator::context::Context,
    outcome::RunOutcome,
    session::experiment::{Progress, run},
};

/// Events that may wait.
const PENDING_EVENTS: usize = 64;

/// Begins; the fleet keeps the task.
pub fn start(context: &Arc<Context>, ready: Ready) {
    let cancel = CancellationToken::new();
    let (uid, object, testnet) = (ready.uid.clone(), ready.object.clone(), ready.testnet.clone());
    let task = tokio::spawn(drive(Arc::clone(context), ready, cancel.clone()));
    context.fleet.put_run(uid, object, testnet, cancel, AbortOnDropHandle::new(task));
}

async fn drive(context: Arc<Context>, ready: Ready, cancel: CancellationToken) {
    let Ready { experiment, uid, session, valid, status, .. } = ready;
    let name = valid.name.clone();
    let api: Api<Experiment> =
        Api::namespaced(context.client.clone(), &experiment.namespace().unwrap_or_default());
    let reference = experiment.object_ref(&());
    let generation = experiment.metadata.generation;
    let journal = Journal::new(api, name.clone(), uid, generation, Arc::clone(&session), status.clone());
    let left = match status.state.as_deref().map(serde_json::from_str::<State>).transpose() {
        Ok(left) => left,
        Err(error) => {
            let why = format!(
                "the operator that began it was another version ({error}): delete it and apply it again"
            );
            conclude(&context, &journal, &reference, invalid(why), &cancel).await;
            return;
        }
    };
    if let Some(state) = &left {
        tracing::info!(experiment = name, since = state.started_ms(), "going on with an experiment");
        let note = "another operator began it; this one goes on".to_owned();
        context.tell(&reference, EventType::Normal, "Resumed", note).await;
    }
    let (events, mut told) = mpsc::channel(PENDING_EVENTS);
    let running = run(session, valid, left, journal.writer(), events);
    let follow = async {
        let mut outcome = None;
        loop {
            let progress = tokio::select! {
                progress = told.recv() => progress,
                () = cancel.cancelled() => None,
            };
            match progress {
                // Dropping the receiver makes the run heal what it did.
                None => break,
                Some(Progress::Waits) => journal.waits().await,
                Some(Progress::Event(event)) => {
                    tracing::info!(experiment = name, at_ms = event.at_ms, "{}", event.text);
                    if let Some((type_, reason)) = worth_an_event(event.kind) {
                        let (context, reference) = (Arc::clone(&context), reference.clone());
                        // The story must not wait for the API server.
                        tokio::spawn(
                            async move { context.tell(&reference, type_, reason, event.text).await },
                        );
                    }
                }
                Some(Progress::Ended(ended)) => outcome = Some(*ended),
            }
        }
        drop(told);
        outcome
    };
    let (ended, outcome) = tokio::join!(running, follow);
    let end = match (ended, outcome) {
        (_, Some(outcome)) => End::of(outcome),
        (Err(error), None) if !matches!(error.downcast_ref(), Some(WriteError::Gone)) => {
            invalid(format!("the experiment broke off: {error:#}"))
        }
        // It was taken away, and has healed.
        (_, None) => End {
            verdict: Verdict {
                phase: Phase::Aborted,
                expectations: Vec::new(),
                reasons: vec!["it was ended before its verdict".to_owned()],
                lasted_ms: 0,
            },
            summary: None,
            outcome: None,
        },
    };
    conclude(&context, &journal, &reference, end, &cancel).await;
}

/// What is written at the end.
pub struct End {
    pub verdict: Verdict,
    pub summary: Option<String>,
    /// The whole, as JSON.
    pub outcome: Option<String>,
}

impl End {
    fn of(outcome: RunOutcome) -> Self {
        let json = serde_json::to_string(&outcome.slim())
            .inspect_err(|error| tracing::error!(%error, "cannot write the outcome as JSON"));
        Self { summary: Some(outcome.summary()), outcome: json.ok(), verdict: outcome.verdict }
    }
}

fn invalid(why: String) -> End {
    let verdict =
        Verdict { phase: Phase::Invalid, expectations: Vec::new(), reasons: vec![why], lasted_ms: 0 };
    End { verdict, summary: None, outcome: None }
}

async fn conclude(
    context: &Context,
    journal: &Journal,
    reference: &ObjectReference,
    end: End,
    cancel: &CancellationToken,
) {
    let phase = end.verdict.phase;
    context.metrics.verdicts.with_label_values(&[phase.as_str()]).inc();
    journal.finish(&end, cancel).await;
    let type_ = if phase == Phase::Passed { EventType::Normal } else { EventType::Warning };
    let note =
        if end.verdict.reasons.is_empty() { phase.to_string() } else { end.verdict.reasons.join("\n") };
    context.tell(reference, type_, phase.as_str(), note).await;
}

fn worth_an_event(kind: TimelineKind) -> Option<(EventType, &'static str)> {
    Some(match kind {
        TimelineKind::Phase => (EventType::Normal, "Phase"),
        TimelineKind::FaultApplied => (EventType::Normal, "FaultApplied"),
        TimelineKind::FaultProven => (EventType::Normal, "FaultProven"),
        TimelineKind::FaultHealed => (EventType::Normal, "FaultHealed"),
        TimelineKind::FaultViolated => (EventType::Warning, "FaultViolated"),
        TimelineKind::Fork => (EventType::Warning, "Fork"),
        TimelineKind::NodeDown => (EventType::Warning, "NodeDown"),
        TimelineKind::HostOverloaded => (EventType::Warning, "HostOverloaded"),
        _ => return None,
    })
}
