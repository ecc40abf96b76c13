//! One Byzantine validator: it equivocates in votes and proposals, forges votes, certificates, heights, block parts and
//! sync answers. It relays nothing, so in a ring it also cuts one path. It sees the chains of all others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use netsplit_bft::{
    BlockPart, Message, PolkaCertificate, Proposal, RoundCertificate, RoundVote, Status, SyncResponse, Vote,
    VoteKind, context::proposer_index,
};
use netsplit_core::{Address, Block, Commit, Domain, Hash, Height, SecretKey, Signature, ValidatorSet};

use crate::rng::Rng;

/// Builds a valid block of a height, another one for each number; `None` if no chain is there.
pub type Builder<'a> = &'a dyn Fn(Height, u64) -> Option<Block>;

pub struct Byzantine {
    key: SecretKey,
    me: Address,
    chain_id: Hash,
    validators: ValidatorSet,
    neighbours: Vec<usize>,
    rng: Rng,
    seen: BTreeMap<(Height, u32), BTreeSet<Hash>>,
    blocks: BTreeMap<(Height, Hash), Bytes>,
    done: BTreeSet<(Height, u32, bool)>,
    top: (Height, u32),
    pub forged: u64,
}

type Out = Vec<(usize, Message)>;

impl Byzantine {
    pub fn new(
        key: SecretKey,
        chain_id: Hash,
        validators: ValidatorSet,
        neighbours: Vec<usize>,
        rng: Rng,
    ) -> Self {
        Self {
            me: key.public(),
            key,
            chain_id,
            validators,
            neighbours,
            rng,
            seen: BTreeMap::new(),
            blocks: BTreeMap::new(),
            done: BTreeSet::new(),
            top: (1, 0),
            forged: 0,
        }
    }

    fn vote(&self, kind: VoteKind, height: Height, round: u32, block: Option<Hash>) -> Vote {
        let signature = Signature::from_bytes([0; 64]);
        let mut vote = Vote { kind, height, round, block, validator: self.me, signature };
        vote.signature = self.key.sign(&vote.sign_bytes(&self.chain_id));
        vote
    }

    fn noise(&mut self) -> Hash {
        Hash::of(Domain::Seed, &self.rng.next().to_be_bytes())
    }

    /// Votes of "all" validators, none of them really theirs: the own signature under their names, or the own vote again
    /// and again.
    fn fake_votes(
        &mut self,
        kind: VoteKind,
        height: Height,
        round: u32,
        block: Hash,
    ) -> Vec<(Address, Signature)> {
        self.forged += 1;
        let own = self.vote(kind, height, round, Some(block));
        let repeat = self.rng.percent(50);
        let signer = |address| if repeat { own.validator } else { address };
        self.validators.iter().map(|v| (signer(v.address), own.signature)).collect()
    }

    pub fn on_message(&mut self, from: usize, message: &Message, build: Builder<'_>, out: &mut Out) {
        let at = match message {
            Message::Vote(v) => {
                self.seen.entry((v.height, v.round)).or_default().extend(v.block);
                (v.height, v.round)
            }
            Message::Proposal(p) => {
                self.seen.entry((p.height, p.round)).or_default().insert(p.block);
                if self.rng.percent(20) {
                    out.push((from, Message::Have { height: p.height, id: p.block }));
                }
                (p.height, p.round)
            }
            Message::Status(status) => (status.height, status.round.unwrap_or(0)),
            Message::Want { height, id, .. } => return self.on_want(from, *height, *id, out),
            Message::SyncRequest { from: height, count } => {
                for height in *height..*height + u64::from(*count).min(4) {
                    self.answer_sync(from, height, build, out);
                }
                return;
            }
            _ => return,
        };
        self.top = self.top.max(at);
        self.equivocate(at.0, at.1, build, out);
    }

    fn on_want(&mut self, from: usize, height: Height, id: Hash, out: &mut Out) {
        let bytes = if let Some(bytes) = self.blocks.get(&(height, id)) {
            bytes.clone()
        } else {
            // A block that it never had: rubbish under its name.
            self.forged += 1;
            Bytes::copy_from_slice(self.noise().as_ref())
        };
        out.push((from, Message::BlockPart(BlockPart { height, id, index: 0, total: 1, bytes })));
    }

    fn answer_sync(&mut self, from: usize, height: Height, build: Builder<'_>, out: &mut Out) {
        let Some(block) = build(height, self.rng.below(1000)) else { return };
        let id = block.id();
        let commit = Commit::new(height, 0, id, self.fake_votes(VoteKind::Precommit, height, 0, id));
        let answer =
            SyncResponse { height, index: 0, total: 1, commit: Some(commit), bytes: block.to_bytes() };
        out.push((from, Message::SyncResponse(Arc::new(answer))));
    }

    /// Another vote for each neighbour; two proposals if it is its turn.
    fn equivocate(&mut self, height: Height, round: u32, build: Builder<'_>, out: &mut Out) {
        let ids: Vec<Hash> = self.seen.get(&(height, round)).into_iter().flatten().copied().collect();
        if !self.done.insert((height, round, ids.is_empty())) {
            return;
        }
        if ids.is_empty() {
            let proposer =
                self.validators.as_slice()[proposer_index(&self.validators, height, round)].address;
            if proposer == self.me {
                self.propose_two(height, round, build, out);
            }
            return;
        }
        for to in self.neighbours.clone() {
            for kind in [VoteKind::Prevote, VoteKind::Precommit] {
                let block = match self.rng.below(4) {
                    0 => None,
                    1 => Some(self.noise()),
                    _ => Some(*self.rng.pick(&ids)),
                };
                out.push((to, Message::Vote(self.vote(kind, height, round, block))));
            }
        }
    }

    fn propose_two(&mut self, height: Height, round: u32, build: Builder<'_>, out: &mut Out) {
        let mut offers = Vec::new();
        for number in 0..2 {
            let Some(mut block) = build(height, u64::from(round) * 2 + number) else { return };
            if self.rng.percent(20) {
                block.header.state_root = self.noise(); // breaks a rule of the ledger
            }
            let id = block.id();
            let mut proposal = Proposal {
                height,
                round,
                block: id,
                pol_round: None,
                proposer: self.me,
                signature: Signature::from_bytes([0; 64]),
            };
            proposal.signature = self.key.sign(&proposal.sign_bytes(&self.chain_id));
            self.blocks.insert((height, id), block.to_bytes());
            self.seen.entry((height, round)).or_default().insert(id);
            offers.push((proposal, block.to_bytes()));
        }
        for to in self.neighbours.clone() {
            let (proposal, bytes) = self.rng.pick(&offers).clone();
            out.push((to, Message::Proposal(proposal)));
            let (height, id) = (proposal.height, proposal.block);
            out.push((to, Message::BlockPart(BlockPart { height, id, index: 0, total: 1, bytes })));
        }
    }

    pub fn tick(&mut self, build: Builder<'_>, out: &mut Out) {
        let (height, round) = self.top;
        self.seen.retain(|at, _| at.0 >= height);
        self.blocks.retain(|at, _| at.0 >= height);
        self.done.retain(|at| at.0 >= height);
        self.equivocate(height, round, build, out);
        let ids: Vec<Hash> = self.seen.get(&(height, round)).into_iter().flatten().copied().collect();
        let block = if ids.is_empty() || self.rng.percent(50) { self.noise() } else { *self.rng.pick(&ids) };
        let later = round + self.rng.below(4) as u32;
        let message = match self.rng.below(6) {
            0 => {
                self.forged += 1;
                let kind = if self.rng.percent(50) { VoteKind::Prevote } else { VoteKind::Precommit };
                let mut vote = self.vote(kind, height, later, Some(block));
                vote.validator = self.rng.pick(self.validators.as_slice()).address;
                Message::Vote(vote)
            }
            1 => {
                let signatures = self.fake_votes(VoteKind::Prevote, height, later, block);
                Message::PolkaCertificate(PolkaCertificate { height, round: later, block, signatures }.into())
            }
            kind @ (2 | 3) => {
                let votes = self.fake_votes(VoteKind::Precommit, height, later, block);
                let vote = |(validator, signature)| RoundVote {
                    kind: VoteKind::Precommit,
                    block: Some(block),
                    validator,
                    signature,
                };
                let votes = votes.into_iter().map(vote).collect();
                Message::RoundCertificate(
                    RoundCertificate { height, round: later, precommits: kind == 2, votes }.into(),
                )
            }
            4 => Message::Status(Status {
                height: height + 1 + self.rng.below(3),
                round: Some(0),
                prevotes: 0,
                precommits: 0,
                has_proposal: false,
                has_polka: false,
                needs_polka: None,
                validator: Some(self.me),
                reply: false,
            }),
            _ => return,
        };
        let to = *self.rng.pick(&self.neighbours);
        out.push((to, message));
    }
}
