//! Verified votes and proposals of the current height and the next: what a neighbour that lacks them can be sent, and
//! what is fed to the core once its height begins. Bounded by the rounds the engine admits and the size of the set.

use std::collections::BTreeMap;
use std::time::Duration;

use netsplit_core::sign_bytes::VoteKind;
use netsplit_core::{Hash, Height};

use crate::message::{Proposal, Vote};

/// Height, round, kind, validator's index.
type Place = (Height, u32, VoteKind, usize);

#[derive(Debug)]
struct Entry {
    vote: Vote,
    /// The first vote seen that conflicts with `vote`. More than one teaches nothing.
    conflicting: Option<Vote>,
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    votes: BTreeMap<Place, Entry>,
    /// At most two for a round: the second one proves that the proposer equivocates.
    proposals: BTreeMap<(Height, u32), Vec<Proposal>>,
    /// When the first proposal of a height's latest round arrived.
    proposed_at: BTreeMap<Height, (u32, Duration)>,
}

/// How a vote relates to those in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    New,
    /// The same vote is held, with this or another signature.
    Held,
    /// The first vote that conflicts with the one held.
    Conflicting,
    /// Nothing to learn from it any more.
    Spent,
}

impl Pool {
    pub fn novelty(&self, vote: &Vote, index: usize) -> Novelty {
        match self.votes.get(&(vote.height, vote.round, vote.kind, index)) {
            None => Novelty::New,
            Some(entry) if entry.vote.block == vote.block => Novelty::Held,
            Some(Entry { conflicting: None, .. }) => Novelty::Conflicting,
            Some(Entry { conflicting: Some(other), .. }) if other.block == vote.block => Novelty::Held,
            Some(_) => Novelty::Spent,
        }
    }

    /// True if exactly this vote, signature included, is held.
    pub fn holds(&self, vote: &Vote, index: usize) -> bool {
        self.votes
            .get(&(vote.height, vote.round, vote.kind, index))
            .is_some_and(|entry| entry.vote == *vote || entry.conflicting == Some(*vote))
    }

    /// Adds a verified vote.
    pub fn add_vote(&mut self, vote: Vote, index: usize) {
        let entry = self
            .votes
            .entry((vote.height, vote.round, vote.kind, index))
            .or_insert(Entry { vote, conflicting: None });
        if entry.vote.block != vote.block && entry.conflicting.is_none() {
            entry.conflicting = Some(vote);
        }
    }

    /// Votes of a round that `prevotes` and `precommits` (bit `i`: validator `i`) do not have.
    pub fn missing(
        &self,
        height: Height,
        round: u32,
        prevotes: u128,
        precommits: u128,
    ) -> impl Iterator<Item = Vote> + '_ {
        let first = (height, round, VoteKind::Prevote, 0);
        let last = (height, round, VoteKind::Precommit, usize::MAX);
        self.votes.range(first..=last).filter_map(move |(place, entry)| {
            let held = if place.2 == VoteKind::Prevote { prevotes } else { precommits };
            (held >> place.3 & 1 == 0).then_some(entry.vote)
        })
    }

    pub fn votes_at(&self, height: Height) -> impl Iterator<Item = Vote> + '_ {
        let first = (height, 0, VoteKind::Prevote, 0);
        let last = (height, u32::MAX, VoteKind::Precommit, usize::MAX);
        self.votes
            .range(first..=last)
            .flat_map(|(_, entry)| std::iter::once(entry.vote).chain(entry.conflicting))
    }

    pub fn has_proposal(&self, proposal: &Proposal) -> bool {
        self.proposals(proposal.height, proposal.round).contains(proposal)
    }

    /// True if a round has as many proposals as are kept.
    pub fn proposals_full(&self, height: Height, round: u32) -> bool {
        self.proposals(height, round).len() >= 2
    }

    /// Adds a verified proposal that arrived (or was made) at `now`.
    pub fn add_proposal(&mut self, proposal: Proposal, now: Duration) {
        let held = self.proposals.entry((proposal.height, proposal.round)).or_default();
        if held.len() < 2 && !held.contains(&proposal) {
            held.push(proposal);
        }
        self.note_proposal(proposal.height, proposal.round, now);
    }

    /// Notes when a round's proposal was made or first seen.
    pub fn note_proposal(&mut self, height: Height, round: u32, now: Duration) {
        let latest = self.proposed_at.entry(height).or_insert((round, now));
        if round > latest.0 {
            *latest = (round, now);
        }
    }

    pub fn proposals(&self, height: Height, round: u32) -> &[Proposal] {
        self.proposals.get(&(height, round)).map_or(&[], Vec::as_slice)
    }

    pub fn proposals_at(&self, height: Height) -> impl Iterator<Item = &Proposal> {
        self.proposals.range((height, 0)..=(height, u32::MAX)).flat_map(|(_, held)| held)
    }

    /// The earliest round's proposal of a block.
    pub fn proposal_of(&self, height: Height, block: &Hash) -> Option<&Proposal> {
        self.proposals_at(height).find(|proposal| proposal.block == *block)
    }

    /// When the latest round's proposal of a height was first seen.
    pub fn proposed_at(&self, height: Height) -> Option<Duration> {
        self.proposed_at.get(&height).map(|(_, at)| *at)
    }

    /// Forgets heights below `height`.
    pub fn prune(&mut self, height: Height) {
        self.votes.retain(|place, _| place.0 >= height);
        self.proposals.retain(|place, _| place.0 >= height);
        self.proposed_at.retain(|at, _| *at >= height);
    }

    /// Forgets everything from `height` on, whose validators turned out to be others.
    pub fn forget_from(&mut self, height: Height) {
        self.votes.retain(|place, _| place.0 < height);
        self.proposals.retain(|place, _| place.0 < height);
    }
}
