//! The ledger: accounts in a key-value state, and the rules by which transactions change it.
//!
//! It executes on a [`StateView`], the stored state, under a stack of diffs, each an [`Overlay`] over the one below: a transaction over
//! its block, a block over blocks that are not stored yet. Dropping an overlay undoes it.

mod account;
mod execute;
mod genesis;
mod overlay;

pub use account::{Account, account_key, read_account};
pub use execute::{BlockContext, ExecuteError, TransactionError, execute_transaction};
pub use genesis::{GenesisError, GenesisParts, Limits};
pub use overlay::{Diff, EmptyState, Overlay, StateError, StateView};
