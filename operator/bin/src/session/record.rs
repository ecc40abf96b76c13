//! What a run looked like over its time, for the report. Bounded, however long the run.

use std::time::Duration;

use netsplit_chains::LoadReport;
use netsplit_observe::NodeView;

use super::links::SeenLink;
use crate::outcome::{LinkOutcome, LinkSnapshot, Point, Series};

/// How often the run is looked at, at first.
const EVERY: Duration = Duration::from_millis(250);
/// Points kept. When there are more, every second one goes, and the run is looked at half as often.
const MAX_POINTS: usize = 1_200;
/// Heights kept: with very many nodes, fewer points. All of it travels in one message of at most 4 MiB.
const MAX_HEIGHTS: usize = 100_000;
/// Sets of faults whose links are kept.
const MAX_SNAPSHOTS: usize = 12;
/// Links kept of one moment; those that are not as asked go first.
const MAX_LINKS: usize = 500;

#[derive(Debug)]
pub struct Recorder {
    every_ms: u64,
    points: Vec<Point>,
    snapshots: Vec<LinkSnapshot>,
    /// Transfers that were final at the last point, and the sum of their latencies.
    load: (u64, f64),
}

impl Recorder {
    pub fn new() -> Self {
        Self { every_ms: EVERY.as_millis() as u64, points: Vec::new(), snapshots: Vec::new(), load: (0, 0.0) }
    }

    /// Whether it is time to look again. Milliseconds since the run's start.
    pub fn is_due(&self, at_ms: u64) -> bool {
        self.points.last().is_none_or(|last| at_ms >= last.at_ms + self.every_ms)
    }

    pub fn look(&mut self, at_ms: u64, nodes: &[NodeView], load: Option<&LoadReport>) {
        let latency_ms = load.and_then(|load| self.latency_since(load));
        self.points.push(Point {
            at_ms,
            final_heights: nodes.iter().map(|node| node.final_height).collect(),
            committed: load.map(|load| load.committed),
            latency_ms,
        });
        if self.points.len() > (MAX_HEIGHTS / nodes.len().max(1)).clamp(2, MAX_POINTS) {
            let mut place = 0;
            self.points.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every_ms *= 2;
        }
    }

    fn latency_since(&mut self, load: &LoadReport) -> Option<f64> {
        let (count, sum) = (load.latency.samples, load.latency.samples as f64 * load.latency.mean_ms);
        let (count_before, sum_before) = std::mem::replace(&mut self.load, (count, sum));
        let fresh = count.checked_sub(count_before).filter(|fresh| *fresh > 0)?;
        Some(((sum - sum_before) / fresh as f64).max(0.0))
    }

    /// The links as they are now; the last of each moment is kept.
    pub fn see_links(&mut self, at_ms: u64, moment: String, links: Vec<SeenLink>) {
        let mut links: Vec<LinkOutcome> = links.into_iter().filter_map(outcome).collect();
        if links.is_empty() {
            return;
        }
        if links.len() > MAX_LINKS {
            links.sort_by_key(|link| link.problem.is_none());
            links.truncate(MAX_LINKS);
        }
        let snapshot = LinkSnapshot { moment, at_ms, links };
        if let Some(known) = self.snapshots.iter_mut().find(|known| known.moment == snapshot.moment) {
            *known = snapshot;
        } else if self.snapshots.len() < MAX_SNAPSHOTS {
            self.snapshots.push(snapshot);
        }
    }

    pub fn finish(self) -> (Series, Vec<LinkSnapshot>) {
        (Series { points: self.points }, self.snapshots)
    }
}

fn outcome(link: SeenLink) -> Option<LinkOutcome> {
    let measured = link.measured?;
    let percent = |count: u64, of: u64| (of > 0).then(|| count as f64 / of as f64 * 100.0);
    let some_percent = |count: u64| percent(count, measured.received).filter(|share| *share > 0.0);
    Some(LinkOutcome {
        from: link.from,
        to: link.to,
        asked: link.asked,
        measured_ms: measured.latency_us.map(|us| us as f64 / 1_000.0),
        lost_percent: percent(measured.sent.saturating_sub(measured.received), measured.sent),
        duplicated_percent: some_percent(measured.duplicated),
        reordered_percent: some_percent(measured.reordered),
        rate: measured.rate,
        problem: link.problem,
    })
}

#[cfg(test)]
mod tests {
    use netsplit_chains::Latency;

    use super::*;

    #[test]
    fn a_long_run_keeps_its_shape_in_few_points() {
        let mut recorder = Recorder::new();
        let hour_ms = 3_600_000;
        for at_ms in (0..hour_ms).step_by(50) {
            if recorder.is_due(at_ms) {
                recorder.look(at_ms, &[], None);
            }
        }
        let (series, _) = recorder.finish();
        let times: Vec<u64> = series.points.iter().map(|point| point.at_ms).collect();
        assert!(times.len() <= MAX_POINTS && times.len() > MAX_POINTS / 3, "{}", times.len());
        assert_eq!(times[0], 0);
        assert!(*times.last().unwrap() > hour_ms - 10_000);
        assert!(times.is_sorted());
    }

    #[test]
    fn latency_is_that_of_the_time_between_two_points() {
        let load = |samples, mean_ms| LoadReport {
            latency: Latency { samples, mean_ms, ..Latency::default() },
            ..LoadReport::default()
        };
        let mut recorder = Recorder::new();
        recorder.look(0, &[], Some(&load(10, 100.0)));
        recorder.look(250, &[], Some(&load(20, 150.0)));
        recorder.look(500, &[], Some(&load(20, 150.0)));
        let (series, _) = recorder.finish();
        let seen: Vec<Option<f64>> = series.points.iter().map(|point| point.latency_ms).collect();
        assert_eq!(seen, [Some(100.0), Some(200.0), None]);
    }
}
