//! How busy the host is that observer, nodes and links run on.
//!
//! The scheduling lag is measured and not taken from the kernel's word: a thread sleeps for 10 ms over and over
//! and notes how much later it woke. It shares no runtime with anything, so only the host can make it late.

mod proc;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netsplit_plan::experiment::HostPressure;

use self::proc::CpuTimes;
use crate::ring::{Cursor, Ring};

/// How long the thread means to sleep.
const SLEEP: Duration = Duration::from_millis(10);
/// Samples kept: a minute.
const KEPT: usize = 6_000;

struct Lags {
    samples: Ring<Duration>,
    /// When the sleep that goes on now began.
    asleep_since: Instant,
}

struct Shared {
    lags: Mutex<Lags>,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lags> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples from its start until it is dropped. Costs a hundred wake-ups a second.
pub struct HostSampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for HostSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSampler").field("running", &self.thread.is_some()).finish_non_exhaustive()
    }
}

/// How far one reader has come.
#[derive(Debug, Clone)]
pub struct HostCursor {
    lags: Cursor,
    times: CpuTimes,
}

impl HostSampler {
    /// Starts the thread. If the host cannot even start a thread, every reading shows it as overloaded.
    pub fn start() -> Self {
        Self::start_with(thread::sleep)
    }

    /// As [`start`](Self::start), with another way to sleep.
    pub fn start_with(sleep: impl Fn(Duration) + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            lags: Mutex::new(Lags { samples: Ring::new(KEPT), asleep_since: Instant::now() }),
            stop: AtomicBool::new(false),
        });
        let sampled = Arc::clone(&shared);
        let spawned =
            thread::Builder::new().name("host-sampler".to_owned()).spawn(move || sample(&sampled, &sleep));
        let thread = spawned
            .inspect_err(
                |error: &io::Error| tracing::error!(%error, "cannot measure the host's scheduling lag"),
            )
            .ok();
        Self { shared, thread }
    }

    /// For a reader that starts now.
    pub fn cursor(&self) -> HostCursor {
        HostCursor { lags: self.shared.lock().samples.end(), times: CpuTimes::read() }
    }

    /// The pressure since that cursor's last use.
    pub fn pressure(&self, cursor: &mut HostCursor) -> HostPressure {
        let times = CpuTimes::read();
        let since = std::mem::replace(&mut cursor.times, times.clone());
        let mut lags = {
            let lags = self.shared.lock();
            let (samples, _) = lags.samples.read(&mut cursor.lags);
            let mut found: Vec<_> = samples.copied().collect();
            // A thread that does not get to run writes no sample: what it is late by now counts as one.
            found.push(lags.asleep_since.elapsed().saturating_sub(SLEEP));
            found
        };
        lags.sort_unstable();
        HostPressure {
            lag_p99_ms: millis(quantile(&lags, 99, 100)),
            lag_max_ms: millis(quantile(&lags, 1, 1)),
            cpu_pressure: times.pressure_since(&since),
            steal: times.steal_since(&since),
        }
    }
}

impl Drop for HostSampler {
    fn drop(&mut self) {
        // The thread sees it within one sleep; nothing waits for that.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(shared: &Shared, sleep: &impl Fn(Duration)) {
    while !shared.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        shared.lock().asleep_since = begun;
        sleep(SLEEP);
        let lag = begun.elapsed().saturating_sub(SLEEP);
        let mut lags = shared.lock();
        lags.samples.push(lag);
        lags.asleep_since = Instant::now();
    }
}

/// The smallest value that `numerator / denominator` of the sorted values do not exceed.
fn quantile(sorted: &[Duration], numerator: usize, denominator: usize) -> Duration {
    let rank = (sorted.len() * numerator).div_ceil(denominator).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "{what} within 10 s");
            thread::yield_now();
        }
    }

    #[test]
    fn quantiles_take_the_nearest_rank() {
        let of = |values: &[u64], n| {
            let values: Vec<_> = values.iter().copied().map(Duration::from_millis).collect();
            quantile(&values, n, 100).as_millis()
        };
        assert_eq!(of(&[], 99), 0);
        assert_eq!(of(&[7], 99), 7);
        assert_eq!(of(&[1, 2, 3, 4], 50), 2);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(of(&hundred, 99), 99);
        assert_eq!(of(&hundred, 100), 100);
    }

    #[test]
    fn a_late_wake_up_is_a_lag() {
        let sampler = HostSampler::start_with(|time| thread::sleep(time + Duration::from_millis(60)));
        let mut cursor = sampler.cursor();
        wait_for("two samples", || {
            sampler.shared.lock().samples.read(&mut Ring::<Duration>::beginning()).0.count() >= 2
        });
        let pressure = sampler.pressure(&mut cursor);
        assert!(pressure.lag_max_ms >= 60.0, "{pressure:?}");
        assert!(pressure.lag_p99_ms >= 60.0, "{pressure:?}");
    }

    #[test]
    fn a_thread_that_does_not_wake_at_all_is_a_lag_too() {
        let (wake, asleep) = mpsc::channel::<()>();
        let sampler = HostSampler::start_with(move |_| {
            // Sleeps until the test is over.
            assert!(asleep.recv().is_err());
        });
        let mut cursor = sampler.cursor();
        wait_for("a lag of 30 ms", || sampler.pressure(&mut cursor).lag_max_ms >= 30.0);
        drop(wake);
    }

    #[test]
    fn a_window_holds_only_its_own_samples() {
        let (sleeps, slow) = mpsc::channel::<Duration>();
        let (done, awake) = mpsc::channel::<()>();
        let sampler = HostSampler::start_with(move |_| {
            if let Ok(time) = slow.recv() {
                thread::sleep(time);
                // The receiver is gone at the end of the test.
                done.send(()).ok();
            }
        });
        let mut cursor = sampler.cursor();
        sleeps.send(Duration::from_millis(200)).unwrap();
        awake.recv().unwrap();
        // The sample is written after the sleep; the next one begins after that.
        sleeps.send(Duration::ZERO).unwrap();
        awake.recv().unwrap();
        assert!(sampler.pressure(&mut cursor).lag_max_ms >= 190.0);
        sleeps.send(Duration::ZERO).unwrap();
        awake.recv().unwrap();
        let pressure = sampler.pressure(&mut cursor);
        assert!(pressure.lag_max_ms < 190.0, "{pressure:?}");
    }
}
