//! Accounts and where they lie in the state.

use borsh::{BorshDeserialize, BorshSerialize};

use super::overlay::{Overlay, StateError, StateView};
use crate::{Address, decode, encode};

/// The first byte of each account's key; other kinds of state get other bytes.
const PREFIX: u8 = b'a';

/// An account that was never paid and never paid is the default one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Account {
    /// In the ledger's smallest unit.
    pub balance: u64,
    /// Transactions applied so far, and the nonce of the next one.
    pub nonce: u64,
}

/// The state key of an account: prefix and encoded address, 34 bytes.
pub fn account_key(address: &Address) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + Address::ENCODED_LEN);
    key.push(PREFIX);
    key.extend_from_slice(&address.to_bytes());
    key
}

/// The account at `address`; the default one if there is none.
pub fn read_account(view: &impl StateView, address: &Address) -> Result<Account, StateError> {
    match view.get(&account_key(address))? {
        None => Ok(Account::default()),
        Some(bytes) => decode("account", &bytes).map_err(StateError::new),
    }
}

pub(super) fn write_account<V: StateView>(state: &mut Overlay<V>, address: &Address, account: &Account) {
    state.set(account_key(address), Some(encode(account)));
}
