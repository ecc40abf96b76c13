//! The funded accounts of a testnet and the transfers between them.

use std::fmt;

use netsplit_core::{Action, Hash, SecretKey, SignedTransaction, TransactionBody};
use netsplit_plan::TestnetPlan;

use super::keys::{Purpose, derive};
use crate::client::Id;
use crate::load::{SignedTransfer, Wallet, account_count};

/// What each account has at the start: a thousand million transfers of [`AMOUNT`] and [`FEE`] are two thousandths
/// of it, and a million accounts still fit the ledger's total.
pub(super) const BALANCE: u64 = 1_000_000_000_000;
const AMOUNT: u64 = 1;
const FEE: u64 = 1;

/// Accounts with their keys.
pub(super) struct LoadWallet {
    chain_id: Hash,
    keys: Vec<SecretKey>,
    addresses: Vec<String>,
}

impl LoadWallet {
    /// The keys alone; they sign for the chain that [`for_chain`](Self::for_chain) names.
    pub fn of_plan(plan: &TestnetPlan) -> Self {
        let keys: Vec<_> = (0..account_count(plan))
            .map(|number| derive(plan.seed, Purpose::LoadAccount, &number.to_string()))
            .collect();
        let addresses = keys.iter().map(|key| key.public().to_string()).collect();
        Self { chain_id: Hash::ZERO, keys, addresses }
    }

    pub fn for_chain(self, chain_id: Hash) -> Self {
        Self { chain_id, ..self }
    }

    pub fn keys(&self) -> &[SecretKey] {
        &self.keys
    }

    /// Whom an account pays: each of the others in turn, itself when it is alone.
    fn payee(&self, account: usize, nonce: u64) -> usize {
        let others = (self.keys.len() as u64 - 1).max(1);
        let step = 1 + nonce % others;
        (account + step as usize) % self.keys.len()
    }
}

impl fmt::Debug for LoadWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoadWallet({} accounts of {})", self.keys.len(), self.chain_id)
    }
}

impl Wallet for LoadWallet {
    fn accounts(&self) -> usize {
        self.keys.len()
    }

    fn address(&self, account: usize) -> &str {
        &self.addresses[account]
    }

    fn transfer(&self, account: usize, nonce: u64) -> SignedTransfer {
        let to = self.keys[self.payee(account, nonce)].public();
        let body = TransactionBody {
            chain_id: self.chain_id,
            nonce,
            fee: FEE,
            gas_limit: 0,
            action: Action::Transfer { to, amount: AMOUNT },
        };
        let transaction = SignedTransaction::sign(&body, &self.keys[account]);
        SignedTransfer { id: Id(*transaction.id().as_bytes()), bytes: transaction.to_bytes() }
    }

    fn is_checked(&self) -> bool {
        true
    }
}
