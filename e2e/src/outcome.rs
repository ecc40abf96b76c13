//! What `netsplit run --json` and `netsplit status --json` promise. A key that is missing fails the test that reads it.

use serde::Deserialize;

/// The answer of `netsplit run --json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub experiment: String,
    pub testnet: String,
    pub verdict: Verdict,
    pub faults: Vec<FaultOutcome>,
    pub nodes: Vec<NodeOutcome>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub phase: String,
    pub expectations: Vec<Expectation>,
    pub reasons: Vec<String>,
    pub lasted_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    pub text: String,
    pub outcome: String,
    pub detail: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultOutcome {
    pub id: String,
    pub links: u64,
    pub dropped: u64,
    pub proven: bool,
    pub evidence: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOutcome {
    pub name: String,
    pub final_height: u64,
    pub final_id: String,
}

impl Outcome {
    /// Whether any expectation or reason says that the machine, not the chain, was to blame.
    pub fn blames_host(&self) -> bool {
        let details = self.verdict.expectations.iter().map(|expectation| &expectation.detail);
        details.chain(&self.verdict.reasons).any(|text| text.contains("host overloaded"))
    }

    /// All that the verdict says, for an assertion on its words.
    pub fn words(&self) -> String {
        let of = |e: &Expectation| format!("{}: {}, {}", e.text, e.outcome, e.detail);
        let lines = self.verdict.expectations.iter().map(of).chain(self.verdict.reasons.iter().cloned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The answer of `netsplit status --json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub name: String,
    pub state: String,
    pub nodes: Vec<NodeStatus>,
    pub faults: Vec<ActiveFault>,
    /// Of the testnet's spec; none when it has none.
    pub load: Option<LoadStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub name: String,
    pub role: String,
    pub state: String,
    pub pid: i32,
    pub address: String,
    pub height: u64,
    pub final_height: u64,
    pub peers: u32,
    /// Its gRPC API on this machine.
    pub api: String,
    /// Its metrics and health, as [`Self::api`].
    pub http: String,
}

/// A load so far.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadStatus {
    pub seconds: f64,
    pub offered: u64,
    pub committed: u64,
    pub committed_per_second: f64,
    pub latency_ms: LatencyStatus,
}

/// From submit to final, in milliseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct LatencyStatus {
    pub p50: f64,
    pub p99: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveFault {
    pub id: String,
    pub state: String,
    pub links: u64,
    pub dropped: u64,
}

/// One link of the answer of `netsplit links --json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub from: String,
    pub to: String,
    /// In the words of the YAML.
    pub asked: serde_json::Value,
    /// None: nobody measures it.
    pub measured: Option<MeasuredLink>,
    pub as_asked: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredLink {
    pub latency_ms: Option<f64>,
    /// Of the nodes' packets.
    pub lost: u64,
}

impl Status {
    pub fn node(&self, name: &str) -> &NodeStatus {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("no node {name} in {self:?}"))
    }

    /// The highest final height of any node.
    pub fn top(&self) -> u64 {
        self.nodes.iter().map(|node| node.final_height).max().unwrap_or(0)
    }

    /// The final height that every node has.
    pub fn floor(&self) -> u64 {
        self.nodes.iter().map(|node| node.final_height).min().unwrap_or(0)
    }
}
