//! How a transaction changes the state: all of it or nothing.

use super::account::{Account, read_account, write_account};
use super::overlay::{Overlay, StateError, StateView};
use crate::{Action, Address, Hash, Height, TransactionBody};

/// What the block gives to each of its transactions.
#[derive(Clone, Copy, Debug)]
pub struct BlockContext {
    pub chain_id: Hash,
    pub height: Height,
    pub time_ms: u64,
    /// Receives the fees.
    pub proposer: Address,
}

/// A transaction that does not apply to the state. A block that holds one is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("the transaction is for chain {actual}, this is chain {expected}")]
    Chain { expected: Hash, actual: Hash },
    #[error("the transaction has nonce {actual}, the account's next is {expected}")]
    Nonce { expected: u64, actual: u64 },
    #[error("the transaction costs {cost}, the account holds {balance}")]
    Balance { cost: u128, balance: u64 },
    #[error("the balance or nonce of {0} would exceed 64 bits")]
    Overflow(Address),
}

/// Why execution stopped: the transaction's fault, or the store's.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Applies a transaction whose signature was verified. On an error `state` is as it was before.
pub fn execute_transaction<V: StateView>(
    state: &mut Overlay<V>,
    block: &BlockContext,
    signer: &Address,
    body: &TransactionBody,
) -> Result<(), ExecuteError> {
    if body.chain_id != block.chain_id {
        return Err(TransactionError::Chain { expected: block.chain_id, actual: body.chain_id }.into());
    }
    // Each step reads what the step before wrote: signer, receiver and proposer may be one account.
    let mut own = Overlay::new(&*state);
    debit(&mut own, signer, body)?;
    match &body.action {
        Action::Transfer { to, amount } => credit(&mut own, to, *amount)?,
    }
    credit(&mut own, &block.proposer, body.fee)?;
    let diff = own.into_diff();
    state.merge(diff);
    Ok(())
}

fn debit<V: StateView>(
    state: &mut Overlay<V>,
    signer: &Address,
    body: &TransactionBody,
) -> Result<(), ExecuteError> {
    let account = read_account(state, signer)?;
    if body.nonce != account.nonce {
        return Err(TransactionError::Nonce { expected: account.nonce, actual: body.nonce }.into());
    }
    let cost = body.cost();
    let balance = u64::try_from(cost)
        .ok()
        .and_then(|cost| account.balance.checked_sub(cost))
        .ok_or(TransactionError::Balance { cost, balance: account.balance })?;
    let nonce = account.nonce.checked_add(1).ok_or(TransactionError::Overflow(*signer))?;
    write_account(state, signer, &Account { balance, nonce });
    Ok(())
}

fn credit<V: StateView>(state: &mut Overlay<V>, to: &Address, amount: u64) -> Result<(), ExecuteError> {
    // Paying nothing leaves no trace, so that a free transaction does not create its proposer's account.
    if amount == 0 {
        return Ok(());
    }
    let account = read_account(state, to)?;
    let balance = account.balance.checked_add(amount).ok_or(TransactionError::Overflow(*to))?;
    write_account(state, to, &Account { balance, ..account });
    Ok(())
}
