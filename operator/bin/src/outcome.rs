//! What an experiment ends with: the document that `netsplit run --json` prints.

use anyhow::{Context as _, Result};
use netsplit_plan::experiment::{Outcome, TimelineEvent, Verdict};
use netsplit_proto::control::ExperimentEvent;
use netsplit_spec::Links;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::table;

/// Heights in a slim outcome: some 60 KiB.
const SLIM_HEIGHTS: usize = 10_000;
/// Links in it, over all moments: some 200 KiB.
const SLIM_LINKS: usize = 1_200;

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
    /// Links asked for and measured: before the first fault, under each set of faults, and after the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkSnapshot>,
    #[serde(default, skip_serializing_if = "Series::is_empty")]
    pub series: Series,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultOutcome {
    pub id: String,
    /// Which links, and what is done to them, in words.
    #[serde(default)]
    pub description: String,
    /// Milliseconds since the run's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed_at_ms: Option<u64>,
    /// Directed links that it cuts or changes.
    pub links: u64,
    /// Nodes that it is done to, instead of links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
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

/// What was seen over the time of the run; bounded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    pub points: Vec<Point>,
}

impl Series {
    fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Milliseconds since the run's start.
    pub at_ms: u64,
    /// In the order of `nodes`.
    pub final_heights: Vec<u64>,
    /// Transfers of the load that are final, since its own start.
    pub committed: Option<u64>,
    /// From submit to final, milliseconds: the mean of those that became final since the point before.
    pub latency_ms: Option<f64>,
}

/// All links that were measured at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkSnapshot {
    pub moment: String,
    /// Milliseconds since the run's start.
    pub at_ms: u64,
    pub links: Vec<LinkOutcome>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkOutcome {
    pub from: String,
    pub to: String,
    pub asked: Links,
    /// One way, without jitter.
    pub measured_ms: Option<f64>,
    pub lost_percent: Option<f64>,
    /// Of those that came; absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicated_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reordered_percent: Option<f64>,
    /// Bits a second that it lets through; absent where it has no rate that can be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// What contradicts `asked`, or why nothing shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
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
    /// Whether its figures of load are of a chain that checks no signature.
    pub fn is_load_unchecked(&self) -> bool {
        self.load.as_ref().is_some_and(|load| load.get("signaturesChecked") == Some(&Value::Bool(false)))
    }

    /// Small enough for an object of Kubernetes: few points, and of very many links some, those that are not as asked first.
    pub fn slim(&self) -> Self {
        let heights = self.series.points.len() * self.nodes.len().max(1);
        let step = heights.div_ceil(SLIM_HEIGHTS).max(1);
        let points = self.series.points.iter().step_by(step).cloned().collect();
        let most = SLIM_LINKS / self.links.len().max(1);
        let snapshot = |snapshot: &LinkSnapshot| {
            let mut links = snapshot.links.clone();
            if links.len() > most {
                links.sort_by_key(|link| link.problem.is_none());
                links.truncate(most);
            }
            LinkSnapshot { links, ..snapshot.clone() }
        };
        let links = self.links.iter().map(snapshot).collect();
        Self { series: Series { points }, links, ..self.clone() }
    }

    /// The document of `--json`: without what only the report has.
    pub fn brief(&self) -> Self {
        Self { series: Series::default(), links: Vec::new(), ..self.clone() }
    }

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
                let links = if fault.nodes.is_empty() { fault.links.to_string() } else { "-".to_owned() };
                vec![fault.id.clone(), links, proven.to_owned(), fault.evidence.clone()]
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
            let unchecked = if self.is_load_unchecked() { ", no signature is checked" } else { "" };
            let line = format!(
                "load since the start: {:.0} transfers final of {:.0} accepted ({:.0}/s), submit to final p50 {:.0} ms, p99 {:.0} ms{unchecked}\n\n",
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

/// Runs for the tests of what is made of them.
#[cfg(test)]
pub mod sample {
    use netsplit_plan::experiment::{ExpectationResult, Phase, TimelineKind};

    use super::*;

    fn expectation(text: &str, outcome: Outcome, detail: &str) -> ExpectationResult {
        ExpectationResult {
            text: text.to_owned(),
            outcome,
            detail: detail.to_owned(),
            measured_ms: Some(412),
        }
    }

    /// A split for 10 s of four nodes, half a minute long.
    pub fn passed() -> RunOutcome {
        let link = |from: &str, to: &str| LinkOutcome {
            from: from.to_owned(),
            to: to.to_owned(),
            asked: Links { latency: Some(std::time::Duration::from_millis(20)), ..Links::default() },
            measured_ms: Some(20.06),
            lost_percent: Some(0.0),
            duplicated_percent: None,
            reordered_percent: None,
            rate: None,
            problem: None,
        };
        let point = |n: u64| Point {
            at_ms: n * 250,
            final_heights: vec![n.min(20) + n.saturating_sub(60), n.min(20) + n.saturating_sub(61)],
            committed: Some(n.min(20) * 25 + n.saturating_sub(60) * 25),
            latency_ms: (!(20..60).contains(&n)).then_some(180.0),
        };
        RunOutcome {
            experiment: "split-brain".to_owned(),
            testnet: "quickstart".to_owned(),
            started_ms: 1_800_000_000_000,
            verdict: Verdict {
                phase: Phase::Passed,
                expectations: vec![
                    expectation("stall within 5s", Outcome::Passed, "no block was final for 15.2 s"),
                    expectation("recover within 10s", Outcome::Passed, "every node after 0.41 s"),
                ],
                reasons: Vec::new(),
                lasted_ms: 30_000,
            },
            faults: vec![FaultOutcome {
                id: "split".to_owned(),
                description: "a -> b; b -> a".to_owned(),
                applied_at_ms: Some(5_000),
                healed_at_ms: Some(15_000),
                links: 2,
                nodes: Vec::new(),
                dropped: 1_000,
                proven: true,
                evidence: "1000 packets dropped, 600 probes sent and none arrived".to_owned(),
            }],
            nodes: ["a", "b"]
                .map(|name| NodeOutcome {
                    name: name.to_owned(),
                    final_height: 80,
                    final_id: "c0ffee".to_owned(),
                })
                .to_vec(),
            load: None,
            timeline: vec![TimelineEvent {
                at_ms: 5_000,
                kind: TimelineKind::FaultApplied,
                text: "split applied".to_owned(),
            }],
            links: vec![LinkSnapshot {
                moment: "before the first fault".to_owned(),
                at_ms: 4_900,
                links: vec![link("a", "b"), link("b", "a")],
            }],
            series: Series { points: (0..120).map(point).collect() },
        }
    }

    pub fn failed() -> RunOutcome {
        let mut outcome = passed();
        outcome.verdict.phase = Phase::Failed;
        outcome.verdict.expectations[1] =
            expectation("recover within 10s", Outcome::Failed, "no new final block within 10 s");
        outcome.verdict.reasons.push("recover within 10s: no new final block within 10 s".to_owned());
        outcome
    }
}
