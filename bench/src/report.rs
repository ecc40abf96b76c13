//! Rows and how they are shown.

use std::{fmt::Write as _, time::Instant};

use serde::Serialize;

/// Which side of the goal is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    AtMost,
    AtLeast,
}

/// One measure. Keys of the JSON are stable: add, never rename.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub measure: String,
    pub unit: &'static str,
    /// The samples in the order they were taken; empty when the measurement failed.
    pub samples: Vec<f64>,
    /// The figure that counts: a median, or what the measure's name says.
    pub reached: Option<f64>,
    pub goal: Goal,
    pub to_reach: f64,
    pub baseline: Option<f64>,
    /// The figure must also beat the baseline.
    pub beats_baseline: bool,
    /// Load average over one minute when the row began: what the machine did beside.
    pub load_average: f64,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Row {
    pub fn new(measure: &str, unit: &'static str, goal: Goal, to_reach: f64) -> Self {
        Self {
            measure: measure.to_owned(),
            unit,
            samples: Vec::new(),
            reached: None,
            goal,
            to_reach,
            baseline: None,
            beats_baseline: false,
            load_average: load_average(),
            problem: None,
        }
    }

    /// The median of `samples` counts.
    pub fn median_of(mut self, samples: Vec<f64>) -> Self {
        self.reached = quantile(&samples, 0.5);
        self.samples = samples;
        self
    }

    /// The value below which `share` of `samples` lie counts.
    pub fn quantile_of(mut self, samples: Vec<f64>, share: f64) -> Self {
        self.reached = quantile(&samples, share);
        self.samples = samples;
        self
    }

    pub fn failed(mut self, error: &anyhow::Error) -> Self {
        self.problem = Some(format!("{error:#}"));
        self
    }

    /// Whether the goal is met, and the baseline beaten where that is asked and known.
    pub fn ok(&self) -> bool {
        let Some(reached) = self.reached else { return false };
        let meets = |bound: f64| match self.goal {
            Goal::AtMost => reached <= bound,
            Goal::AtLeast => reached >= bound,
        };
        meets(self.to_reach) && (!self.beats_baseline || self.baseline.is_none_or(meets))
    }
}

/// The nearest sample at that share of the sorted ones; none of none.
pub fn quantile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1).min(last)).copied()
}

/// Since then, in milliseconds.
pub fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Of one minute; 0 where the system does not tell.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The table that a person reads.
pub fn table(rows: &[Row]) -> String {
    let head = ["measure", "reached", "to reach", "baseline", "ok", "samples", "load"].map(str::to_owned);
    let mut lines = vec![head.to_vec()];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let written = match column {
                0 | 4 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
            written.expect("writing to a string cannot fail");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    for row in rows {
        if let Some(problem) = &row.problem {
            writeln!(out, "not measured: {}: {problem}", row.measure)
                .expect("writing to a string cannot fail");
        }
    }
    let met = rows.iter().filter(|row| row.ok()).count();
    writeln!(out, "{met} of {} reached", rows.len()).expect("writing to a string cannot fail");
    out
}

fn cells(row: &Row) -> Vec<String> {
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| number(value, row.unit));
    let sign = if row.goal == Goal::AtMost { "<=" } else { ">=" };
    let ok = match (row.reached, row.ok()) {
        (None, _) => "-",
        (_, true) => "yes",
        (_, false) => "NO",
    };
    vec![
        row.measure.clone(),
        figure(row.reached),
        format!("{sign} {}", number(row.to_reach, row.unit)),
        figure(row.baseline),
        ok.to_owned(),
        row.samples.len().to_string(),
        format!("{:.1}", row.load_average),
    ]
}

/// Three digits that matter, and the unit.
fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.5), Some(10.0));
        assert_eq!(quantile(&samples, 0.95), Some(19.0));
        assert_eq!(quantile(&[7.0], 0.95), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_goal_can_be_missed_and_so_can_the_baseline() {
        let row = |reached, goal| Row::new("m", "ms", goal, 100.0).median_of(vec![reached]);
        assert!(row(100.0, Goal::AtMost).ok() && !row(101.0, Goal::AtMost).ok());
        assert!(row(100.0, Goal::AtLeast).ok() && !row(99.0, Goal::AtLeast).ok());
        let mut beaten = row(150.0, Goal::AtLeast);
        beaten.baseline = Some(200.0);
        assert!(beaten.ok(), "only shown");
        beaten.beats_baseline = true;
        assert!(!beaten.ok());
        assert!(!Row::new("m", "ms", Goal::AtMost, 1.0).ok(), "without a figure nothing is reached");
    }

    #[test]
    fn the_table_says_what_is_missing() {
        let rows = [
            Row::new("fast", "ms", Goal::AtMost, 20.0).median_of(vec![3.0, 4.0]),
            Row::new("gone", "ms", Goal::AtMost, 20.0).failed(&anyhow::anyhow!("no kernel")),
        ];
        let text = table(&rows);
        assert!(text.contains("3.00 ms") && text.contains("<= 20.0 ms"), "{text}");
        assert!(text.contains("not measured: gone: no kernel") && text.contains("1 of 2 reached"), "{text}");
    }
}
