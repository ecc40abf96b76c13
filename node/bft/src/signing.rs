//! Signature checks, behind a seam, and the bytes that votes and proposals sign.

use netsplit_core::{Hash, PublicKey, SecretKey, Signature, sign_bytes};

use crate::context::{CoreProposal, CoreVote, SignedProposal, SignedVote, signed};
use crate::convert;
use crate::message::{Proposal, Vote};

/// Checks one signature. The answer is consensus-critical: every node must give the same one.
pub trait Verifier: Send + Sync {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
}

/// The rule of the chain: ZIP-215, as for transactions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519Verifier;

impl Verifier for Ed25519Verifier {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        key.verify(message, signature)
    }
}

impl Vote {
    /// The bytes that the validator signs.
    pub fn sign_bytes(&self, chain_id: &Hash) -> Vec<u8> {
        sign_bytes::vote(chain_id, self.kind, self.height, self.round, self.block.as_ref())
    }
}

impl Proposal {
    /// The bytes that the proposer signs.
    pub fn sign_bytes(&self, chain_id: &Hash) -> Vec<u8> {
        sign_bytes::proposal(chain_id, self.height, self.round, &self.block, self.pol_round)
    }
}

pub(crate) fn sign_vote(chain_id: &Hash, key: &SecretKey, vote: CoreVote) -> SignedVote {
    let bytes = sign_bytes::vote(
        chain_id,
        convert::kind(vote.kind),
        vote.height.0,
        convert::round(vote.round),
        convert::block(&vote.ballot).as_ref(),
    );
    let signature = key.sign(&bytes);
    signed(vote, signature)
}

pub(crate) fn sign_proposal(chain_id: &Hash, key: &SecretKey, proposal: CoreProposal) -> SignedProposal {
    let bytes = sign_bytes::proposal(
        chain_id,
        proposal.height.0,
        convert::round(proposal.round),
        &proposal.block.0,
        proposal.pol_round.as_u32(),
    );
    let signature = key.sign(&bytes);
    signed(proposal, signature)
}
