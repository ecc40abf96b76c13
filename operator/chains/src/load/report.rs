//! What load did, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use netsplit_plan::experiment::Spread;
use serde::Serialize;

use crate::client::RefusalKind;

/// Counts since the start of the load.
///
/// `offered = submitted + dropped + not yet handed over`, and
/// `submitted = accepted + refused + unanswered + answers outstanding`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// What the rate asked for up to now.
    pub offered: u64,
    /// Handed to a node. A transfer that is sent again counts again.
    pub submitted: u64,
    /// Taken by a node.
    pub accepted: u64,
    /// Refused by a node, by reason; sent again later.
    pub refused: BTreeMap<String, u64>,
    /// Sent, but the call failed: a node may have them or not. Sent again later.
    pub unanswered: u64,
    /// Never sent, by reason: the load could not keep its rate.
    pub dropped: BTreeMap<String, u64>,
    /// Seen in a final block.
    pub committed: u64,
    /// Committed, divided by the time from the start to the end of the load or to the last commit, if later.
    pub committed_per_second: f64,
    /// From handing over to a node until its block arrives on the followed stream.
    pub latency: Latency,
    /// How long the load has run, without settling.
    pub seconds: f64,
    /// Whether the chain checks a signature on each transfer.
    pub signatures_checked: bool,
    /// All latencies, so that those of a time can be told.
    #[serde(skip)]
    pub latencies: Spread,
}

impl LoadReport {
    /// All refusals, whatever the reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }

    /// All that was never sent, whatever the reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// A latency distribution, in milliseconds; all zero without samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub samples: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Why credit was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dropped {
    /// The node did not answer.
    Unreachable,
    /// Every account of the lane has its full number of transfers that are not final.
    InFlight,
    /// Signing or the node's answers did not keep up with the rate.
    Behind,
}

impl Dropped {
    fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "node unreachable",
            Self::InFlight => "too many in flight",
            Self::Behind => "behind",
        }
    }
}

/// Latencies above this are recorded as this.
const LATENCY_LIMIT: Duration = Duration::from_hours(1);

/// The numbers behind a report.
pub(super) struct Counters {
    pub submitted: u64,
    pub accepted: u64,
    pub unanswered: u64,
    pub committed: u64,
    refused: BTreeMap<RefusalKind, u64>,
    dropped: BTreeMap<Dropped, u64>,
    /// Microseconds.
    latency: Histogram<u64>,
    /// Of the last commit, since the start.
    pub last_commit: Duration,
}

impl Counters {
    pub fn new() -> Self {
        let limit = LATENCY_LIMIT.as_micros() as u64;
        Self {
            submitted: 0,
            accepted: 0,
            unanswered: 0,
            committed: 0,
            refused: BTreeMap::new(),
            dropped: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, limit, 3)
                .expect("1 to an hour at three digits are valid bounds"),
            last_commit: Duration::ZERO,
        }
    }

    pub fn refuse(&mut self, kind: RefusalKind) {
        *self.refused.entry(kind).or_default() += 1;
    }

    pub fn drop_credit(&mut self, why: Dropped, count: u64) {
        *self.dropped.entry(why).or_default() += count;
    }

    pub fn commit(&mut self, latency: Duration, since_start: Duration) {
        self.committed += 1;
        self.last_commit = since_start;
        self.latency.saturating_record(latency.as_micros() as u64);
    }

    /// `ran` is how long the load has run, `offered` what its rate asked for.
    pub fn report(&self, offered: u64, ran: Duration, signatures_checked: bool) -> LoadReport {
        let mut latencies = Spread::default();
        for value in self.latency.iter_recorded() {
            latencies.record(value.value_iterated_to(), value.count_at_value());
        }
        let over = ran.max(self.last_commit).as_secs_f64();
        let quantile = |q: f64| self.latency.value_at_quantile(q) as f64 / 1000.0;
        LoadReport {
            offered,
            submitted: self.submitted,
            accepted: self.accepted,
            refused: self.refused.iter().map(|(kind, count)| (kind.label().to_owned(), *count)).collect(),
            unanswered: self.unanswered,
            dropped: self.dropped.iter().map(|(why, count)| (why.label().to_owned(), *count)).collect(),
            committed: self.committed,
            committed_per_second: if over > 0.0 { self.committed as f64 / over } else { 0.0 },
            latency: if self.latency.is_empty() {
                Latency::default()
            } else {
                Latency {
                    samples: self.latency.len(),
                    mean_ms: self.latency.mean() / 1000.0,
                    p50_ms: quantile(0.5),
                    p90_ms: quantile(0.9),
                    p99_ms: quantile(0.99),
                    max_ms: self.latency.max() as f64 / 1000.0,
                }
            },
            seconds: ran.as_secs_f64(),
            signatures_checked,
            latencies,
        }
    }
}
