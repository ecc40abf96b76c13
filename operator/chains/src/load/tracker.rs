//! Matches what was sent with what became final, and keeps the counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Wallet;
use super::report::{Counters, LoadReport};
use crate::client::{BlockSeen, BlocksQuery, ChainClient, ClientError, Id, StartAt};

/// A transfer whose nonce the chain has passed may still show up on a stream that lags; after this long it is
/// given up.
const LATE: Duration = Duration::from_mins(1);

/// Pauses between attempts to follow a stream.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_LIMIT: Duration = Duration::from_millis(500);

/// A transfer on its way.
struct Flight {
    account: usize,
    nonce: u64,
    sent: Instant,
}

struct State {
    flights: HashMap<Id, Flight>,
    counters: Counters,
}

/// Shared by the lanes, which report what they send, and the follower, which reports blocks. Locked once a
/// batch and once a block.
pub(super) struct Tracker {
    state: Mutex<State>,
    /// For each account the lowest nonce that is not known to be final.
    confirmed: Vec<AtomicU64>,
    /// Height of the newest block seen.
    height: AtomicU64,
    started: OnceLock<Instant>,
    signatures_checked: bool,
}

impl Tracker {
    pub fn new(wallet: &dyn Wallet) -> Self {
        Self {
            state: Mutex::new(State { flights: HashMap::new(), counters: Counters::new() }),
            confirmed: (0..wallet.accounts()).map(|_| AtomicU64::new(0)).collect(),
            height: AtomicU64::new(0),
            started: OnceLock::new(),
            signatures_checked: wallet.is_checked(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts stay meaningful whatever a panicking task left undone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the load starts now.
    pub fn start(&self) -> Instant {
        *self.started.get_or_init(Instant::now)
    }

    pub fn count(&self, with: impl FnOnce(&mut Counters)) {
        with(&mut self.lock().counters);
    }

    pub fn report(&self, offered: u64, ran: Duration) -> LoadReport {
        self.lock().counters.report(offered, ran, self.signatures_checked)
    }

    /// The lowest nonce of that account that is not known to be final.
    pub fn confirmed(&self, account: usize) -> u64 {
        self.confirmed[account].load(Ordering::Relaxed)
    }

    /// The chain itself says that this is the account's next nonce.
    pub fn confirm(&self, account: usize, next: u64) {
        self.confirmed[account].fetch_max(next, Ordering::Relaxed);
    }

    pub fn height(&self) -> u64 {
        self.height.load(Ordering::Relaxed)
    }

    /// How many transfers are on their way.
    pub fn outstanding(&self) -> usize {
        self.lock().flights.len()
    }

    /// Notes transfers before they are sent, so that no block can be earlier. One that is sent again keeps its
    /// first time.
    pub fn sending(&self, transfers: impl Iterator<Item = (Id, usize, u64)>) {
        let sent = Instant::now();
        let mut state = self.lock();
        for (id, account, nonce) in transfers {
            state.flights.entry(id).or_insert(Flight { account, nonce, sent });
            state.counters.submitted += 1;
        }
    }

    /// These were not taken by the node.
    pub fn not_taken(&self, ids: &[Id]) {
        let mut state = self.lock();
        for id in ids {
            state.flights.remove(id);
        }
    }

    fn block(&self, block: &BlockSeen) {
        let now = Instant::now();
        let since_start = self.started.get().map_or(Duration::ZERO, |start| now - *start);
        let mut state = self.lock();
        for id in &block.transaction_ids {
            if let Some(flight) = state.flights.remove(id) {
                self.confirm(flight.account, flight.nonce + 1);
                state.counters.commit(now - flight.sent, since_start);
            }
        }
        drop(state);
        self.height.fetch_max(block.height, Ordering::Relaxed);
    }

    /// Forgets transfers that the chain has passed and that no block has shown. What is left is bounded by the
    /// number of accounts and the transfers each may have in flight.
    pub fn forget_late(&self) {
        let now = Instant::now();
        self.lock()
            .flights
            .retain(|_, flight| flight.nonce >= self.confirmed(flight.account) || now - flight.sent < LATE);
    }
}

/// Follows the blocks of one client, and of the next one when that fails. Says on `open` when the first stream
/// is there. Never returns.
pub(super) async fn follow(
    tracker: Arc<Tracker>,
    clients: Vec<Arc<dyn ChainClient>>,
    open: watch::Sender<bool>,
) {
    let mut next_height = None;
    let mut backoff = BACKOFF;
    for client in clients.iter().cycle() {
        match follow_one(&tracker, client.as_ref(), &mut next_height, &open, &mut backoff).await {
            Err(ClientError::Pruned { node, height, message }) => {
                tracing::warn!(%node, height, %message, "transfers in pruned blocks will not be counted");
                next_height = None;
            }
            Err(error) => tracing::debug!(%error, "the stream that measures load ended"),
            Ok(()) => tracing::debug!(node = client.node(), "the stream that measures load ended"),
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LIMIT);
    }
}

async fn follow_one(
    tracker: &Tracker,
    client: &dyn ChainClient,
    next_height: &mut Option<u64>,
    open: &watch::Sender<bool>,
    backoff: &mut Duration,
) -> Result<(), ClientError> {
    // The height is fixed before the load begins, so that a change of client misses no block.
    let from = match *next_height {
        Some(height) => height,
        None => *next_height.insert(client.status().await?.final_height + 1),
    };
    let query = BlocksQuery { from: StartAt::Height(from), transaction_ids: true, state_roots: false };
    let mut blocks = client.blocks(query).await?;
    open.send_replace(true);
    while let Some(block) = blocks.next().await {
        let block = block?;
        tracker.block(&block);
        *next_height = Some(block.height + 1);
        *backoff = BACKOFF;
    }
    Ok(())
}
