//! Whether a quantity stays the same over hours: a line through noise that jumps.

use serde::Serialize;

/// What a series of measurements came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    pub samples: usize,
    pub median: f64,
    pub peak: f64,
    /// By how much it grew, from the first to the last measurement, along the line. Negative if it shrank.
    pub growth: f64,
}

/// The line by Theil and Sen: its slope is the median of the slopes between all pairs of points. A third of them may be
/// anything, such as the bursts after a split, and the line stays where it is. `None` without points.
pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let (first, last) = (points.first()?, points.last()?);
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (place, (at, value)) in points.iter().enumerate() {
        let later = points[place + 1..].iter().filter(|(later, _)| later > at);
        slopes.extend(later.map(|(later, after)| (after - value) / (later - at)));
    }
    let slope = if slopes.is_empty() { 0.0 } else { median(slopes) };
    let peak = values.iter().copied().fold(f64::MIN, f64::max);
    Some(Trend { samples: points.len(), median: median(values), peak, growth: slope * (last.0 - first.0) })
}

/// Of at least one value.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// How much of something is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub peak: f64,
    /// Over the time that is judged; a tenth of the median is always allowed.
    pub growth: f64,
}

impl Bound {
    /// What breaks it, in words; `None` if nothing does.
    pub fn broken_by(&self, trend: &Trend) -> Option<String> {
        let growth = self.growth.max(trend.median / 10.0);
        if trend.growth > growth {
            return Some(format!("grew by {:.1} (allowed {growth:.1})", trend.growth));
        }
        (trend.peak > self.peak).then(|| format!("peaked at {:.1} (allowed {:.1})", trend.peak, self.peak))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour, a point every 5 s.
    fn series(value: impl Fn(usize) -> f64) -> Trend {
        let points: Vec<(f64, f64)> = (0..720).map(|n| (n as f64 * 5.0, value(n))).collect();
        trend(&points).unwrap()
    }

    const BOUND: Bound = Bound { peak: 100.0, growth: 4.0 };

    #[test]
    fn a_leak_is_seen_through_bursts() {
        // Bursts of 30, one point in four, up and down.
        let burst = |n: usize| if n.is_multiple_of(4) { 30.0 * ((n % 7) as f64 - 3.0) / 3.0 } else { 0.0 };
        let flat = series(|n| 40.0 + burst(n));
        assert!(flat.growth.abs() < 0.5 && BOUND.broken_by(&flat).is_none(), "{flat:?}");
        let leak = series(|n| 40.0 + burst(n) + n as f64 * 0.01);
        assert!((leak.growth - 7.19).abs() < 0.5, "{leak:?}");
        assert!(BOUND.broken_by(&leak).unwrap().contains("grew by 7."));
    }

    #[test]
    fn a_peak_and_a_tenth_of_the_median() {
        let peak = series(|n| if n == 300 { 101.0 } else { 40.0 });
        assert!(BOUND.broken_by(&peak).unwrap().contains("peaked at 101.0"));
        let large = series(|n| 80.0 + n as f64 * 0.01);
        assert_eq!(BOUND.broken_by(&large), None, "7 is less than a tenth of 83");
    }

    #[test]
    fn few_points() {
        assert_eq!(trend(&[]), None);
        assert_eq!(trend(&[(1.0, 5.0)]), Some(Trend { samples: 1, median: 5.0, peak: 5.0, growth: 0.0 }));
    }
}
