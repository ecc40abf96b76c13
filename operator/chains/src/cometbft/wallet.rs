//! Writes into the key-value store. An account is a key, its nonce the value: the store itself then tells which comes next.

use bytes::Bytes;
use netsplit_plan::TestnetPlan;
use sha2::{Digest as _, Sha256};

use crate::client::Id;
use crate::load::{SignedTransfer, Wallet, account_count};

#[derive(Debug)]
pub(super) struct KeyValueWallet {
    addresses: Vec<String>,
}

impl KeyValueWallet {
    pub fn of_plan(plan: &TestnetPlan) -> Self {
        Self { addresses: (0..account_count(plan)).map(|number| format!("account-{number}")).collect() }
    }
}

impl Wallet for KeyValueWallet {
    fn accounts(&self) -> usize {
        self.addresses.len()
    }

    fn address(&self, account: usize) -> &str {
        &self.addresses[account]
    }

    fn transfer(&self, account: usize, nonce: u64) -> SignedTransfer {
        let bytes = Bytes::from(format!("{}={nonce}", self.addresses[account]));
        SignedTransfer { id: id(&bytes), bytes }
    }

    fn is_checked(&self) -> bool {
        false
    }
}

/// Under which a transaction appears in a block.
pub(super) fn id(transaction: &[u8]) -> Id {
    Id(Sha256::digest(transaction).into())
}
