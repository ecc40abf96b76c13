//! What an Experiment's status tells, as the story of a run.

use anyhow::{Context as _, Result};
use netsplit_plan::experiment::{ExpectationResult, Outcome, Phase, State, TimelineEvent, Verdict};
use netsplit_proto::control::ExperimentEvent;
use netsplit_spec::crd::{Experiment, ExperimentStatus};

use super::state::of_rfc3339;
use crate::{
    outcome::{FaultOutcome, RunOutcome, Series, to_event},
    problem::Usage,
};

/// Tells of each state of an object what was not told yet.
#[derive(Debug, Default)]
pub struct Follower {
    /// How many events of the timeline were told.
    events: usize,
    waits: Vec<String>,
}

impl Follower {
    /// The last event carries the verdict. Fails if the operator refuses the experiment.
    pub fn see(&mut self, object: &Experiment) -> Result<Vec<ExperimentEvent>> {
        let Some(status) = &object.status else { return Ok(Vec::new()) };
        if status.finished_at.is_some() {
            return self.end(object, status);
        }
        match status.phase.as_deref() {
            Some("Invalid") => Err(Usage(status.reasons.join("\n")).into()),
            Some("Waiting") => Ok(self.wait(&status.reasons)),
            _ => self.go_on(status),
        }
    }

    fn wait(&mut self, reasons: &[String]) -> Vec<ExperimentEvent> {
        if self.waits == reasons {
            return Vec::new();
        }
        self.waits = reasons.to_vec();
        let note = |text: &String| ExperimentEvent {
            kind: "note".to_owned(),
            text: text.clone(),
            ..ExperimentEvent::default()
        };
        reasons.iter().map(note).collect()
    }

    /// Of another version's state nothing is told but its end.
    fn go_on(&mut self, status: &ExperimentStatus) -> Result<Vec<ExperimentEvent>> {
        let state = status.state.as_deref().and_then(|state| serde_json::from_str::<State>(state).ok());
        let Some(state) = state else { return Ok(Vec::new()) };
        let since = state.started_ms();
        let timeline = state.timeline().iter();
        let timeline: Vec<_> = timeline
            .map(|event| TimelineEvent { at_ms: event.at_ms.saturating_sub(since), ..event.clone() })
            .collect();
        self.tell(&timeline)
    }

    fn tell(&mut self, timeline: &[TimelineEvent]) -> Result<Vec<ExperimentEvent>> {
        let fresh = timeline.get(self.events..).unwrap_or_default();
        self.events = self.events.max(timeline.len());
        fresh.iter().map(to_event).collect()
    }

    fn end(&mut self, object: &Experiment, status: &ExperimentStatus) -> Result<Vec<ExperimentEvent>> {
        let outcome = match &status.outcome {
            Some(outcome) => {
                serde_json::from_str(outcome).context("the outcome in the status is malformed")?
            }
            None => without_outcome(object, status),
        };
        let mut events = self.tell(&outcome.timeline)?;
        events.push(ExperimentEvent {
            at_ms: outcome.verdict.lasted_ms,
            kind: "verdict".to_owned(),
            text: String::new(),
            verdict: serde_json::to_string(&outcome).context("cannot write the verdict as JSON")?,
        });
        Ok(events)
    }
}

/// What ended before it could begin has a status and nothing else.
fn without_outcome(object: &Experiment, status: &ExperimentStatus) -> RunOutcome {
    let time = |time: &Option<String>| time.as_deref().map_or(0, of_rfc3339);
    let (started_ms, finished_ms) = (time(&status.started_at), time(&status.finished_at));
    let expectation = |seen: &netsplit_spec::crd::ExpectationStatus| ExpectationResult {
        text: seen.text.clone(),
        outcome: match seen.outcome.as_str() {
            "Passed" => Outcome::Passed,
            "Failed" => Outcome::Failed,
            "Invalid" => Outcome::Invalid,
            _ => Outcome::NotJudged,
        },
        detail: seen.detail.clone(),
        measured_ms: seen.measured_ms.map(i64::unsigned_abs),
    };
    let fault = |fault: &netsplit_spec::crd::FaultStatus| FaultOutcome {
        id: fault.id.clone(),
        description: String::new(),
        applied_at_ms: fault.applied_at.as_deref().map(|at| of_rfc3339(at).saturating_sub(started_ms)),
        healed_at_ms: fault.healed_at.as_deref().map(|at| of_rfc3339(at).saturating_sub(started_ms)),
        links: fault.links.unsigned_abs(),
        nodes: Vec::new(),
        dropped: fault.dropped.unsigned_abs(),
        // Only an outcome says so of a fault that is over.
        proven: fault.state == "proven",
        evidence: fault.evidence.clone(),
    };
    RunOutcome {
        experiment: object.metadata.name.clone().unwrap_or_default(),
        testnet: object.spec.testnet.clone(),
        started_ms,
        verdict: Verdict {
            phase: match status.phase.as_deref() {
                Some("Passed") => Phase::Passed,
                Some("Failed") => Phase::Failed,
                Some("Aborted") => Phase::Aborted,
                _ => Phase::Invalid,
            },
            expectations: status.expectations.iter().map(expectation).collect(),
            reasons: status.reasons.clone(),
            lasted_ms: finished_ms.saturating_sub(started_ms),
        },
        faults: status.faults.iter().map(fault).collect(),
        nodes: Vec::new(),
        load: None,
        timeline: Vec::new(),
        links: Vec::new(),
        series: Series::default(),
    }
}

#[cfg(test)]
mod tests {
    use netsplit_plan::experiment::TimelineKind;

    use super::*;

    fn object(status: &serde_json::Value) -> Experiment {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "netsplit.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": { "name": "one" },
            "spec": { "testnet": "net", "expect": [{ "agreement": {} }] },
            "status": status,
        }))
        .unwrap()
    }

    fn outcome(events: usize) -> RunOutcome {
        let event = |n: usize| TimelineEvent {
            at_ms: n as u64,
            kind: TimelineKind::Phase,
            text: format!("event {n}"),
        };
        let status = ExperimentStatus { phase: Some("Passed".to_owned()), ..ExperimentStatus::default() };
        RunOutcome {
            timeline: (0..events).map(event).collect(),
            ..without_outcome(&object(&serde_json::json!({})), &status)
        }
    }

    #[test]
    fn the_story_is_told_once_and_ends_with_the_verdict() {
        let mut follower = Follower::default();
        assert!(follower.see(&object(&serde_json::Value::Null)).unwrap().is_empty());
        let waits = object(&serde_json::json!({ "phase": "Waiting", "reasons": ["waits for testnet net"] }));
        assert_eq!(follower.see(&waits).unwrap()[0].text, "waits for testnet net");
        assert!(follower.see(&waits).unwrap().is_empty(), "told already");
        assert_eq!(follower.tell(&outcome(2).timeline).unwrap().len(), 2);
        let text = serde_json::to_string(&outcome(3)).unwrap();
        let ended = object(
            &serde_json::json!({ "phase": "Passed", "finishedAt": "2026-01-01T00:00:05Z", "outcome": text }),
        );
        let events = follower.see(&ended).unwrap();
        let [third, verdict] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((third.kind.as_str(), third.text.as_str()), ("phase", "event 2"));
        let told: RunOutcome = serde_json::from_str(&verdict.verdict).unwrap();
        assert_eq!((told.verdict.phase, told.timeline.len()), (Phase::Passed, 3));
    }

    #[test]
    fn what_the_operator_refuses_is_the_callers_mistake() {
        let refused = object(&serde_json::json!({ "phase": "Invalid", "reasons": ["no node is called so"] }));
        let error = Follower::default().see(&refused).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string() == "no node is called so", "{error}");
        // One that ran and proved nothing has a verdict.
        let ended = object(&serde_json::json!({
            "phase": "Invalid", "reasons": ["it broke off"], "startedAt": "2026-01-01T00:00:05Z",
            "finishedAt": "2026-01-01T00:00:07.500Z",
        }));
        let events = Follower::default().see(&ended).unwrap();
        let told: RunOutcome = serde_json::from_str(&events[0].verdict).unwrap();
        assert_eq!((told.verdict.phase, told.verdict.lasted_ms), (Phase::Invalid, 2_500));
    }
}
