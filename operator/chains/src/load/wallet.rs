//! The accounts that load is sent from.

use bytes::Bytes;
use netsplit_plan::TestnetPlan;
use netsplit_spec::Load;

use crate::client::Id;

/// Funded accounts with their keys. Signing takes some ten microseconds of processor time and is called from
/// threads that may block.
pub trait Wallet: Send + Sync {
    /// How many accounts there are, numbered from 0.
    fn accounts(&self) -> usize;

    /// The address of an account, as the chain's API takes it.
    fn address(&self, account: usize) -> &str;

    /// The transfer of that account with that nonce. Always the same bytes, so that sending it again after a
    /// lost answer can at most be refused as a duplicate.
    fn transfer(&self, account: usize, nonce: u64) -> SignedTransfer;

    /// Whether the chain checks a signature on each of them: figures of chains that do and that do not do not compare.
    fn is_checked(&self) -> bool;
}

/// How many accounts a testnet has for load, whether its spec asks for load or a person starts it later.
pub(crate) fn account_count(plan: &TestnetPlan) -> usize {
    plan.load.map_or(Load::DEFAULT_ACCOUNTS, |load| load.accounts) as usize
}

/// A transaction that is ready to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransfer {
    /// Under which it will appear in a block.
    pub id: Id,
    /// As the node takes it.
    pub bytes: Bytes,
}
