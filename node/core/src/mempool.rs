//! The mempool: transactions that wait for a block, bounded in number and bytes, in total and for each sender.
//!
//! A sender's transactions are held by nonce. Those that follow the account's nonce without a gap are *ready*; later ones wait, at most
//! `max_nonce_gap` ahead. [`Mempool::take`] goes over the ready senders in turns, one transaction each, so that nobody's burst delays
//! the others; a sender whose transaction was committed goes to the end of the line. Every operation costs the logarithm of what is
//! held for each transaction it touches, and never a pass over the pool.
//!
//! The pool does not verify signatures: callers check [`Mempool::precheck`], verify in batches, and then insert.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ledger::Account;
use crate::{Address, DecodeError, Hash, Height, SignedTransaction, TransactionBody};

/// How many transactions that do not fit the rest of a block are passed over before a block counts as full.
const MISFITS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MempoolLimits {
    pub max_transactions: usize,
    /// Of encoded transactions.
    pub max_bytes: usize,
    pub max_transactions_per_sender: usize,
    /// How far a nonce may be ahead of the account's.
    pub max_nonce_gap: u64,
    /// Lower fees are refused by this node; blocks that hold them are still valid.
    pub min_fee: u64,
    /// A transaction that was in no block for so many heights is dropped.
    pub max_age_blocks: u64,
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self {
            max_transactions: 50_000,
            max_bytes: 32 << 20,
            max_transactions_per_sender: 10_000,
            max_nonce_gap: 10_000,
            min_fee: 1,
            max_age_blocks: 6_000,
        }
    }
}

/// Why a transaction was not taken, in a sentence for its sender.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("mempool is full: {0} transactions; try again after the next block")]
    Full(usize),
    #[error("mempool is full: {0} bytes; try again after the next block")]
    FullBytes(usize),
    #[error("sender has {0} transactions waiting, the most allowed; try again after the next block")]
    SenderFull(usize),
    #[error("transaction is already in the mempool")]
    Duplicate,
    #[error("nonce {nonce} is used by another waiting transaction of this sender")]
    NonceTaken { nonce: u64 },
    #[error("nonce {nonce} was used already; the account's next nonce is {next}")]
    NonceUsed { nonce: u64, next: u64 },
    #[error(
        "nonce {nonce} is too far ahead; the account's next nonce is {next} and at most {gap} more may wait"
    )]
    NonceAhead { nonce: u64, next: u64, gap: u64 },
    #[error("fee {fee} is below this node's minimum of {min}")]
    Fee { fee: u64, min: u64 },
    #[error("account holds {balance}, its waiting transactions and this one cost {cost}")]
    Balance { balance: u64, cost: u128 },
    #[error("transaction is for chain {actual}, this node runs chain {expected}")]
    Chain { expected: Hash, actual: Hash },
    #[error("transaction has {size} bytes, the most allowed are {max}")]
    Size { size: usize, max: usize },
    #[error("transaction cannot be read")]
    Malformed(#[source] DecodeError),
}

#[derive(Debug)]
struct Entry {
    id: Hash,
    transaction: Arc<SignedTransaction>,
    cost: u128,
    size: usize,
    /// Key of [`Mempool::arrivals`].
    arrival: u64,
}

#[derive(Debug, Default)]
struct Sender {
    /// The account's nonce as last heard of: what is below was applied.
    floor: u64,
    waiting: BTreeMap<u64, Entry>,
    /// Sum over `waiting`.
    cost: u128,
    /// Key of [`Mempool::line`] while the transaction at `floor` is here.
    ticket: Option<u64>,
}

#[derive(Debug)]
pub struct Mempool {
    chain_id: Hash,
    limits: MempoolLimits,
    /// Only senders with something waiting.
    senders: HashMap<Address, Sender>,
    ids: HashMap<Hash, Arc<SignedTransaction>>,
    bytes: usize,
    /// Ready senders in the order of their turns, by ticket.
    line: BTreeMap<u64, Address>,
    next_ticket: u64,
    /// Everything held, oldest first: height of arrival, sender, nonce.
    arrivals: BTreeMap<u64, (Height, Address, u64)>,
    next_arrival: u64,
}

impl Mempool {
    pub fn new(chain_id: Hash, limits: MempoolLimits) -> Self {
        Self {
            chain_id,
            limits,
            senders: HashMap::new(),
            ids: HashMap::new(),
            bytes: 0,
            line: BTreeMap::new(),
            next_ticket: 0,
            arrivals: BTreeMap::new(),
            next_arrival: 0,
        }
    }

    /// Transactions held.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Encoded bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, id: &Hash) -> bool {
        self.ids.contains_key(id)
    }

    /// The transaction `id`, for a peer or user that asks.
    pub fn get(&self, id: &Hash) -> Option<&Arc<SignedTransaction>> {
        self.ids.get(id)
    }

    /// Whether `transaction`, whose id is `id`, is here with this very signature, which was then verified. A block may carry another
    /// signature under the same id; taking it for verified would make nodes disagree about the block.
    pub fn holds(&self, id: &Hash, transaction: &SignedTransaction) -> bool {
        self.ids.get(id).is_some_and(|held| held.signature == transaction.signature)
    }

    /// The next nonce that `sender` should use: after its ready transactions, given its account's nonce.
    pub fn next_nonce(&self, sender: &Address, account_nonce: u64) -> u64 {
        let mut next = account_nonce;
        if let Some(sender) = self.senders.get(sender) {
            for nonce in sender.waiting.range(account_nonce..).map(|(nonce, _)| *nonce) {
                if nonce != next {
                    break;
                }
                next += 1;
            }
        }
        next
    }

    /// Everything that [`Mempool::insert`] would refuse, without taking the transaction: cheap, so it comes before verifying the
    /// signature. `account` is the signer's as of the last decided block.
    pub fn precheck(&self, transaction: &SignedTransaction, account: &Account) -> Result<(), Refusal> {
        self.admit(&transaction.id(), transaction, account).map(|_| ())
    }

    /// Takes a transaction whose signature was verified. `height` is the last decided one. Returns the id.
    pub fn insert(
        &mut self,
        transaction: Arc<SignedTransaction>,
        account: &Account,
        height: Height,
    ) -> Result<Hash, Refusal> {
        let id = transaction.id();
        let body = self.admit(&id, &transaction, account)?;
        let (signer, size, cost) = (transaction.signer, transaction.encoded_len(), body.cost());
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.arrivals.insert(arrival, (height, signer, body.nonce));
        self.ids.insert(id, Arc::clone(&transaction));
        self.bytes += size;
        let sender = self.senders.entry(signer).or_default();
        sender.cost += cost;
        sender.waiting.insert(body.nonce, Entry { id, transaction, cost, size, arrival });
        self.raise_floor(&signer, account.nonce, false);
        Ok(id)
    }

    /// Transactions for the next block, at most `max_count` and `max_bytes` encoded, each sender's in the order of nonces. They stay
    /// here until they are committed or removed: a proposal may fail.
    pub fn take(&self, max_count: usize, max_bytes: usize) -> Vec<Arc<SignedTransaction>> {
        let mut taken = Vec::with_capacity(max_count.min(self.len()));
        let (mut room, mut misfits) = (max_bytes, 0);
        let mut line = self.line.values();
        // Senders that had a turn, with their next nonce; served again when the line has ended.
        let mut again: VecDeque<(&Sender, u64)> = VecDeque::new();
        while taken.len() < max_count && misfits < MISFITS {
            let turn = match line.next() {
                Some(address) => self.senders.get(address).map(|sender| (sender, sender.floor)),
                None => again.pop_front(),
            };
            let Some((sender, nonce)) = turn else { break };
            let Some(entry) = sender.waiting.get(&nonce) else { continue };
            if entry.size > room {
                misfits += 1;
                continue;
            }
            room -= entry.size;
            taken.push(Arc::clone(&entry.transaction));
            again.push_back((sender, nonce.saturating_add(1)));
        }
        taken
    }

    /// Drops what a decided block made obsolete: its transactions, and others with nonces they used. To be called once a height, also
    /// for an empty block: what has become too old at `height` goes as well.
    pub fn remove_committed(&mut self, height: Height, transactions: &[Arc<SignedTransaction>]) {
        for transaction in transactions {
            if !self.senders.contains_key(&transaction.signer) {
                continue;
            }
            if let Ok(body) = transaction.decode_body() {
                self.raise_floor(&transaction.signer, body.nonce.saturating_add(1), true);
            }
        }
        self.expire(height);
    }

    /// Tells that `sender`'s account has come to `nonce`: what is below goes, what follows may become ready.
    pub fn set_nonce(&mut self, sender: &Address, nonce: u64) {
        if self.senders.contains_key(sender) {
            self.raise_floor(sender, nonce, false);
        }
    }

    /// Drops one transaction, for example because it does not apply any more. Later ones of its sender wait for another in its place.
    pub fn remove(&mut self, transaction: &SignedTransaction) {
        if !self.contains(&transaction.id()) {
            return;
        }
        if let Ok(body) = transaction.decode_body() {
            self.remove_entry(&transaction.signer, body.nonce);
            self.settle(&transaction.signer, false);
        }
    }

    fn admit(
        &self,
        id: &Hash,
        transaction: &SignedTransaction,
        account: &Account,
    ) -> Result<TransactionBody, Refusal> {
        let size = transaction.encoded_len();
        if size > crate::MAX_TRANSACTION_BYTES {
            return Err(Refusal::Size { size, max: crate::MAX_TRANSACTION_BYTES });
        }
        if self.ids.contains_key(id) {
            return Err(Refusal::Duplicate);
        }
        let body = transaction.decode_body().map_err(Refusal::Malformed)?;
        if body.chain_id != self.chain_id {
            return Err(Refusal::Chain { expected: self.chain_id, actual: body.chain_id });
        }
        if body.fee < self.limits.min_fee {
            return Err(Refusal::Fee { fee: body.fee, min: self.limits.min_fee });
        }
        let sender = self.senders.get(&transaction.signer);
        let (nonce, next) = (body.nonce, account.nonce.max(sender.map_or(0, |sender| sender.floor)));
        if nonce < next {
            return Err(Refusal::NonceUsed { nonce, next });
        }
        if nonce - next > self.limits.max_nonce_gap {
            return Err(Refusal::NonceAhead { nonce, next, gap: self.limits.max_nonce_gap });
        }
        let mut cost = body.cost();
        if let Some(sender) = sender {
            if sender.waiting.contains_key(&nonce) {
                return Err(Refusal::NonceTaken { nonce });
            }
            if sender.waiting.len() >= self.limits.max_transactions_per_sender {
                return Err(Refusal::SenderFull(sender.waiting.len()));
            }
            cost += sender.cost;
        }
        if cost > u128::from(account.balance) {
            return Err(Refusal::Balance { balance: account.balance, cost });
        }
        if self.len() >= self.limits.max_transactions {
            return Err(Refusal::Full(self.len()));
        }
        if self.bytes + size > self.limits.max_bytes {
            return Err(Refusal::FullBytes(self.bytes));
        }
        Ok(body)
    }

    fn expire(&mut self, height: Height) {
        let oldest = height.saturating_sub(self.limits.max_age_blocks);
        while let Some((_, &(arrived, sender, nonce))) = self.arrivals.first_key_value()
            && arrived < oldest
        {
            self.remove_entry(&sender, nonce);
            self.settle(&sender, false);
        }
    }

    fn raise_floor(&mut self, address: &Address, floor: u64, served: bool) {
        let Some(sender) = self.senders.get_mut(address) else { return };
        sender.floor = sender.floor.max(floor);
        let floor = sender.floor;
        while let Some(nonce) = self.lowest_nonce(address)
            && nonce < floor
        {
            self.remove_entry(address, nonce);
        }
        self.settle(address, served);
    }

    fn lowest_nonce(&self, address: &Address) -> Option<u64> {
        self.senders.get(address)?.waiting.first_key_value().map(|(nonce, _)| *nonce)
    }

    /// The only place where a transaction leaves. The sender must be settled afterwards.
    fn remove_entry(&mut self, address: &Address, nonce: u64) {
        let Some(sender) = self.senders.get_mut(address) else { return };
        let Some(entry) = sender.waiting.remove(&nonce) else { return };
        sender.cost -= entry.cost;
        self.bytes -= entry.size;
        self.ids.remove(&entry.id);
        self.arrivals.remove(&entry.arrival);
    }

    /// Puts a sender into the line, out of it, or, when it was served, to its end; forgets it when nothing of it waits.
    fn settle(&mut self, address: &Address, served: bool) {
        let Some(sender) = self.senders.get_mut(address) else { return };
        let ready = sender.waiting.contains_key(&sender.floor);
        if (served || !ready)
            && let Some(ticket) = sender.ticket.take()
        {
            self.line.remove(&ticket);
        }
        if ready && sender.ticket.is_none() {
            sender.ticket = Some(self.next_ticket);
            self.line.insert(self.next_ticket, *address);
            self.next_ticket += 1;
        }
        if sender.waiting.is_empty() {
            self.senders.remove(address);
        }
    }
}
