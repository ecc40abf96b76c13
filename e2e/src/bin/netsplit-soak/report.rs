//! What came of a soak: checks, figures, a table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{shape::Shape, trend::Trend};

/// Something that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub held: bool,
    pub detail: String,
}

/// Of one process, or of one node's directory.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub subject: String,
    pub what: &'static str,
    pub unit: &'static str,
    #[serde(flatten)]
    pub trend: Trend,
    /// Whether its growth was judged, and not its peak alone.
    pub judged: bool,
}

/// The hour, or a shorter form of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hour {
    pub shape: Shape,
    pub lasted_seconds: f64,
    pub heights: u64,
    pub kills: u32,
    pub splits: u32,
    pub cuts: u32,
    /// Splits and cuts that could not be proven on a busy machine.
    pub unproven: u32,
    /// Seconds from the end of each disturbance to a new final block on every node.
    pub recoveries: Recoveries,
    pub committed: u64,
    pub committed_per_second: f64,
    pub checks: Vec<Check>,
    pub figures: Vec<Figure>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Recoveries {
    pub count: usize,
    pub p50: f64,
    pub p95: f64,
    pub max: f64,
}

impl Recoveries {
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (seconds.len() as f64 * share) as usize;
            seconds.get(place.min(seconds.len().saturating_sub(1))).copied().unwrap_or(0.0)
        };
        Self { count: seconds.len(), p50: at(0.5), p95: at(0.95), max: at(1.0) }
    }
}

/// The same experiment again and again.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    pub passed: u32,
    pub host_overloaded: u32,
    pub check: Check,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub hour: Option<Hour>,
    /// Beside busy loops.
    pub busy: Option<Runs>,
    /// On links with jitter and loss, with nothing wrong.
    pub clean: Option<Runs>,
    /// All of netsplit hangs or dies in the middle of faults.
    pub leases: Option<Check>,
}

impl Report {
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        let hour = self.hour.iter().flat_map(|hour| &hour.checks);
        let runs = self.busy.iter().chain(&self.clean).map(|runs| &runs.check);
        hour.chain(runs).chain(&self.leases)
    }

    pub fn held(&self) -> bool {
        self.checks().all(|check| check.held)
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        if let Some(hour) = &self.hour {
            hour.write(&mut out);
        }
        for (what, runs) in [("beside two busy loops", &self.busy), ("with nothing wrong", &self.clean)] {
            let Some(Runs { passed, host_overloaded, .. }) = runs else { continue };
            line(
                &mut out,
                format_args!("\n{what}: {passed} runs passed, {host_overloaded} invalid (host overloaded)"),
            );
        }
        line(&mut out, format_args!(""));
        for check in self.checks() {
            let word = if check.held { "ok    " } else { "FAILED" };
            line(&mut out, format_args!("{word}  {}: {}", check.name, check.detail));
        }
        line(&mut out, format_args!("\n{}", if self.held() { "PASSED" } else { "FAILED" }));
        out
    }
}

impl Hour {
    fn write(&self, out: &mut String) {
        let header =
            format!("{:<14}{:<14}{:>9}{:>9}{:>9}{:>9}", "", "", "median", "peak", "growth", "samples");
        line(out, format_args!("\n{header}"));
        for Figure { subject, what, unit, trend, judged } in &self.figures {
            let what = format!("{what} {unit}");
            let growth = if *judged { format!("{:+.1}", trend.growth) } else { String::new() };
            line(
                out,
                format_args!(
                    "{subject:<14}{what:<14}{:>9.1}{:>9.1}{growth:>9}{:>9}",
                    trend.median, trend.peak, trend.samples
                ),
            );
        }
        let Recoveries { count, p50, p95, max } = self.recoveries;
        line(
            out,
            format_args!(
                "\n{} heights, {} transfers final ({:.0}/s); {} SIGKILLs, {} splits, {} cuts, {} of them unproven (seed {})\n\
             final again on every node after each of {count}: p50 {p50:.2} s, p95 {p95:.2} s, max {max:.2} s",
                self.heights,
                self.committed,
                self.committed_per_second,
                self.kills,
                self.splits,
                self.cuts,
                self.unproven,
                self.shape.seed
            ),
        );
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes it all");
}
