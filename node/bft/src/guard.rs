//! The sign guard: what this node has signed, by (height, round, kind), rebuilt from the log at boot. It stands between
//! the core and the key: whatever the core asks to sign, one key yields one message for each place.

use std::collections::BTreeMap;

use malachitebft_core_types::VoteType;
use netsplit_core::{Hash, Height, SecretKey};

use crate::context::{CoreProposal, CoreVote, SignedProposal, SignedVote};
use crate::signing;

type VotePlace = (Height, i64, VoteType);
type ProposalPlace = (Height, i64);

#[derive(Debug, Default)]
pub(crate) struct Guard {
    votes: BTreeMap<VotePlace, SignedVote>,
    proposals: BTreeMap<ProposalPlace, SignedProposal>,
    /// Times that the core asked for a second, different message. Never, if replay is sound.
    pub refused: u64,
}

fn vote_place(vote: &CoreVote) -> VotePlace {
    (vote.height.0, vote.round.as_i64(), vote.kind)
}

fn proposal_place(proposal: &CoreProposal) -> ProposalPlace {
    (proposal.height.0, proposal.round.as_i64())
}

impl Guard {
    /// Notes a vote of this node that the log holds, or is about to hold. The first one stays.
    pub fn note_vote(&mut self, vote: &SignedVote) {
        self.votes.entry(vote_place(vote)).or_insert_with(|| vote.clone());
    }

    pub fn note_proposal(&mut self, proposal: &SignedProposal) {
        self.proposals.entry(proposal_place(proposal)).or_insert_with(|| proposal.clone());
    }

    pub fn holds_vote(&self, vote: &SignedVote) -> bool {
        self.votes.get(&vote_place(vote)) == Some(vote)
    }

    pub fn holds_proposal(&self, proposal: &SignedProposal) -> bool {
        self.proposals.get(&proposal_place(proposal)) == Some(proposal)
    }

    pub fn has_proposed(&self, height: Height, round: u32) -> bool {
        self.proposals.contains_key(&(height, i64::from(round)))
    }

    /// Signs `vote`, or returns what was signed in its place before.
    pub fn sign_vote(&mut self, chain_id: &Hash, key: &SecretKey, vote: CoreVote) -> SignedVote {
        if let Some(earlier) = self.votes.get(&vote_place(&vote)) {
            if earlier.message != vote {
                self.refused += 1;
                tracing::error!(asked = ?vote, signed = ?earlier.message, "refused to sign a second vote");
            }
            return earlier.clone();
        }
        let signed = signing::sign_vote(chain_id, key, vote);
        self.note_vote(&signed);
        signed
    }

    /// Signs `proposal`, or returns what was signed in its place before.
    pub fn sign_proposal(
        &mut self,
        chain_id: &Hash,
        key: &SecretKey,
        proposal: CoreProposal,
    ) -> SignedProposal {
        if let Some(earlier) = self.proposals.get(&proposal_place(&proposal)) {
            if earlier.message != proposal {
                self.refused += 1;
                tracing::error!(asked = ?proposal, signed = ?earlier.message, "refused to sign a second proposal");
            }
            return earlier.clone();
        }
        let signed = signing::sign_proposal(chain_id, key, proposal);
        self.note_proposal(&signed);
        signed
    }

    /// Forgets heights below `height`, whose decisions are durable.
    pub fn prune(&mut self, height: Height) {
        self.votes.retain(|place, _| place.0 >= height);
        self.proposals.retain(|place, _| place.0 >= height);
    }
}

#[cfg(test)]
mod tests {
    use malachitebft_core_types::{NilOrVal, Round};

    use super::*;
    use crate::context::{Addr, At, Id};

    #[test]
    fn a_second_vote_in_one_place_is_never_signed() {
        let key = SecretKey::from_seed([1; 32]);
        let chain = Hash::ZERO;
        let vote = |round, ballot| CoreVote {
            kind: VoteType::Prevote,
            height: At(1),
            round: Round::new(round),
            ballot,
            validator: Addr(key.public()),
        };
        let mut guard = Guard::default();
        let first = guard.sign_vote(&chain, &key, vote(3, NilOrVal::Nil));
        let second = guard.sign_vote(&chain, &key, vote(3, NilOrVal::Val(Id(Hash::from_bytes([7; 32])))));
        assert_eq!(first, second);
        assert_eq!(guard.refused, 1);
        let other_round =
            guard.sign_vote(&chain, &key, vote(4, NilOrVal::Val(Id(Hash::from_bytes([7; 32])))));
        assert_ne!(first, other_round);
        assert_eq!(guard.refused, 1);
    }

    #[test]
    fn a_second_proposal_in_one_place_is_never_signed() {
        let key = SecretKey::from_seed([1; 32]);
        let proposal = |byte| CoreProposal {
            height: At(1),
            round: Round::new(0),
            block: Id(Hash::from_bytes([byte; 32])),
            pol_round: Round::Nil,
            proposer: Addr(key.public()),
        };
        let mut guard = Guard::default();
        let first = guard.sign_proposal(&Hash::ZERO, &key, proposal(1));
        assert_eq!(guard.sign_proposal(&Hash::ZERO, &key, proposal(2)), first);
        assert_eq!(guard.refused, 1);
    }
}
