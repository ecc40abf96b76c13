//! What a run of a given length is made of.

use std::time::Duration;

use serde::Serialize;

/// Pause between blocks; no chain is faster than this, so that retention can be counted in time.
pub const BLOCK_TIME: Duration = Duration::from_millis(500);

/// The long form lasts an hour; all else follows from the length.
const HOUR: Duration = Duration::from_hours(1);
const KILLS_AN_HOUR: u32 = 100;
const BUSY_RUNS_AN_HOUR: u32 = 50;
const OTHER_RUNS_AN_HOUR: u32 = 100;
const RUNS_LEAST: u32 = 5;
/// The least that a spec may keep.
const RETENTION_LEAST: u64 = 100;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shape {
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    pub seed: u64,
    /// Transfers a second.
    pub rate: u32,
    /// SIGKILLs of validators, at least.
    pub kills: u32,
    /// When one full node goes away, and for how long.
    #[serde(serialize_with = "seconds")]
    pub away_at: Duration,
    #[serde(serialize_with = "seconds")]
    pub away_for: Duration,
    /// Blocks that a node keeps: a tenth more than can be made while one is away, else nobody could tell it what it
    /// missed. So the store is full, and each further block drops an old one, before half of the run is over.
    pub retention: u64,
    /// After a disturbance every node must have a new final block by then.
    #[serde(serialize_with = "seconds")]
    pub recover_within: Duration,
    /// The node that was away must have caught up by then.
    #[serde(serialize_with = "seconds")]
    pub catch_up_within: Duration,
}

impl Shape {
    pub fn new(duration: Duration, seed: u64, rate: u32) -> Self {
        let away_for = duration / 3;
        let missed = (away_for.as_millis() / BLOCK_TIME.as_millis()) as u64;
        Self {
            duration,
            seed,
            rate,
            kills: an_hour(KILLS_AN_HOUR, duration).max(1),
            away_at: duration * 2 / 5,
            away_for,
            retention: (missed + missed / 10 + 20).max(RETENTION_LEAST),
            recover_within: Duration::from_mins(1),
            catch_up_within: Duration::from_mins(3),
        }
    }

    /// Runs beside busy loops in a soak of that length.
    pub fn busy_runs(duration: Duration) -> u32 {
        an_hour(BUSY_RUNS_AN_HOUR, duration).max(RUNS_LEAST)
    }

    /// Runs of each other trial in a soak of that length.
    pub fn other_runs(duration: Duration) -> u32 {
        an_hour(OTHER_RUNS_AN_HOUR, duration).max(RUNS_LEAST)
    }

    pub fn yaml(&self, name: &str) -> String {
        let Self { rate, retention, seed, .. } = self;
        let block_time = BLOCK_TIME.as_millis();
        format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: {name}}}\nspec:\n  \
             consensus: {{bft: {{blockTime: {block_time}ms}}}}\n  nodes:\n    \
             - {{name: validator, role: validator, count: 4}}\n    - {{name: full, role: full, count: 2}}\n  \
             load: {{transfersPerSecond: {rate}/s}}\n  retention: {{blocks: {retention}}}\n  seed: {seed}\n"
        )
    }
}

/// What an hour holds so many of, in another time.
fn an_hour(count: u32, time: Duration) -> u32 {
    (f64::from(count) * time.as_secs_f64() / HOUR.as_secs_f64()).ceil() as u32
}

fn seconds<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_what_the_long_form_promises() {
        let shape = Shape::new(HOUR, 1, 300);
        assert_eq!((shape.kills, shape.away_for), (100, Duration::from_mins(20)));
        assert_eq!((Shape::busy_runs(HOUR), Shape::other_runs(HOUR)), (50, 100));
        assert!(shape.away_at + shape.away_for + shape.catch_up_within < HOUR);
    }

    #[test]
    fn what_a_node_misses_is_kept_and_no_more_than_half_a_run_is() {
        for minutes in [3, 5, 20, 60, 240] {
            let duration = Duration::from_mins(minutes);
            let shape = Shape::new(duration, 1, 300);
            let missed = shape.away_for.as_secs_f64() / BLOCK_TIME.as_secs_f64();
            let made = duration.as_secs_f64() / BLOCK_TIME.as_secs_f64();
            assert!(shape.retention as f64 > missed && (shape.retention as f64) < made / 2.0, "{shape:?}");
        }
        assert_eq!(
            (Shape::new(Duration::from_mins(3), 1, 1).kills, Shape::busy_runs(Duration::from_mins(3))),
            (5, 5)
        );
    }
}
