//! Between messages on the wire and the core's types. Both carry the same facts; the core's allow a missing round, which
//! never reaches a message.

use malachitebft_core_types::{
    CommitSignature, NilOrVal, PolkaSignature, Round, RoundCertificateType, RoundSignature, VoteType,
};
use netsplit_core::sign_bytes::VoteKind;
use netsplit_core::{Commit, Hash};

use crate::context::{
    Addr, At, Ballot, CoreCommit, CorePolka, CoreProposal, CoreRoundCertificate, CoreVote, Id,
    SignedProposal, SignedVote, signed,
};
use crate::message::{PolkaCertificate, Proposal, RoundCertificate, RoundVote, Vote};

pub(crate) fn kind(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

pub(crate) fn core_kind(kind: VoteKind) -> VoteType {
    match kind {
        VoteKind::Prevote => VoteType::Prevote,
        VoteKind::Precommit => VoteType::Precommit,
    }
}

pub(crate) fn ballot(block: Option<Hash>) -> Ballot {
    block.map_or(NilOrVal::Nil, |hash| NilOrVal::Val(Id(hash)))
}

pub(crate) fn block(ballot: &Ballot) -> Option<Hash> {
    match ballot {
        NilOrVal::Nil => None,
        NilOrVal::Val(id) => Some(id.0),
    }
}

/// The core names no round "nil" once a height has begun, and signs nothing before.
pub(crate) fn round(round: Round) -> u32 {
    round.as_u32().unwrap_or(0)
}

fn pol_round(round: Option<u32>) -> Round {
    round.map_or(Round::Nil, Round::new)
}

impl Vote {
    pub(crate) fn to_core(self) -> SignedVote {
        let vote = CoreVote {
            kind: core_kind(self.kind),
            height: At(self.height),
            round: Round::new(self.round),
            ballot: ballot(self.block),
            validator: Addr(self.validator),
        };
        signed(vote, self.signature)
    }

    pub(crate) fn from_core(vote: &SignedVote) -> Self {
        Self {
            kind: kind(vote.kind),
            height: vote.height.0,
            round: round(vote.round),
            block: block(&vote.ballot),
            validator: vote.validator.0,
            signature: vote.signature,
        }
    }
}

impl Proposal {
    pub(crate) fn to_core(self) -> SignedProposal {
        let proposal = CoreProposal {
            height: At(self.height),
            round: Round::new(self.round),
            block: Id(self.block),
            pol_round: pol_round(self.pol_round),
            proposer: Addr(self.proposer),
        };
        signed(proposal, self.signature)
    }

    pub(crate) fn from_core(proposal: &SignedProposal) -> Self {
        Self {
            height: proposal.height.0,
            round: round(proposal.round),
            block: proposal.block.0,
            pol_round: proposal.pol_round.as_u32(),
            proposer: proposal.proposer.0,
            signature: proposal.signature,
        }
    }
}

impl PolkaCertificate {
    pub(crate) fn to_core(&self) -> CorePolka {
        CorePolka {
            height: At(self.height),
            round: Round::new(self.round),
            value_id: Id(self.block),
            polka_signatures: self
                .signatures
                .iter()
                .map(|(a, s)| PolkaSignature::new(Addr(*a), *s))
                .collect(),
        }
    }

    pub(crate) fn from_core(certificate: &CorePolka) -> Self {
        Self {
            height: certificate.height.0,
            round: round(certificate.round),
            block: certificate.value_id.0,
            signatures: certificate.polka_signatures.iter().map(|s| (s.address.0, s.signature)).collect(),
        }
    }
}

impl RoundCertificate {
    pub(crate) fn to_core(&self) -> CoreRoundCertificate {
        let vote = |v: &RoundVote| {
            RoundSignature::new(core_kind(v.kind), ballot(v.block), Addr(v.validator), v.signature)
        };
        CoreRoundCertificate {
            height: At(self.height),
            round: Round::new(self.round),
            cert_type: if self.precommits {
                RoundCertificateType::Precommit
            } else {
                RoundCertificateType::Skip
            },
            round_signatures: self.votes.iter().map(vote).collect(),
        }
    }

    pub(crate) fn from_core(certificate: &CoreRoundCertificate) -> Self {
        Self {
            height: certificate.height.0,
            round: round(certificate.round),
            precommits: certificate.cert_type == RoundCertificateType::Precommit,
            votes: certificate
                .round_signatures
                .iter()
                .map(|s| RoundVote {
                    kind: kind(s.vote_type),
                    block: block(&s.value_id),
                    validator: s.address.0,
                    signature: s.signature,
                })
                .collect(),
        }
    }

    /// The votes as their signers sent them.
    pub(crate) fn to_votes(&self) -> impl Iterator<Item = Vote> + '_ {
        self.votes.iter().map(|v| Vote {
            kind: v.kind,
            height: self.height,
            round: self.round,
            block: v.block,
            validator: v.validator,
            signature: v.signature,
        })
    }
}

pub(crate) fn commit_from_core(certificate: &CoreCommit) -> Commit {
    let signatures =
        certificate.commit_signatures.iter().map(|s: &CommitSignature<_>| (s.address.0, s.signature));
    Commit::new(certificate.height.0, round(certificate.round), certificate.value_id.0, signatures.collect())
}
