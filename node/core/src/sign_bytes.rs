//! The bytes that are signed. Each kind starts with its own 16-byte tag, then the chain id (the genesis hash) where the message does
//! not carry it already; integers are big-endian and every field has a fixed length, so that no two messages share their bytes.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{Hash, Height};

const TRANSACTION: &[u8; 16] = b"netsplit/sign-tx";
const VOTE: &[u8; 16] = b"netsplit/sign-vt";
const PROPOSAL: &[u8; 16] = b"netsplit/sign-pr";

/// The two steps of voting in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum VoteKind {
    Prevote = 1,
    Precommit = 2,
}

/// What the sender of a transaction signs. The id covers the body, and so the chain id.
pub fn transaction(id: &Hash) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(TRANSACTION);
    bytes[16..].copy_from_slice(id.as_ref());
    bytes
}

/// What a validator signs to vote for `block`, or for nil.
pub fn vote(chain_id: &Hash, kind: VoteKind, height: Height, round: u32, block: Option<&Hash>) -> Vec<u8> {
    let mut bytes = start(VOTE, chain_id, height, round);
    bytes.push(kind as u8);
    bytes.push(u8::from(block.is_some()));
    bytes.extend_from_slice(block.unwrap_or(&Hash::ZERO).as_ref());
    bytes
}

/// What a proposer signs. `pol_round` is the round of the polka that the proposal re-uses, if any.
pub fn proposal(
    chain_id: &Hash,
    height: Height,
    round: u32,
    block: &Hash,
    pol_round: Option<u32>,
) -> Vec<u8> {
    let mut bytes = start(PROPOSAL, chain_id, height, round);
    bytes.extend_from_slice(block.as_ref());
    bytes.push(u8::from(pol_round.is_some()));
    bytes.extend_from_slice(&pol_round.unwrap_or(0).to_be_bytes());
    bytes
}

fn start(tag: &[u8; 16], chain_id: &Hash, height: Height, round: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(104);
    bytes.extend_from_slice(tag);
    bytes.extend_from_slice(chain_id.as_ref());
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&round.to_be_bytes());
    bytes
}
