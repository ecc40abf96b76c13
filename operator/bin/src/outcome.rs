//! What an experiment ends with: the document that `netsplit run --json` prints.

use anyhow::{Context as _, Result};
use netsplit_plan::experiment::{Outcome, TimelineEvent, Verdict};
use netsplit_proto::control::ExperimentEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::table;

/// Keys are stable: add, never rename.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOutcome {
    pub experiment: String,
    pub testnet: String,
    /// Unix time, milliseconds; `atMs` of the timeline counts from here.
    pub started_ms: u64,
    pub verdict: Verdict,
    pub faults: Vec<FaultOutcome>,
    pub nodes: Vec<NodeOutcome>,
    /// Figures of the testnet's load while the experiment ran; absent without load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Value>,
    pub timeline: Vec<TimelineEvent>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultOutcome {
    pub id: String,
    pub links: u64,
    pub dropped: u64,
    pub proven: bool,
    pub evidence: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOutcome {
    pub name: String,
    pub final_height: u64,
    pub final_id: String,
}

/// A line of the story as a follower is told.
pub fn to_event(event: &TimelineEvent) -> Result<ExperimentEvent> {
    let kind = serde_json::to_value(event.kind).context("cannot write an event as JSON")?;
    Ok(ExperimentEvent {
        at_ms: event.at_ms,
        kind: kind.as_str().unwrap_or_default().to_owned(),
        text: event.text.clone(),
        verdict: String::new(),
    })
}

impl RunOutcome {
    /// The summary that a person reads at the end.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        if !self.verdict.expectations.is_empty() {
            let row = |result: &netsplit_plan::experiment::ExpectationResult| {
                vec![result.text.clone(), word(result.outcome).to_owned(), result.detail.clone()]
            };
            let rows: Vec<Vec<String>> = self.verdict.expectations.iter().map(row).collect();
            out += &table::render(&["EXPECTED", "RESULT", "SEEN"], &rows);
            out.push('\n');
        }
        if !self.faults.is_empty() {
            let row = |fault: &FaultOutcome| {
                let proven = if fault.proven { "yes" } else { "NO" };
                vec![fault.id.clone(), fault.links.to_string(), proven.to_owned(), fault.evidence.clone()]
            };
            let rows: Vec<Vec<String>> = self.faults.iter().map(row).collect();
            out += &table::render(&["FAULT", ">LINKS", "PROVEN", "EVIDENCE"], &rows);
            out.push('\n');
        }
        if !self.nodes.is_empty() {
            let row = |node: &NodeOutcome| {
                let id: String = node.final_id.chars().take(12).collect();
                vec![node.name.clone(), node.final_height.to_string(), id]
            };
            let rows: Vec<Vec<String>> = self.nodes.iter().map(row).collect();
            out += &table::render(&["NODE", ">FINAL", "BLOCK"], &rows);
            out.push('\n');
        }
        if let Some(load) = &self.load {
            let number = |path: &str| load.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
            let line = format!(
                "load since the start: {:.0} transfers final of {:.0} accepted ({:.0}/s), submit to final p50 {:.0} ms, p99 {:.0} ms\n\n",
                number("/committed"),
                number("/accepted"),
                number("/committedPerSecond"),
                number("/latency/p50Ms"),
                number("/latency/p99Ms"),
            );
            out.push_str(&line);
        }
        for reason in &self.verdict.reasons {
            out.push_str(reason);
            out.push('\n');
        }
        let phase = self.verdict.phase.as_str().to_uppercase();
        let seconds = self.verdict.lasted_ms as f64 / 1000.0;
        out + &format!("{phase}  {} in {seconds:.1} s\n", self.experiment)
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Invalid => "invalid",
        Outcome::NotJudged => "not judged",
    }
}
