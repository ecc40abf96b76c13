//! How a run ends.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits until every node runs and is followed.
    Pending,
    /// Watches the untouched chain.
    Baseline,
    /// Faults come and go.
    Running,
    /// The last fault is healed.
    Recovering,
    /// Every expectation was met.
    Passed,
    /// One was not.
    Failed,
    /// The run proves nothing, and says why.
    Invalid,
    /// Ended from outside.
    Aborted,
}

impl Phase {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Passed | Self::Failed | Self::Invalid | Self::Aborted)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Baseline => "Baseline",
            Self::Running => "Running",
            Self::Recovering => "Recovering",
            Self::Passed => "Passed",
            Self::Failed => "Failed",
            Self::Invalid => "Invalid",
            Self::Aborted => "Aborted",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `netsplit run` exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Passed = 0,
    Failed = 1,
    Usage = 2,
    /// Invalid or aborted.
    Invalid = 3,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// One of the four final phases.
    pub phase: Phase,
    /// In the order of the spec.
    pub expectations: Vec<ExpectationResult>,
    /// Why it is not Passed; and what else a reader must know (a heal that could not be confirmed).
    pub reasons: Vec<String>,
    /// Milliseconds from the run's start to this verdict.
    pub lasted_ms: u64,
}

impl Verdict {
    pub fn exit_code(&self) -> ExitCode {
        match self.phase {
            Phase::Passed => ExitCode::Passed,
            Phase::Failed => ExitCode::Failed,
            _ => ExitCode::Invalid,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpectationResult {
    /// `stall within 5s`.
    pub text: String,
    pub outcome: Outcome,
    /// One sentence with what was seen.
    pub detail: String,
    /// What was measured against `within`, where there is one.
    pub measured_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Passed,
    Failed,
    /// Missed or not decidable, for a reason that is not the chain's.
    Invalid,
    /// The run ended before it could be judged.
    NotJudged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::NotJudged => "not judged",
        })
    }
}

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEvent {
    pub at_ms: u64,
    pub kind: TimelineKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineKind {
    Phase,
    FaultApplied,
    FaultProven,
    FaultHealed,
    FaultViolated,
    NodeDown,
    NodeUp,
    FinalityStopped,
    FinalityResumed,
    Fork,
    HostOverloaded,
    Expectation,
    Verdict,
    Note,
}
