//! What the meter read, judged: flat, and bounded.

use crate::{
    meter::{Disk, Readings, Usage},
    report::{Check, Figure},
    trend::{Bound, Trend, trend},
};

/// Caches are warm after so many seconds at the latest. Shorter runs tell a leak from warming up only by its size.
const WARM: f64 = 900.0;
const WARMING: f64 = 4.0;

/// A process, MiB. Growth is over the time that is judged: in the long form 40 minutes.
const MEMORY: Bound = Bound { peak: 128.0, growth: 6.0 };
/// RocksDB keeps up to 128 files open, each peer and follower some sockets.
const DESCRIPTORS: Bound = Bound { peak: 512.0, growth: 8.0 };
const THREADS: Bound = Bound { peak: 64.0, growth: 2.0 };
/// Of one node, MiB: a segment of 4 MiB or 64 heights, the one before it, and what one height holds.
const WAL: Bound = Bound { peak: 16.0, growth: 2.0 };
/// Of one node, MiB, once it drops a block for each that it adds. Compaction comes in waves.
const STORE: Bound = Bound { peak: 1024.0, growth: 8.0 };
/// Of one node, or of the supervisor, MiB: a log and the one before it.
const LOG: Bound = Bound { peak: 20.0, growth: 20.0 };

/// Fewer measurements say nothing.
const SAMPLES_LEAST: usize = 10;

/// What is judged, and from when to when, in the meter's seconds.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// Processes that nobody killed.
    pub steady: &'a [&'a str],
    /// Warm-up is over.
    pub from: f64,
    pub until: f64,
    /// By node, when its store was full: blocks leave it as they come.
    pub full_from: &'a [(String, f64)],
}

/// The checks, and the figures that they rest on.
pub fn judge(readings: &Readings, scope: &Scope<'_>) -> (Vec<Check>, Vec<Figure>) {
    let mut judge = Judge { scope, figures: Vec::new(), checks: Vec::new() };
    let quantities: [(&str, &str, &str, Bound, Of); 3] = [
        ("memory is flat and bounded", "memory", "MiB", MEMORY, |usage| usage.memory),
        ("open files are flat and bounded", "open files", "", DESCRIPTORS, |usage| usage.descriptors),
        ("threads are flat and bounded", "threads", "", THREADS, |usage| usage.threads),
    ];
    let warming = if scope.until - scope.from < WARM { WARMING } else { 1.0 };
    for (name, what, unit, bound, of) in quantities {
        let bound = Bound { growth: bound.growth * warming, ..bound };
        let series = readings.processes.iter().map(|(process, usages)| {
            let points = judge.within(usages.iter().map(|usage| (usage.at, of(usage))), scope.from);
            (process.clone(), points, scope.steady.contains(&process.as_str()))
        });
        let series = series.collect();
        judge.quantity(name, what, unit, bound, series);
    }
    let disks: [(&str, &str, Bound, On); 3] = [
        ("the write-ahead log is flat and bounded", "wal", WAL, |disk| disk.wal),
        ("the store is flat once it is full", "store", STORE, |disk| disk.store),
        ("logs are bounded", "log", LOG, |disk| disk.log),
    ];
    for (name, what, bound, on) in disks {
        let mut series: Vec<_> = Vec::new();
        for (node, disks) in &readings.disks {
            let full = scope.full_from.iter().find(|(full, _)| full == node).map(|(_, from)| *from);
            let from = if what == "store" { full.unwrap_or(f64::INFINITY) } else { scope.from };
            let points = judge.within(disks.iter().map(|disk| (disk.at, on(disk))), from);
            series.push((node.clone(), points, true));
        }
        if what == "log" {
            let points = judge.within(readings.supervisor_log.iter().copied(), scope.from);
            series.push(("supervisor".to_owned(), points, true));
        }
        judge.quantity(name, what, "MiB", bound, series);
    }
    judge.no_process_ended(readings);
    (judge.checks, judge.figures)
}

type Of = fn(&Usage) -> f64;
type On = fn(&Disk) -> f64;

/// A name, its points, and whether its growth counts.
type Series = (String, Vec<(f64, f64)>, bool);

struct Judge<'a> {
    scope: &'a Scope<'a>,
    figures: Vec<Figure>,
    checks: Vec<Check>,
}

impl Judge<'_> {
    fn within(&self, points: impl Iterator<Item = (f64, f64)>, from: f64) -> Vec<(f64, f64)> {
        points.filter(|(at, _)| (from..=self.scope.until).contains(at)).collect()
    }

    fn quantity(
        &mut self,
        name: &'static str,
        what: &'static str,
        unit: &'static str,
        bound: Bound,
        series: Vec<Series>,
    ) {
        let mut broken = Vec::new();
        let mut highest: Option<(String, Trend)> = None;
        for (subject, points, judged) in series {
            let Some(trend) = trend(&points).filter(|trend| !judged || trend.samples >= SAMPLES_LEAST) else {
                if judged {
                    broken.push(format!("{subject} was measured {} times only", points.len()));
                }
                continue;
            };
            let counted = if judged { trend } else { Trend { growth: 0.0, ..trend } };
            broken.extend(bound.broken_by(&counted).map(|why| format!("{subject} {why}")));
            if highest.as_ref().is_none_or(|(_, high)| trend.peak > high.peak) {
                highest = Some((subject.clone(), trend));
            }
            self.figures.push(Figure { subject, what, unit, trend, judged });
        }
        let held = broken.is_empty() && highest.is_some();
        let detail = match highest {
            Some((subject, trend)) if held => format!("at most {:.1} {unit} ({subject})", trend.peak),
            _ => broken.join("; "),
        };
        self.checks.push(Check { name, held, detail: detail.replace("  ", " ") });
    }

    /// One process from the beginning to the end, for each that nobody killed.
    fn no_process_ended(&mut self, readings: &Readings) {
        let mut broken = Vec::new();
        for name in self.scope.steady {
            let mut pids: Vec<i32> =
                readings.processes.get(*name).into_iter().flatten().map(|usage| usage.pid).collect();
            pids.dedup();
            if pids.len() != 1 {
                broken.push(format!("{name} was {} processes: {pids:?}", pids.len()));
            }
        }
        let detail = if broken.is_empty() { self.scope.steady.join(", ") } else { broken.join("; ") };
        self.checks.push(Check { name: "no process ended by itself", held: broken.is_empty(), detail });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(
        memory: impl Fn(f64) -> f64,
        store: impl Fn(f64) -> f64,
        pid: impl Fn(f64) -> i32,
    ) -> Readings {
        let mut readings = Readings::default();
        for second in 0..720 {
            let at = f64::from(second) * 5.0;
            let usage = Usage { at, pid: pid(at), memory: memory(at), descriptors: 90.0, threads: 12.0 };
            readings.processes.entry("full-0".to_owned()).or_default().push(usage);
            let disk = Disk { at, store: store(at), wal: 1.0, log: 0.1 };
            readings.disks.entry("full-0".to_owned()).or_default().push(disk);
            readings.supervisor_log.push((at, 0.1));
        }
        readings
    }

    fn broken(readings: &Readings) -> Vec<&'static str> {
        let full_from = [("full-0".to_owned(), 1_800.0)];
        let scope = Scope { steady: &["full-0"], from: 1_200.0, until: 3_595.0, full_from: &full_from };
        let (checks, _) = judge(readings, &scope);
        checks.iter().filter(|check| !check.held).map(|check| check.name).collect()
    }

    #[test]
    fn what_is_flat_holds_and_warm_up_is_left_out() {
        let warm = |at: f64| if at < 1_200.0 { at / 60.0 } else { 20.0 };
        assert!(broken(&readings(warm, |at| at.min(1_800.0) / 60.0, |_| 7)).is_empty());
    }

    #[test]
    fn each_kind_of_growth_is_seen() {
        let flat = |_: f64| 20.0;
        assert_eq!(broken(&readings(|at| 20.0 + at / 300.0, flat, |_| 7)), ["memory is flat and bounded"]);
        assert_eq!(broken(&readings(flat, |at| at / 60.0, |_| 7)), ["the store is flat once it is full"]);
        let restarted = |at: f64| if at < 2_400.0 { 7 } else { 8 };
        assert_eq!(broken(&readings(flat, flat, restarted)), ["no process ended by itself"]);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert_eq!(broken(&Readings::default()).len(), 7);
    }
}
