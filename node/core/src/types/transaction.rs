//! Transactions. The body travels as bytes, and what is hashed and signed is those bytes, so no re-encoding can change an id.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

use super::hash::{Domain, Hash};
use super::key::{Address, PublicKey, SecretKey, Signature};
use super::{DecodeError, decode, encode};
use crate::sign_bytes;

/// Limit on the encoded form of one signed transaction, in bytes; it fits one frame of the peer protocol.
pub const MAX_TRANSACTION_BYTES: usize = 128 * 1024;

/// A transaction as it is sent, stored and counted. Nothing is checked by constructing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// The borsh encoding of a [`TransactionBody`], as the sender made it.
    pub body: Bytes,
    pub signer: PublicKey,
    /// Of [`sign_bytes::transaction`] over the id.
    pub signature: Signature,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TransactionBody {
    /// The genesis hash, so that a transaction of one chain means nothing on another.
    pub chain_id: Hash,
    /// Equals the number of transactions the signer had applied before this one.
    pub nonce: u64,
    /// Paid by the signer to the proposer of the block, in the ledger's smallest unit.
    pub fee: u64,
    /// Bounds what a contract call may use; a transfer uses none.
    pub gas_limit: u64,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Action {
    /// Moves `amount` (smallest unit) from the signer to `to`, whose account need not exist yet.
    Transfer { to: Address, amount: u64 },
}

impl TransactionBody {
    /// What this transaction takes from its signer at most: fee and amount. Wider than a balance, so it cannot overflow.
    pub fn cost(&self) -> u128 {
        let Action::Transfer { amount, .. } = self.action;
        u128::from(self.fee) + u128::from(amount)
    }
}

impl SignedTransaction {
    pub fn sign(body: &TransactionBody, key: &SecretKey) -> Self {
        let body = encode(body);
        let signer = key.public();
        let signature = key.sign(&sign_bytes::transaction(&id_of(&body, &signer)));
        Self { body, signer, signature }
    }

    /// Over body and signer. The signature is left out: who holds a signature can often make another of the same message.
    pub fn id(&self) -> Hash {
        id_of(&self.body, &self.signer)
    }

    /// Reads the body strictly.
    pub fn decode_body(&self) -> Result<TransactionBody, DecodeError> {
        decode("transaction body", &self.body)
    }

    /// Whether the signature is the signer's, by ZIP-215.
    pub fn verify(&self) -> bool {
        self.signer.verify(&sign_bytes::transaction(&self.id()), &self.signature)
    }

    /// Length of [`SignedTransaction::to_bytes`] without making it.
    pub fn encoded_len(&self) -> usize {
        4 + self.body.len() + PublicKey::ENCODED_LEN + 64
    }

    pub fn to_bytes(&self) -> Bytes {
        encode(self)
    }

    /// Strict, and no longer than [`MAX_TRANSACTION_BYTES`]. The body is not decoded here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_TRANSACTION_BYTES {
            return Err(DecodeError::invalid(
                "transaction",
                format!("{} bytes exceed the limit of {MAX_TRANSACTION_BYTES}", bytes.len()),
            ));
        }
        decode("transaction", bytes)
    }
}

fn id_of(body: &[u8], signer: &PublicKey) -> Hash {
    // The signer has a fixed length and comes last, so body and signer cannot run into each other.
    Hash::of_parts(Domain::Transaction, &[body, &signer.to_bytes()])
}

impl BorshSerialize for SignedTransaction {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        <[u8]>::serialize(&self.body, writer)?;
        self.signer.serialize(writer)?;
        self.signature.serialize(writer)
    }
}

impl BorshDeserialize for SignedTransaction {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Ok(Self {
            body: Vec::<u8>::deserialize_reader(reader)?.into(),
            signer: PublicKey::deserialize_reader(reader)?,
            signature: Signature::deserialize_reader(reader)?,
        })
    }
}
