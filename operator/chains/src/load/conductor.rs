//! Runs one load from start to end: gets everything ready, paces by the clock, closes, settles.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::gate::Gate;
use super::lane::Lane;
use super::report::{Dropped, LoadReport};
use super::tracker::{Tracker, follow};
use super::{LoadConfig, Wallet};
use crate::client::ChainClient;

/// How often credit is handed out; a batch covers about this much time.
const TICK: Duration = Duration::from_millis(10);
/// How often the live report is renewed, and how often the tracker is cleaned, in ticks.
const PUBLISH_TICKS: u64 = 25;
const CLEAN_TICKS: u64 = 100;
/// Longest wait for nonces and a block stream before the clock starts anyway.
const READY_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for lanes to use up their last credit.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Runs until the duration is over or `stopped` turns true, then gives the final report.
pub(super) async fn run(
    config: LoadConfig,
    wallet: Arc<dyn Wallet>,
    clients: Vec<Arc<dyn ChainClient>>,
    mut stopped: watch::Receiver<bool>,
    publish: watch::Sender<LoadReport>,
) -> LoadReport {
    let tracker = Arc::new(Tracker::new(wallet.as_ref()));
    // Both sets end their tasks when they go out of scope, and so when this future is dropped.
    let mut follower = JoinSet::new();
    let (open, mut opened) = watch::channel(false);
    follower.spawn(follow(Arc::clone(&tracker), clients.clone(), open));

    let mut lanes = JoinSet::new();
    let mut gates = Vec::with_capacity(clients.len());
    let lane_count = clients.len();
    for (number, client) in clients.into_iter().enumerate() {
        let gate = Arc::new(Gate::default());
        let accounts = (number..wallet.accounts()).step_by(lane_count);
        let rate = f64::from(config.rate) / lane_count as f64;
        let lane = Lane::new(
            client,
            Arc::clone(&wallet),
            Arc::clone(&tracker),
            Arc::clone(&gate),
            accounts,
            rate,
            config.max_in_flight,
        );
        lanes.spawn(lane.run());
        gates.push(gate);
    }

    let ready = async {
        // The follower only ends with this function, so the channel cannot close.
        let follower_ready = opened.wait_for(|open| *open).await.is_ok();
        for gate in &gates {
            gate.ready().await;
        }
        follower_ready
    };
    tokio::select! {
        result = timeout(READY_LIMIT, ready) => if result.is_err() {
            tracing::warn!("load starts although not every node answers");
        },
        _ = stopped.wait_for(|stop| *stop) => return tracker.report(0, Duration::ZERO),
    }

    let (offered, ran) = pace(&config, &tracker, &gates, &mut stopped, &publish).await;

    for gate in &gates {
        gate.close();
    }
    let deadline = Instant::now() + CLOSE_LIMIT;
    while let Ok(Some(ended)) = timeout_at(deadline, lanes.join_next()).await {
        if let Err(error) = ended {
            tracing::error!(%error, "a lane of the load generator broke off");
        }
    }
    lanes.shutdown().await;
    for gate in &gates {
        let unused = gate.take_credit();
        tracker.count(|counters| counters.drop_credit(Dropped::Behind, unused));
    }

    let deadline = Instant::now() + config.settle;
    let mut ticks = interval(TICK);
    while tracker.outstanding() > 0 && Instant::now() < deadline {
        ticks.tick().await;
    }
    let report = tracker.report(offered, ran);
    publish.send_replace(report.clone());
    report
}

/// Hands out credit by the clock: at any moment the total is rate x time since the start, whatever the ticks
/// did. Gives what was offered, and for how long.
async fn pace(
    config: &LoadConfig,
    tracker: &Tracker,
    gates: &[Arc<Gate>],
    stopped: &mut watch::Receiver<bool>,
    publish: &watch::Sender<LoadReport>,
) -> (u64, Duration) {
    let start = tracker.start();
    let mut offered = 0;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for tick in 1_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        let elapsed = start.elapsed();
        let ran = config.duration.map_or(elapsed, |limit| elapsed.min(limit));
        let due = due(config.rate, ran);
        share(offered, due, gates);
        offered = due;
        if tick % CLEAN_TICKS == 0 {
            tracker.forget_late();
        }
        if tick % PUBLISH_TICKS == 0 {
            publish.send_replace(tracker.report(offered, ran));
        }
        if config.duration.is_some_and(|limit| elapsed >= limit) {
            return (offered, ran);
        }
    }
    (offered, start.elapsed())
}

/// Transfers due after that time.
fn due(rate: u32, elapsed: Duration) -> u64 {
    (u128::from(rate) * elapsed.as_nanos() / 1_000_000_000) as u64
}

/// Gives transfers number `from..to` to the gates in turn.
fn share(from: u64, to: u64, gates: &[Arc<Gate>]) {
    let count = gates.len() as u64;
    for (number, gate) in (0..count).zip(gates) {
        // How many of 0..n are congruent to `number`.
        let up_to = |n: u64| (n + count - 1 - number) / count;
        gate.give(up_to(to) - up_to(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_follows_the_clock_and_not_the_ticks() {
        assert_eq!(due(3, Duration::from_millis(333)), 0);
        assert_eq!(due(3, Duration::from_millis(334)), 1);
        assert_eq!(due(1000, Duration::from_hours(1)), 3_600_000);
    }

    #[test]
    fn credit_is_shared_in_turn_without_loss() {
        let gates: Vec<_> = (0..3).map(|_| Arc::new(Gate::default())).collect();
        let mut before = 0;
        for after in [1, 1, 2, 7, 20] {
            share(before, after, &gates);
            before = after;
        }
        let given: Vec<_> = gates.iter().map(|gate| gate.take_credit()).collect();
        assert_eq!(given, [7, 7, 6]);
    }
}
