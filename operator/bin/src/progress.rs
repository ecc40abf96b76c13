//! The figures of a load as the command line is told.

use std::collections::HashMap;

use netsplit_chains::LoadReport;
use netsplit_proto::control::LoadProgress;

/// The figures of a load, so far or at its end.
pub fn to_progress(report: &LoadReport, done: bool) -> LoadProgress {
    let mut refused_by_reason: HashMap<String, u64> = report.refused.clone().into_iter().collect();
    for (reason, count) in &report.dropped {
        refused_by_reason.insert(format!("not sent, {reason}"), *count);
    }
    LoadProgress {
        seconds: report.seconds,
        offered: report.offered,
        accepted: report.accepted,
        refused: report.refused_total(),
        committed: report.committed,
        committed_per_second: report.committed_per_second,
        latency_p50_ms: report.latency.p50_ms,
        latency_p90_ms: report.latency.p90_ms,
        latency_p99_ms: report.latency.p99_ms,
        latency_max_ms: report.latency.max_ms,
        refused_by_reason,
        done,
        signatures_checked: report.signatures_checked,
    }
}
