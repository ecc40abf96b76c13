//! Transactions that wait, shared by the threads that admit them, the relay, the API and the engine.
//!
//! Whatever is in the pool had its signature verified, so a block that holds it is not verified again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netsplit_core::ledger::Account;
use netsplit_core::mempool::{Mempool, MempoolLimits, Refusal};
use netsplit_core::{Hash, Height, Signature, SignedTransaction};

/// Ids remembered after they left the pool, or never entered it; twice as many at most.
const REMEMBERED: usize = 32_768;

#[derive(Debug)]
pub(crate) struct Pool(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    mempool: Mempool,
    /// What the mempool holds, and for a while what it dropped by itself.
    by_id: HashMap<Hash, Arc<SignedTransaction>>,
    /// Decided, or found not to apply: not worth asking a peer for. Not those with a bad signature: an id does not
    /// cover it, so a bad copy must not keep the good one out.
    settled: Generations,
    height: Height,
}

/// Room for what the mempool dropped by itself (expired, replaced by a decided nonce) before the index is swept.
const SLACK: usize = 4096;

impl Pool {
    pub(crate) fn new(chain_id: Hash, limits: MempoolLimits) -> Self {
        Self(Mutex::new(Inner {
            mempool: Mempool::new(chain_id, limits),
            by_id: HashMap::new(),
            settled: Generations::new(REMEMBERED),
            height: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What insertion would refuse, for each transaction with its signer's account, under one lock.
    pub(crate) fn precheck<'a>(
        &self,
        items: impl Iterator<Item = (&'a SignedTransaction, Account)>,
    ) -> Vec<Result<(), Refusal>> {
        let inner = self.lock();
        items.map(|(transaction, account)| inner.mempool.precheck(transaction, &account)).collect()
    }

    /// Takes transactions whose signatures were verified, each with its signer's account.
    pub(crate) fn insert(
        &self,
        items: impl Iterator<Item = (Arc<SignedTransaction>, Account)>,
    ) -> Vec<Result<Hash, Refusal>> {
        let mut inner = self.lock();
        let height = inner.height;
        items
            .map(|(transaction, account)| {
                let id = inner.mempool.insert(transaction.clone(), &account, height)?;
                inner.by_id.insert(id, transaction);
                Ok(id)
            })
            .collect()
    }

    /// Which of `ids` are neither here nor known to be settled.
    pub(crate) fn unknown(&self, ids: &[Hash]) -> Vec<Hash> {
        let inner = self.lock();
        ids.iter()
            .filter(|id| !inner.by_id.contains_key(*id) && !inner.settled.contains(id))
            .copied()
            .collect()
    }

    /// Those of `ids` that wait here.
    pub(crate) fn get_many(&self, ids: &[Hash]) -> Vec<Arc<SignedTransaction>> {
        let inner = self.lock();
        ids.iter().filter_map(|id| inner.by_id.get(id).cloned()).collect()
    }

    pub(crate) fn get(&self, id: &Hash) -> Option<Arc<SignedTransaction>> {
        let inner = self.lock();
        inner.mempool.contains(id).then(|| inner.by_id.get(id).cloned()).flatten()
    }

    /// Up to `max` of the ids that wait.
    pub(crate) fn ids(&self, max: usize) -> Vec<Hash> {
        self.lock().by_id.keys().take(max).copied().collect()
    }

    /// Whether this very signature of the transaction was verified here.
    pub(crate) fn is_verified(&self, id: &Hash, signature: &Signature) -> bool {
        self.lock().by_id.get(id).is_some_and(|held| held.signature == *signature)
    }

    /// For the next block.
    pub(crate) fn take(&self, max_count: usize, max_bytes: usize) -> Vec<Arc<SignedTransaction>> {
        self.lock().mempool.take(max_count, max_bytes)
    }

    /// Drops transactions that do not apply any more.
    pub(crate) fn remove(&self, transactions: &[Arc<SignedTransaction>]) {
        let mut inner = self.lock();
        for transaction in transactions {
            let id = transaction.id();
            inner.mempool.remove(transaction);
            inner.by_id.remove(&id);
            inner.settled.insert(&id);
        }
    }

    /// A block was decided: `ids` are those of `transactions`.
    pub(crate) fn decided(&self, height: Height, ids: &[Hash], transactions: &[Arc<SignedTransaction>]) {
        let mut inner = self.lock();
        inner.height = height;
        inner.mempool.remove_committed(height, transactions);
        for id in ids {
            inner.by_id.remove(id);
            inner.settled.insert(id);
        }
        let Inner { mempool, by_id, .. } = &mut *inner;
        if by_id.len() > mempool.len() + SLACK {
            by_id.retain(|id, _| mempool.contains(id));
        }
        if by_id.is_empty() && by_id.capacity() > SLACK {
            by_id.shrink_to(SLACK);
        }
    }

    /// Transactions and encoded bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.mempool.len(), inner.mempool.bytes())
    }
}

/// A set of ids that forgets the oldest half when it is full. Holds 64 bits of each id: an id that is taken for another
/// by accident is only not relayed by this node.
#[derive(Debug)]
pub(crate) struct Generations {
    size: usize,
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Generations {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, new: HashSet::new(), old: HashSet::new() }
    }

    /// True when it was not there.
    pub(crate) fn insert(&mut self, id: &Hash) -> bool {
        let short = short(id);
        if self.old.contains(&short) || !self.new.insert(short) {
            return false;
        }
        if self.new.len() >= self.size {
            self.old = std::mem::take(&mut self.new);
        }
        true
    }

    pub(crate) fn contains(&self, id: &Hash) -> bool {
        let short = short(id);
        self.new.contains(&short) || self.old.contains(&short)
    }
}

fn short(id: &Hash) -> u64 {
    let (first, _) = id.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use netsplit_core::{Action, Domain, SecretKey, TransactionBody};

    use super::*;

    const CHAIN: Hash = Hash::from_bytes([1; 32]);

    fn transfer(nonce: u64) -> Arc<SignedTransaction> {
        let key = SecretKey::from_seed([1; 32]);
        let action = Action::Transfer { to: SecretKey::from_seed([2; 32]).public(), amount: 1 };
        let body = TransactionBody { chain_id: CHAIN, nonce, fee: 1, gas_limit: 0, action };
        Arc::new(SignedTransaction::sign(&body, &key))
    }

    fn account() -> Account {
        Account { balance: 1_000_000, nonce: 0 }
    }

    #[test]
    fn generations_forget_the_oldest_and_stay_bounded() {
        let mut set = Generations::new(100);
        let id = |number: u32| Hash::of(Domain::Seed, &number.to_le_bytes());
        for number in 0..1000 {
            assert!(set.insert(&id(number)));
            assert!(set.new.len() + set.old.len() <= 200);
        }
        assert!(set.contains(&id(999)) && set.contains(&id(920)) && !set.contains(&id(0)));
        assert!(!set.insert(&id(999)));
    }

    #[test]
    fn a_decided_transaction_leaves_and_is_not_fetched_again() {
        let pool = Pool::new(CHAIN, MempoolLimits::default());
        let transaction = transfer(0);
        let id = transaction.id();
        assert_eq!(pool.unknown(&[id]), [id]);
        pool.insert([(transaction.clone(), account())].into_iter()).remove(0).unwrap();
        assert!(pool.unknown(&[id]).is_empty() && pool.is_verified(&id, &transaction.signature));
        assert_eq!(pool.get_many(&[id]).len(), 1);
        pool.decided(1, &[id], &[transaction]);
        assert_eq!(pool.size(), (0, 0));
        assert!(pool.get(&id).is_none() && pool.unknown(&[id]).is_empty());
    }

    #[test]
    fn another_signature_of_a_held_transaction_is_not_verified() {
        let pool = Pool::new(CHAIN, MempoolLimits::default());
        let transaction = transfer(0);
        pool.insert([(transaction.clone(), account())].into_iter()).remove(0).unwrap();
        assert!(!pool.is_verified(&transaction.id(), &Signature::from_bytes([0; 64])));
    }

    #[test]
    fn what_the_mempool_drops_by_itself_is_swept() {
        let limits = MempoolLimits { max_age_blocks: 1, ..MempoolLimits::default() };
        let pool = Pool::new(CHAIN, limits);
        let count = SLACK as u64 + 2;
        let all = (0..count).map(|nonce| (transfer(nonce), Account { balance: u64::MAX, nonce: 0 }));
        assert!(pool.insert(all).iter().all(Result::is_ok));
        pool.decided(10, &[], &[]);
        assert_eq!(pool.size().0, 0);
        assert!(pool.lock().by_id.is_empty());
    }
}
