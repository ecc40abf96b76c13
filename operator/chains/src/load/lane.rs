//! One node's share of a load: its accounts, what is signed for them, and at most one call that hands in
//! transfers. A node that answers slowly gets larger batches, up to what it takes in one call.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::account::{Account, Nonce};
use super::gate::Gate;
use super::report::Dropped;
use super::tracker::Tracker;
use super::{SignedTransfer, Wallet};
use crate::client::{ChainClient, ClientError, Refusal, RefusalKind, Submission};

/// Credit older than this is dropped: a lane that was held up must not burst when it goes on.
const CREDIT_SECONDS: f64 = 0.25;
/// Least credit that a lane may hold, so that slow rates are not cut by rounding.
const CREDIT_LEAST: u64 = 32;
/// Signed ahead at most this much, in seconds of the lane's rate.
const SIGNED_SECONDS: f64 = 0.25;
/// Bounds of what is signed ahead, and of one piece of signing (some milliseconds of a thread).
const SIGNED_LEAST: usize = 16;
const SIGNED_MOST: usize = 2048;
const SIGN_PIECE: usize = 256;
/// Nonces asked for at the same time.
const ASKING_MOST: usize = 32;
/// Pause after a failed call, doubled up to the limit.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_LIMIT: Duration = Duration::from_millis(500);
/// How often accounts are looked at, and after how many looks without progress on a living chain the nonce is
/// asked for again: the node may have lost what it had accepted.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS_WITHOUT_PROGRESS: u32 = 10;

/// A signed transfer of the account in that slot.
struct Signed {
    slot: usize,
    epoch: u32,
    nonce: u64,
    transfer: SignedTransfer,
}

/// Work that has come back.
enum Done {
    Nonce { slot: usize, result: Result<u64, ClientError> },
    Signed(Option<Vec<Signed>>),
    Submitted { batch: Vec<Signed>, result: Result<Vec<Submission>, ClientError> },
}

pub(super) struct Lane {
    client: Arc<dyn ChainClient>,
    wallet: Arc<dyn Wallet>,
    tracker: Arc<Tracker>,
    gate: Arc<Gate>,
    accounts: Vec<Account>,
    /// Slot whose turn it is.
    turn: usize,
    signed: VecDeque<Signed>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    asking: usize,
    signing: usize,
    submitting: bool,
    credit_limit: u64,
    signed_target: usize,
    max_in_flight: u64,
    /// No calls before this, after a failed one.
    retry_at: Option<Instant>,
    backoff: Duration,
    height: u64,
}

impl Lane {
    pub fn new(
        client: Arc<dyn ChainClient>,
        wallet: Arc<dyn Wallet>,
        tracker: Arc<Tracker>,
        gate: Arc<Gate>,
        accounts: impl Iterator<Item = usize>,
        rate: f64,
        max_in_flight: u64,
    ) -> Self {
        Self {
            client,
            wallet,
            tracker,
            gate,
            accounts: accounts.map(Account::new).collect(),
            turn: 0,
            signed: VecDeque::new(),
            jobs: FuturesUnordered::new(),
            asking: 0,
            signing: 0,
            submitting: false,
            credit_limit: ((rate * CREDIT_SECONDS) as u64).max(CREDIT_LEAST),
            signed_target: ((rate * SIGNED_SECONDS) as usize).clamp(SIGNED_LEAST, SIGNED_MOST),
            max_in_flight,
            retry_at: None,
            backoff: BACKOFF,
            height: 0,
        }
    }

    /// Runs until the gate is closed and its credit used.
    pub async fn run(mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gate = Arc::clone(&self.gate);
        loop {
            self.ask();
            self.sign();
            self.drop_stale_credit();
            self.submit();
            let idle = !self.submitting && gate.credit() == 0;
            if idle && gate.is_closed() {
                return;
            }
            let retry_at = self.retry_at;
            tokio::select! {
                () = gate.turns() => {}
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.handle(done),
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    self.retry_at = None;
                }
                _ = looks.tick() => self.look(),
            }
        }
    }

    /// Asks for the nonces that are not known.
    fn ask(&mut self) {
        if self.retry_at.is_some() {
            return;
        }
        for slot in 0..self.accounts.len() {
            if self.asking >= ASKING_MOST {
                return;
            }
            let account = &mut self.accounts[slot];
            if account.nonce != Nonce::Unknown {
                continue;
            }
            account.nonce = Nonce::Asked;
            self.asking += 1;
            let client = Arc::clone(&self.client);
            let wallet = Arc::clone(&self.wallet);
            let number = account.number;
            self.jobs.push(
                async move { Done::Nonce { slot, result: client.next_nonce(wallet.address(number)).await } }
                    .boxed(),
            );
        }
        if self.asking == 0 {
            self.gate.set_ready();
        }
    }

    /// Signs ahead on a thread that may block, one piece at a time.
    fn sign(&mut self) {
        let missing = self.signed_target.saturating_sub(self.signed.len());
        if self.signing > 0 || missing == 0 {
            return;
        }
        let wanted = missing.min(SIGN_PIECE);
        let mut pieces = Vec::with_capacity(wanted);
        while pieces.len() < wanted {
            let Some(slot) = self.next_slot() else { break };
            let account = &mut self.accounts[slot];
            pieces.push((slot, account.epoch, account.number, account.next));
            account.next += 1;
        }
        if pieces.is_empty() {
            return;
        }
        self.signing = pieces.len();
        let wallet = Arc::clone(&self.wallet);
        let sign = move || {
            let sign_one = |(slot, epoch, number, nonce)| Signed {
                slot,
                epoch,
                nonce,
                transfer: wallet.transfer(number, nonce),
            };
            pieces.into_iter().map(sign_one).collect()
        };
        self.jobs.push(async move { Done::Signed(tokio::task::spawn_blocking(sign).await.ok()) }.boxed());
    }

    /// The next account in turn that may have one more transfer in flight.
    fn next_slot(&mut self) -> Option<usize> {
        for _ in 0..self.accounts.len() {
            let slot = self.turn;
            self.turn = (self.turn + 1) % self.accounts.len();
            let account = &mut self.accounts[slot];
            let confirmed = self.tracker.confirmed(account.number);
            account.next = account.next.max(confirmed);
            if account.nonce == Nonce::Known && account.next - confirmed < self.max_in_flight {
                return Some(slot);
            }
        }
        None
    }

    fn drop_stale_credit(&mut self) {
        let credit = self.gate.credit();
        let (why, excess) = if self.retry_at.is_some() {
            (Dropped::Unreachable, credit)
        } else if self.signed.is_empty() && self.signing == 0 && self.all_in_flight() {
            (Dropped::InFlight, credit)
        } else {
            (Dropped::Behind, credit.saturating_sub(self.credit_limit))
        };
        if excess > 0 {
            self.gate.spend(excess);
            self.tracker.count(|counters| counters.drop_credit(why, excess));
        }
    }

    fn all_in_flight(&self) -> bool {
        self.accounts.iter().all(|account| {
            let in_flight = account.next.saturating_sub(self.tracker.confirmed(account.number));
            account.nonce == Nonce::Known && in_flight >= self.max_in_flight
        })
    }

    fn submit(&mut self) {
        let credit = self.gate.credit();
        if self.submitting || credit == 0 || self.retry_at.is_some() {
            return;
        }
        let most = self.client.max_batch().min(usize::try_from(credit).unwrap_or(usize::MAX));
        let mut batch = Vec::with_capacity(most.min(self.signed.len()));
        while batch.len() < most {
            let Some(signed) = self.signed.pop_front() else { break };
            let account = &self.accounts[signed.slot];
            // Void since it was signed: the account started over, or the chain has this nonce already.
            if signed.epoch == account.epoch && signed.nonce >= self.tracker.confirmed(account.number) {
                batch.push(signed);
            }
        }
        if batch.is_empty() {
            return;
        }
        self.gate.spend(batch.len() as u64);
        let accounts = &self.accounts;
        self.tracker.sending(batch.iter().map(|s| (s.transfer.id, accounts[s.slot].number, s.nonce)));
        self.submitting = true;
        let client = Arc::clone(&self.client);
        let transactions = batch.iter().map(|signed| signed.transfer.bytes.clone()).collect();
        self.jobs.push(
            async move { Done::Submitted { result: client.submit(transactions).await, batch } }.boxed(),
        );
    }

    fn handle(&mut self, done: Done) {
        match done {
            Done::Nonce { slot, result } => {
                self.asking -= 1;
                match result {
                    Ok(next) => self.set_nonce(slot, next),
                    Err(error) => {
                        self.accounts[slot].nonce = Nonce::Unknown;
                        self.failed(&error);
                    }
                }
            }
            Done::Signed(signed) => {
                self.signing = 0;
                // None when the runtime is shutting down, and this task with it.
                self.signed.extend(signed.into_iter().flatten());
            }
            Done::Submitted { batch, result } => {
                self.submitting = false;
                match result {
                    Ok(outcomes) if outcomes.len() == batch.len() => self.answered(&batch, outcomes),
                    Ok(outcomes) => {
                        let (sent, got) = (batch.len(), outcomes.len());
                        self.unanswered(&batch);
                        self.failed(&ClientError::Malformed {
                            node: self.client.node().to_owned(),
                            call: "submit",
                            what: format!("{got} results for {sent} transactions"),
                        });
                    }
                    Err(error) => {
                        self.unanswered(&batch);
                        self.failed(&error);
                    }
                }
            }
        }
    }

    fn set_nonce(&mut self, slot: usize, next: u64) {
        self.backoff = BACKOFF;
        let account = &mut self.accounts[slot];
        self.tracker.confirm(account.number, next);
        account.stands_at(next);
    }

    fn answered(&mut self, batch: &[Signed], outcomes: Vec<Submission>) {
        self.backoff = BACKOFF;
        let mut not_taken = Vec::new();
        let mut refusals = Vec::new();
        let mut accepted = 0;
        for (signed, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Submission::Accepted(_) => accepted += 1,
                Submission::Refused(refusal) => {
                    if !matches!(refusal.kind, RefusalKind::Duplicate | RefusalKind::StaleNonce) {
                        not_taken.push(signed.transfer.id);
                    }
                    self.refused(signed, &refusal);
                    refusals.push(refusal.kind);
                }
            }
        }
        self.tracker.count(|counters| {
            counters.accepted += accepted;
            for kind in refusals {
                counters.refuse(kind);
            }
        });
        if !not_taken.is_empty() {
            self.tracker.not_taken(&not_taken);
        }
    }

    fn refused(&mut self, signed: &Signed, refusal: &Refusal) {
        let account = &mut self.accounts[signed.slot];
        // A later transfer of an account that starts over already.
        if account.epoch != signed.epoch {
            return;
        }
        match refusal.kind {
            // The node has it: nothing to do.
            RefusalKind::Duplicate => {}
            // The same nonce again, and those after it, which would only wait behind a gap.
            RefusalKind::Full => {
                account.rewind(signed.nonce);
            }
            kind => {
                tracing::debug!(
                    node = self.client.node(), account = account.number, nonce = signed.nonce,
                    reason = kind.label(), message = %refusal.message,
                    "a transfer was refused; asking for the account's nonce"
                );
                account.start_over();
            }
        }
    }

    /// The call failed: any of these may have been taken.
    fn unanswered(&mut self, batch: &[Signed]) {
        self.tracker.count(|counters| counters.unanswered += batch.len() as u64);
        for signed in batch {
            let account = &mut self.accounts[signed.slot];
            if account.epoch == signed.epoch {
                account.start_over();
            }
        }
    }

    fn failed(&mut self, error: &ClientError) {
        // Calls that failed together are one failure.
        if self.retry_at.is_none() {
            tracing::debug!(node = self.client.node(), %error, "load pauses");
            self.retry_at = Some(Instant::now() + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_LIMIT);
        }
    }

    /// Finds accounts whose transfers were accepted and then lost. Only looks at which the chain has grown
    /// count: while it stands, nothing is lost.
    fn look(&mut self) {
        let height = self.tracker.height();
        let grown = height > self.height;
        self.height = height;
        for account in &mut self.accounts {
            let confirmed = self.tracker.confirmed(account.number);
            if account.look(confirmed, grown) >= LOOKS_WITHOUT_PROGRESS {
                account.start_over();
            }
        }
    }
}
