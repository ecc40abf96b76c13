//! The load on the chain, from the baseline's end on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observed::LoadObserved;

/// Each bucket of a [`Spread`] is so much wider than the one before: no latency is told off by more.
const WIDTH: f64 = 1.02;

/// Latencies by size, in few numbers whatever their count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    counts: BTreeMap<u16, u64>,
}

impl Spread {
    pub fn record(&mut self, latency_us: u64, count: u64) {
        let bucket = (latency_us.max(1) as f64).log(WIDTH).ceil() as u16;
        *self.counts.entry(bucket).or_default() += count;
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// What came after `before`; `None` if that is no earlier state of the same.
    fn since(&self, before: &Self) -> Option<Self> {
        let mut counts = self.counts.clone();
        for (bucket, count) in &before.counts {
            let left = counts.get_mut(bucket)?;
            *left = left.checked_sub(*count)?;
        }
        counts.retain(|_, count| *count > 0);
        Some(Self { counts })
    }

    /// What this share of all, 0 to 1, does not exceed, in microseconds; `None` of nothing.
    fn quantile_us(&self, share: f64) -> Option<u64> {
        let wanted = (self.total() as f64 * share).ceil().max(1.0) as u64;
        let mut passed = 0;
        let (bucket, _) = self.counts.iter().find(|(_, count)| {
            passed += **count;
            passed >= wanted
        })?;
        Some(WIDTH.powi(i32::from(*bucket)).round() as u64)
    }
}

/// What was seen of the load, from the baseline's end on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadSeen {
    first: Option<(u64, LoadObserved)>,
    last: Option<(u64, LoadObserved)>,
    /// It was not the same load all the time.
    is_broken: bool,
}

/// A load over a time.
pub(crate) struct Window {
    pub from_ms: u64,
    pub to_ms: u64,
    /// Transfers that became final.
    pub committed: u64,
    spread: Spread,
}

impl LoadSeen {
    pub fn see(&mut self, now_ms: u64, seen: Option<&LoadObserved>) {
        let Some(seen) = seen else {
            self.is_broken |= self.first.is_some();
            return;
        };
        let before = self.last.as_ref().map_or(0, |(_, last)| last.committed);
        self.is_broken |= seen.committed < before;
        self.first.get_or_insert_with(|| (now_ms, seen.clone()));
        self.last = Some((now_ms, seen.clone()));
    }

    /// The error says why nothing can be said of it.
    pub fn window(&self) -> Result<Window, &'static str> {
        let (Some((from_ms, first)), Some((to_ms, last))) = (&self.first, &self.last) else {
            return Err("no load was seen");
        };
        let spread = last.latencies.since(&first.latencies).filter(|_| !self.is_broken);
        let spread = spread.ok_or("another load ran meanwhile")?;
        let committed = last.committed.saturating_sub(first.committed);
        Ok(Window { from_ms: *from_ms, to_ms: *to_ms, committed, spread })
    }
}

impl Window {
    /// Transfers final a second.
    pub fn per_second(&self) -> f64 {
        self.committed as f64 * 1_000.0 / self.to_ms.saturating_sub(self.from_ms).max(1) as f64
    }

    /// What this share of the transfers did not exceed, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> Option<f64> {
        self.spread.quantile_us(share).map(|us| us as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_tells_quantiles_within_its_width() {
        let mut spread = Spread::default();
        for ms in 1..=1_000 {
            spread.record(ms * 1_000, 1);
        }
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let told = spread.quantile_us(share).unwrap() as f64 / 1_000.0;
            assert!(told >= ms && told <= ms * WIDTH * WIDTH, "{share}: {told}");
        }
        assert_eq!(Spread::default().quantile_us(0.5), None);
    }

    #[test]
    fn only_what_came_after_the_first_look_counts() {
        let seen = |slow: u64, committed: u64| {
            let mut latencies = Spread::default();
            latencies.record(10_000, 1_000);
            latencies.record(800_000, slow);
            LoadObserved { committed, latencies }
        };
        let mut load = LoadSeen::default();
        assert!(load.window().is_err());
        load.see(1_000, Some(&seen(0, 1_000)));
        load.see(11_000, Some(&seen(50, 1_050)));
        let window = load.window().unwrap();
        assert_eq!((window.committed, window.per_second()), (50, 5.0));
        assert!(window.latency_ms(0.5).unwrap() >= 800.0, "the fast ones were before");
        load.see(12_000, Some(&seen(0, 10)));
        assert!(load.window().is_err(), "it began anew");
    }
}
