//! What the kernel says about its CPUs. Where it says nothing, neither do we.

use std::fs;
use std::time::{Duration, Instant};

/// Running totals at one moment.
#[derive(Debug, Clone)]
pub(super) struct CpuTimes {
    at: Instant,
    /// How long some task had waited for a CPU, since boot.
    stalled: Option<Duration>,
    ticks: Option<Ticks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    total: u64,
    steal: u64,
}

impl CpuTimes {
    /// Two small reads of /proc, some ten microseconds.
    pub fn read() -> Self {
        // A kernel without one of these files, or a container that hides it, is no failure.
        let read = |path| fs::read_to_string(path).ok();
        Self {
            at: Instant::now(),
            stalled: read("/proc/pressure/cpu").and_then(|text| stalled(&text)),
            ticks: read("/proc/stat").and_then(|text| ticks(&text)),
        }
    }

    /// Share of the time since then, 0 to 1, in which some task waited for a CPU.
    pub fn pressure_since(&self, earlier: &Self) -> Option<f64> {
        let stalled = self.stalled?.saturating_sub(earlier.stalled?);
        share(stalled.as_secs_f64(), (self.at - earlier.at).as_secs_f64())
    }

    /// Share of the CPUs' time since then, 0 to 1, that the hypervisor gave to others.
    pub fn steal_since(&self, earlier: &Self) -> Option<f64> {
        let (now, then) = (self.ticks?, earlier.ticks?);
        share(now.steal.saturating_sub(then.steal) as f64, now.total.saturating_sub(then.total) as f64)
    }
}

/// None when no time has passed: ticks are 10 ms long.
fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0))
}

/// The `total=` of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, microseconds.
fn stalled(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let total = line.split(' ').find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// The line `cpu user nice system idle iowait irq softirq steal guest guest_nice`. Guest time is part of user
/// time already.
fn ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> =
        line.split_whitespace().take(8).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let steal = *fields.get(7)?;
    Some(Ticks { total: fields.iter().sum(), steal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_formats() {
        let pressure = "some avg10=1.53 avg60=0.87 avg300=0.73 total=1500000\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(pressure), Some(Duration::from_millis(1500)));
        assert_eq!(stalled("full avg10=0.00 total=7\n"), None);
        let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n";
        assert_eq!(ticks(stat), Some(Ticks { total: 360, steal: 80 }));
        assert_eq!(ticks("cpu  10 20 30\n"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn shares_are_of_the_time_between() {
        let then = CpuTimes {
            at: Instant::now(),
            stalled: Some(Duration::from_secs(10)),
            ticks: Some(Ticks { total: 1_000, steal: 10 }),
        };
        let now = CpuTimes {
            at: then.at + Duration::from_secs(4),
            stalled: Some(Duration::from_secs(11)),
            ticks: Some(Ticks { total: 1_400, steal: 50 }),
        };
        assert_eq!(now.pressure_since(&then), Some(0.25));
        assert_eq!(now.steal_since(&then), Some(0.1));
        assert_eq!(then.steal_since(&then), None);
        let silent = CpuTimes { stalled: None, ticks: None, ..now.clone() };
        assert_eq!(silent.pressure_since(&then), None);
        assert_eq!(now.steal_since(&silent), None);
    }
}
