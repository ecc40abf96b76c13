//! The real ledger over a store in memory, behind the engine's seam, with a fuse around each effect.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use netsplit_bft::{Application, Fatal, Verdict};
use netsplit_core::ledger::GenesisParts;
use netsplit_core::{
    Action, Address, Block, Commit, Hash, Height, SecretKey, Signature, SignedTransaction, TransactionBody,
    ValidatorSet,
};
use netsplit_store::{Chain, CheckError, CheckedBlock, MemoryStore};

use crate::fuse::Fuse;
use crate::rng::Rng;

/// What all nodes of a run share.
#[derive(Debug)]
pub struct Shared {
    pub genesis: GenesisParts,
    pub accounts: Vec<SecretKey>,
    /// Transactions signed in this run, which need no check.
    pub signed: RefCell<HashSet<(Hash, Signature)>>,
    /// Unix time in milliseconds.
    pub clock_ms: Cell<u64>,
}

#[derive(Debug)]
pub struct SimApp {
    pub chain: Chain<Arc<MemoryStore>>,
    proposer: Address,
    shared: Rc<Shared>,
    fuse: Fuse,
    rng: Rng,
    checked: Option<CheckedBlock>,
}

impl SimApp {
    pub fn new(
        store: Arc<MemoryStore>,
        proposer: Address,
        shared: Rc<Shared>,
        fuse: Fuse,
        rng: Rng,
    ) -> Result<Self, Fatal> {
        let chain =
            Chain::open(store, &shared.genesis).map_err(|error| Fatal::application("open", 0, error))?;
        let chain = chain.with_threads(std::num::NonZeroUsize::MIN);
        Ok(Self { chain, proposer, shared, fuse, rng, checked: None })
    }

    fn burn(&self, action: &'static str) -> Result<(), Fatal> {
        self.fuse.burn().map_err(|_| Fatal::application(action, self.height(), "simulated crash"))
    }

    fn transfers(&mut self) -> Result<Vec<Arc<SignedTransaction>>, Fatal> {
        let mut transfers = Vec::new();
        for _ in 0..self.rng.below(3) {
            let from = self.rng.pick(&self.shared.accounts).clone();
            let to = self.rng.pick(&self.shared.accounts).public();
            let account =
                self.chain.account(&from.public()).map_err(|error| self.failed("account", error))?;
            let body = TransactionBody {
                chain_id: self.shared.genesis.chain_id,
                nonce: account.nonce,
                fee: 1,
                gas_limit: 0,
                action: Action::Transfer { to, amount: self.rng.range(1, 100) },
            };
            let transfer = SignedTransaction::sign(&body, &from);
            self.shared.signed.borrow_mut().insert((transfer.id(), transfer.signature));
            transfers.push(Arc::new(transfer));
        }
        Ok(transfers)
    }

    fn failed(&self, action: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Fatal {
        Fatal::application(action, self.height(), error)
    }

    fn check_at(&self, block: &Block, now_ms: u64) -> Result<CheckedBlock, CheckError> {
        let signed = self.shared.signed.borrow();
        self.chain.check(block, now_ms, &|id, transfer| signed.contains(&(*id, transfer.signature)))
    }
}

impl Application for SimApp {
    fn propose(&mut self, _: Height, last_commit: &Commit) -> Result<Bytes, Fatal> {
        self.burn("propose")?;
        let transfers = self.transfers()?;
        let now = self.shared.clock_ms.get();
        let block = self.chain.build(self.proposer, now, transfers, last_commit.clone());
        block.map(|block| block.to_bytes()).map_err(|error| self.failed("build", error))
    }

    fn check(&mut self, block: &Bytes) -> Result<Verdict, Fatal> {
        let block = match Block::from_bytes(block) {
            Ok(block) => block,
            Err(error) => return Ok(Verdict::Invalid { reason: error.to_string() }),
        };
        match self.check_at(&block, self.shared.clock_ms.get()) {
            Ok(checked) => {
                let id = checked.id();
                self.checked = Some(checked);
                Ok(Verdict::Valid { id })
            }
            Err(CheckError::Invalid(reason)) => Ok(Verdict::Invalid { reason: reason.to_string() }),
            Err(CheckError::Store(error)) => Err(self.failed("check", error)),
        }
    }

    fn decide(&mut self, block: &Bytes, commit: &Commit) -> Result<ValidatorSet, Fatal> {
        self.burn("decide")?;
        let known = self.checked.take().filter(|checked| checked.id() == commit.block);
        let checked = if let Some(checked) = known {
            checked
        } else {
            let block = Block::from_bytes(block).map_err(|error| self.failed("decode", error))?;
            self.check_at(&block, u64::MAX).map_err(|error| self.failed("check", error))?
        };
        let applied = self.chain.commit(checked, commit).map_err(|error| self.failed("commit", error))?;
        self.burn("decide")?;
        Ok((*applied.next_validators).clone())
    }

    fn block(&self, height: Height) -> Result<Option<(Bytes, Commit)>, Fatal> {
        self.chain.block(height).map_err(|error| self.failed("read", error))
    }

    fn height(&self) -> Height {
        self.chain.height()
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        self.burn("sync")?;
        self.chain.sync().map_err(|error| self.failed("sync", error))?;
        self.burn("sync")
    }
}
