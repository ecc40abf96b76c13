//! The load that a testnet's spec asks for. It makes way for whoever sends transfers by hand.

use std::sync::Arc;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::status::Facts;
use crate::{
    by_hand::{LEASE, Mark},
    session::Session,
};

/// Runs the load whenever nobody sends by hand, for as long as it is polled; tells `makes_way` for whom it does not run.
///
/// A mark's end is counted from when it was seen, so that the clock of who made it does not matter.
pub async fn keep(
    session: Arc<Session>,
    mut facts: watch::Receiver<Facts>,
    makes_way: watch::Sender<Option<String>>,
) {
    if session.plan.load.is_none() {
        return;
    }
    loop {
        let mark = facts.borrow_and_update().mark.clone();
        let in_force = mark.map(|(mark, seen)| (mark, seen + LEASE)).filter(|(_, end)| *end > Instant::now());
        let changed = if let Some((mark, end)) = in_force {
            session.load.pause_background().await;
            makes_way.send_replace(Some(Mark::read(&mark).by));
            tokio::select! {
                changed = facts.changed() => changed,
                () = sleep_until(end) => Ok(()),
            }
        } else {
            makes_way.send_replace(None);
            if let Err(error) = session.start_load().await {
                tracing::error!(testnet = session.plan.name, "the load cannot be started: {error:#}");
            }
            facts.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}
