//! How a transaction gets into the pool: decoded, checked against account and pool, its signature verified, inserted.
//!
//! All of it happens on a few threads of their own, in batches of whatever waits: verifying 500 signatures together
//! costs a third of verifying them one by one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use netsplit_bft::PeerId;
use netsplit_core::ledger::Account;
use netsplit_core::mempool::Refusal;
use netsplit_core::{Address, DecodeError, Hash, SignedTransaction, verify_batch};
use netsplit_store::{Chain, Store, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::priority;

/// Transactions that one thread takes at a time, if so many wait. A single request may bring more.
const BATCH: usize = 512;
/// Transactions, and their bytes, that may wait for a thread.
const MAX_WAITING: usize = 16_384;
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the transaction cannot be read: {0}")]
    Malformed(#[source] DecodeError),
    #[error("the signature is not the signer's")]
    Signature,
    #[error("the node has too many unverified transactions waiting; try again in a moment")]
    Busy,
    #[error("the node cannot read the account of the signer")]
    Store(#[source] StoreError),
    #[error(transparent)]
    Pool(#[from] Refusal),
}

impl Refused {
    /// Label of a metric, from a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Pool(Refusal::Malformed(_) | Refusal::Size { .. }) => "malformed",
            Self::Signature => "signature",
            Self::Busy => "busy",
            Self::Store(_) => "store",
            Self::Pool(refusal) => match refusal {
                Refusal::Full(_) | Refusal::FullBytes(_) => "full",
                Refusal::SenderFull(_) => "sender_full",
                Refusal::Duplicate => "duplicate",
                Refusal::NonceTaken { .. } => "nonce_taken",
                Refusal::NonceUsed { .. } => "nonce_used",
                Refusal::NonceAhead { .. } => "nonce_ahead",
                Refusal::Fee { .. } => "fee",
                Refusal::Balance { .. } => "balance",
                Refusal::Chain { .. } => "chain",
                _ => "other",
            },
        }
    }
}

/// Transactions that came together.
enum Request {
    /// From a user, who waits for the answer.
    User { transactions: Vec<bytes::Bytes>, reply: oneshot::Sender<Vec<Result<Hash, Refused>>> },
    /// From a peer, asked for; already decoded.
    Peer { from: PeerId, transactions: Vec<SignedTransaction> },
}

impl Request {
    fn len(&self) -> usize {
        match self {
            Self::User { transactions, .. } => transactions.len(),
            Self::Peer { transactions, .. } => transactions.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::User { transactions, .. } => transactions.iter().map(bytes::Bytes::len).sum(),
            Self::Peer { transactions, .. } => transactions.iter().map(SignedTransaction::encoded_len).sum(),
        }
    }
}

/// What was taken into the pool, for the relay to announce.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Who need not be told.
    pub from: Option<PeerId>,
    pub ids: Vec<Hash>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    transactions: usize,
    bytes: usize,
    stopped: bool,
}

/// The entrance to the pool. Stops its threads when dropped.
pub(crate) struct Admission {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A handle to hand transactions in.
#[derive(Clone)]
pub(crate) struct Entrance(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, request: Request) -> bool {
        let (count, bytes) = (request.len(), request.bytes());
        let mut queue = self.lock();
        let full = queue.transactions + count > MAX_WAITING || queue.bytes + bytes > MAX_WAITING_BYTES;
        if queue.stopped || full {
            return false;
        }
        queue.transactions += count;
        queue.bytes += bytes;
        queue.requests.push_back(request);
        drop(queue);
        self.ready.notify_one();
        true
    }

    /// Waits for requests; `None` when stopped.
    fn take(&self) -> Option<Vec<Request>> {
        let mut queue = self.lock();
        while queue.requests.is_empty() {
            if queue.stopped {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < BATCH
            && let Some(request) = queue.requests.pop_front()
        {
            count += request.len();
            queue.transactions -= request.len();
            queue.bytes -= request.bytes();
            taken.push(request);
        }
        Some(taken)
    }
}

impl Entrance {
    /// One result for each of `transactions`, in their order.
    pub(crate) async fn submit(&self, transactions: Vec<bytes::Bytes>) -> Vec<Result<Hash, Refused>> {
        let count = transactions.len();
        let busy = || (0..count).map(|_| Err(Refused::Busy)).collect();
        if count == 0 {
            return Vec::new();
        }
        let (reply, answer) = oneshot::channel();
        if !self.0.push(Request::User { transactions, reply }) {
            return busy();
        }
        // Without an answer the node is stopping.
        answer.await.unwrap_or_else(|_| busy())
    }

    /// Transactions from a peer; dropped when too many wait.
    pub(crate) fn relayed(&self, from: PeerId, transactions: Vec<SignedTransaction>) -> bool {
        transactions.is_empty() || self.0.push(Request::Peer { from, transactions })
    }
}

/// What the threads work with.
pub(crate) struct Context<S> {
    pub chain: Arc<Chain<S>>,
    pub pool: Arc<Pool>,
    pub metrics: Arc<Metrics>,
    pub accepted: mpsc::Sender<Accepted>,
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            pool: self.pool.clone(),
            metrics: self.metrics.clone(),
            accepted: self.accepted.clone(),
        }
    }
}

impl Admission {
    pub(crate) fn start<S: Store + 'static>(context: &Context<S>, threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), ready: Condvar::new() });
        let mut admission = Self { shared: shared.clone(), threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let (shared, context) = (shared.clone(), context.clone());
            let thread = std::thread::Builder::new().name(format!("verify-{index}")).spawn(move || {
                priority::yield_to_consensus();
                while let Some(requests) = shared.take() {
                    admit(&context, requests);
                }
            })?;
            admission.threads.push(thread);
        }
        Ok(admission)
    }

    pub(crate) fn entrance(&self) -> Entrance {
        Entrance(self.shared.clone())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let requests = {
            let mut queue = self.shared.lock();
            queue.stopped = true;
            std::mem::take(&mut queue.requests)
        };
        // Their senders hear that the node is busy.
        drop(requests);
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that verifies signatures panicked");
            }
        }
    }
}

/// One transaction on its way through a batch.
struct Item {
    request: usize,
    position: usize,
    transaction: Arc<SignedTransaction>,
    account: Account,
}

fn admit<S: Store>(context: &Context<S>, requests: Vec<Request>) {
    let mut outcomes: Vec<Vec<Option<Result<Hash, Refused>>>> = Vec::with_capacity(requests.len());
    let mut items = Vec::new();
    let mut sources = Vec::with_capacity(requests.len());
    for (request, content) in requests.into_iter().enumerate() {
        let mut outcome: Vec<Option<Result<Hash, Refused>>> = Vec::with_capacity(content.len());
        let mut decoded = |position: usize, transaction| {
            let account = Account::default();
            items.push(Item { request, position, transaction: Arc::new(transaction), account });
        };
        match content {
            Request::User { transactions, reply } => {
                for (position, bytes) in transactions.iter().enumerate() {
                    outcome.push(match SignedTransaction::from_bytes(bytes) {
                        Ok(transaction) => {
                            decoded(position, transaction);
                            None
                        }
                        Err(error) => Some(Err(Refused::Malformed(error))),
                    });
                }
                sources.push((None, Some(reply)));
            }
            Request::Peer { from, transactions } => {
                outcome.resize_with(transactions.len(), || None);
                for (position, transaction) in transactions.into_iter().enumerate() {
                    decoded(position, transaction);
                }
                sources.push((Some(from), None));
            }
        }
        outcomes.push(outcome);
    }
    let items = with_accounts(context, items, &mut outcomes);
    let items = prechecked(context, items, &mut outcomes);
    let items = verified(items, &mut outcomes);
    insert(context, &items, &mut outcomes);
    answer(context, sources, outcomes);
}

type Outcomes = [Vec<Option<Result<Hash, Refused>>>];

fn with_accounts<S: Store>(context: &Context<S>, items: Vec<Item>, outcomes: &mut Outcomes) -> Vec<Item> {
    let mut accounts: HashMap<Address, Account> = HashMap::new();
    let mut read = |address: &Address| -> Result<Account, StoreError> {
        if let Some(account) = accounts.get(address) {
            return Ok(*account);
        }
        let account = context.chain.account(address)?;
        accounts.insert(*address, account);
        Ok(account)
    };
    keep(items, outcomes, |item| {
        item.account = read(&item.transaction.signer).map_err(Refused::Store)?;
        Ok(())
    })
}

fn prechecked<S>(context: &Context<S>, items: Vec<Item>, outcomes: &mut Outcomes) -> Vec<Item> {
    let checks = context.pool.precheck(items.iter().map(|item| (&*item.transaction, item.account)));
    let mut checks = checks.into_iter();
    keep(items, outcomes, |_| checks.next().unwrap_or(Ok(())).map_err(Refused::Pool))
}

fn verified(items: Vec<Item>, outcomes: &mut Outcomes) -> Vec<Item> {
    let transactions: Vec<&SignedTransaction> = items.iter().map(|item| &*item.transaction).collect();
    let mut valid = verify_batch(&transactions).into_iter();
    keep(items, outcomes, |_| if valid.next() == Some(true) { Ok(()) } else { Err(Refused::Signature) })
}

fn insert<S>(context: &Context<S>, items: &[Item], outcomes: &mut Outcomes) {
    let inserted = context.pool.insert(items.iter().map(|item| (item.transaction.clone(), item.account)));
    for (item, result) in items.iter().zip(inserted) {
        outcomes[item.request][item.position] = Some(result.map_err(Refused::Pool));
    }
}

/// Keeps what passes `check`; records the others' refusals.
fn keep(
    items: Vec<Item>,
    outcomes: &mut Outcomes,
    mut check: impl FnMut(&mut Item) -> Result<(), Refused>,
) -> Vec<Item> {
    let mut kept = Vec::with_capacity(items.len());
    for mut item in items {
        match check(&mut item) {
            Ok(()) => kept.push(item),
            Err(refused) => outcomes[item.request][item.position] = Some(Err(refused)),
        }
    }
    kept
}

type Source = (Option<PeerId>, Option<oneshot::Sender<Vec<Result<Hash, Refused>>>>);

fn answer<S>(context: &Context<S>, sources: Vec<Source>, outcomes: Vec<Vec<Option<Result<Hash, Refused>>>>) {
    for ((from, reply), outcome) in sources.into_iter().zip(outcomes) {
        let results: Vec<_> =
            outcome.into_iter().map(|result| result.unwrap_or(Err(Refused::Busy))).collect();
        let ids: Vec<Hash> = results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
        context.metrics.admitted(ids.len(), results.iter().filter_map(|result| result.as_ref().err()));
        if !ids.is_empty() && context.accepted.try_send(Accepted { from, ids }).is_err() {
            // The relay is far behind; these transactions wait for this node's own turn to propose.
            context.metrics.relay_dropped.inc();
        }
        if let Some(reply) = reply {
            // A user who has gone does not need the answer.
            reply.send(results).ok();
        }
    }
}
