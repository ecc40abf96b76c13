//! When the host was too busy for a missed expectation to mean anything.

use serde::{Deserialize, Serialize};

use super::limits::{BUSY_MS, CPU_PRESSURE, LAG_MS, STEAL, STEP_GAP_MS};
use super::observed::HostPressure;

/// More intervals are merged into the last one, which then covers too much: that errs towards Invalid.
const MAX_INTERVALS: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pressure {
    busy: Vec<Busy>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Busy {
    from_ms: u64,
    to_ms: u64,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// Threads or the observer itself were held up: any of it excuses.
    Late,
    /// CPUs were short: excuses once it lasts.
    Short,
}

impl Pressure {
    /// Takes in one step's measurements; the text of a period that begins with this step.
    pub fn record(&mut self, from_ms: u64, to_ms: u64, host: &HostPressure) -> Option<String> {
        let (kind, text) = classify(to_ms.saturating_sub(from_ms), host)?;
        let full = self.busy.len() >= MAX_INTERVALS;
        if let Some(last) = self.busy.last_mut()
            && (full || (last.kind == kind && from_ms.saturating_sub(last.to_ms) <= STEP_GAP_MS))
        {
            last.to_ms = to_ms;
            return None;
        }
        self.busy.push(Busy { from_ms, to_ms, kind, text: text.clone() });
        Some(text)
    }

    /// Why a miss between these two moments proves nothing, if so.
    pub fn excuse(&self, from_ms: u64, to_ms: u64) -> Option<String> {
        let overlap = |busy: &Busy| busy.to_ms.min(to_ms).saturating_sub(busy.from_ms.max(from_ms));
        let overlaps = |busy: &&Busy| busy.from_ms <= to_ms && busy.to_ms >= from_ms;
        let late = self.busy.iter().filter(overlaps).find(|busy| busy.kind == Kind::Late);
        let short = || {
            let periods = || self.busy.iter().filter(overlaps).filter(|busy| busy.kind == Kind::Short);
            let total: u64 = periods().map(overlap).sum();
            periods().next().filter(|_| total >= BUSY_MS)
        };
        late.or_else(short).map(|busy| format!("host overloaded: {}", busy.text))
    }
}

fn classify(gap_ms: u64, host: &HostPressure) -> Option<(Kind, String)> {
    let percent = |share: f64| (share * 100.0).round();
    if gap_ms > STEP_GAP_MS {
        return Some((
            Kind::Late,
            format!("the observer could not look for {gap_ms} ms (limit {STEP_GAP_MS})"),
        ));
    }
    if host.lag_p99_ms > LAG_MS {
        let lag = host.lag_p99_ms.round();
        return Some((Kind::Late, format!("scheduling lag of {lag} ms (limit {LAG_MS})")));
    }
    if let Some(steal) = host.steal.filter(|share| *share > STEAL) {
        let (steal, limit) = (percent(steal), percent(STEAL));
        return Some((
            Kind::Short,
            format!("{steal} % of the CPU time was stolen by other machines (limit {limit} %)"),
        ));
    }
    let pressure = host.cpu_pressure.filter(|share| *share > CPU_PRESSURE)?;
    let (pressure, limit) = (percent(pressure), percent(CPU_PRESSURE));
    Some((Kind::Short, format!("tasks waited for a CPU {pressure} % of the time (limit {limit} %)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure(cpu: f64) -> HostPressure {
        HostPressure { cpu_pressure: Some(cpu), ..HostPressure::default() }
    }

    #[test]
    fn lag_in_the_window_excuses_and_outside_does_not() {
        let mut seen = Pressure::default();
        let lag = HostPressure { lag_p99_ms: 251.0, ..HostPressure::default() };
        assert!(seen.record(1_000, 1_100, &lag).is_some());
        assert!(seen.record(1_100, 1_200, &lag).is_none(), "one period is told once");
        assert!(seen.excuse(0, 999).is_none());
        assert!(seen.excuse(1_201, 5_000).is_none());
        assert!(seen.excuse(0, 1_050).is_some_and(|text| text.contains("host overloaded")));
    }

    #[test]
    fn a_short_burst_of_cpu_pressure_is_not_an_excuse() {
        let mut seen = Pressure::default();
        for step in 0..4 {
            seen.record(step * 100, step * 100 + 100, &pressure(0.95));
        }
        assert!(seen.excuse(0, 10_000).is_none());
        seen.record(400, 500, &pressure(0.95));
        assert!(seen.excuse(0, 10_000).is_some());
        assert!(seen.excuse(300, 10_000).is_none(), "only what lies in the window counts");
    }

    #[test]
    fn limits_are_exclusive_and_a_gap_counts() {
        let mut seen = Pressure::default();
        seen.record(0, STEP_GAP_MS, &pressure(CPU_PRESSURE));
        assert!(seen.busy.is_empty());
        assert!(seen.record(1_000, 2_001, &HostPressure::default()).is_some());
        assert!(seen.excuse(1_500, 1_600).is_some());
    }

    #[test]
    fn intervals_are_bounded() {
        let mut seen = Pressure::default();
        let lag = HostPressure { lag_p99_ms: 300.0, ..HostPressure::default() };
        for n in 0..2 * MAX_INTERVALS as u64 {
            seen.record(n * 10_000, n * 10_000 + 100, &lag);
        }
        assert_eq!(seen.busy.len(), MAX_INTERVALS);
        assert!(seen.excuse(5_000_000, 5_000_050).is_some());
    }
}
