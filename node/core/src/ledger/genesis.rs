//! What a chain starts from, as far as executing it needs to know.

use super::account::{Account, write_account};
use super::overlay::{Diff, EmptyState, Overlay};
use crate::{Address, Hash, ValidatorSet};

/// Limits of a block; part of the rules, so equal on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole encoded block.
    pub max_block_bytes: usize,
    pub max_block_transactions: usize,
    /// How far a block's time may be ahead of the clock of the validator that checks it, in milliseconds.
    pub max_time_ahead_ms: u64,
}

/// The parts of a genesis file that rule validity. The file itself is read by `netsplit-config`.
#[derive(Clone, Debug)]
pub struct GenesisParts {
    /// The genesis hash. It covers the chain's name and everything below; it is also the parent of block 1.
    pub chain_id: Hash,
    pub time_ms: u64,
    pub protocol_version: u32,
    pub limits: Limits,
    pub validators: ValidatorSet,
    pub accounts: Vec<(Address, u64)>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    #[error("genesis account {0} is listed twice")]
    DuplicateAccount(Address),
    #[error("the balances of the genesis accounts together exceed 64 bits")]
    Supply,
}

impl GenesisParts {
    /// The state before block 1. The supply fits 64 bits, so no balance can overflow later.
    pub fn state(&self) -> Result<Diff, GenesisError> {
        let mut state = Overlay::new(EmptyState);
        let mut supply = 0_u64;
        for (address, balance) in &self.accounts {
            supply = supply.checked_add(*balance).ok_or(GenesisError::Supply)?;
            write_account(&mut state, address, &Account { balance: *balance, nonce: 0 });
        }
        let diff = state.into_diff();
        if diff.len() != self.accounts.len() {
            return Err(GenesisError::DuplicateAccount(self.duplicate()));
        }
        Ok(diff)
    }

    fn duplicate(&self) -> Address {
        let mut addresses: Vec<Address> = self.accounts.iter().map(|(address, _)| *address).collect();
        addresses.sort_unstable();
        let pair = addresses.windows(2).find(|pair| pair[0] == pair[1]);
        pair.expect("called when accounts outnumber distinct addresses")[0]
    }
}
