//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netsplit_bft::{Message, Verifier, Vote, VoteKind};
use netsplit_core::{Commit, Evidence, Hash, Height, ValidatorSet};

use crate::node::validator;

/// What a validator signs once for a height and round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Proposal,
    Prevote,
    Precommit,
}

pub struct Checker {
    pub chain_id: Hash,
    pub validators: ValidatorSet,
    pub verifier: Arc<dyn Verifier>,
    byzantine: Option<usize>,
    /// What left each node. A vote that was signed and lost in a crash before its sync was never cast.
    cast: BTreeMap<(usize, Height, u32, Kind), Option<Hash>>,
    /// The chain, as the first node to decide a height had it.
    pub chain: Vec<Hash>,
    /// Heights checked so far, and heights that each node has told others or its user.
    checked: Vec<usize>,
    claimed: Vec<Height>,
    pub failure: Option<String>,
    pub evidence: u64,
}

impl Checker {
    pub fn new(
        chain_id: Hash,
        validators: ValidatorSet,
        verifier: Arc<dyn Verifier>,
        byzantine: Option<usize>,
        nodes: usize,
    ) -> Self {
        Self {
            chain_id,
            validators,
            verifier,
            byzantine,
            cast: BTreeMap::new(),
            chain: Vec::new(),
            checked: vec![0; nodes],
            claimed: vec![0; nodes],
            failure: None,
            evidence: 0,
        }
    }

    pub fn fail(&mut self, text: String) {
        self.failure.get_or_insert(text);
    }

    /// A message leaves an honest node.
    pub fn sent(&mut self, from: usize, message: &Message) {
        let me = validator(from);
        let kind = |kind| if kind == VoteKind::Prevote { Kind::Prevote } else { Kind::Precommit };
        let mut cast = Vec::new();
        match message {
            Message::Vote(v) if v.validator == me => cast.push((v.height, v.round, kind(v.kind), v.block)),
            Message::Proposal(p) if p.proposer == me => {
                cast.push((p.height, p.round, Kind::Proposal, Some(p.block)));
            }
            // A certificate casts the votes in it, if their signatures are real.
            Message::PolkaCertificate(c) => {
                for (validator, signature) in c.signatures.iter().filter(|(validator, _)| *validator == me) {
                    let vote = Vote {
                        kind: VoteKind::Prevote,
                        height: c.height,
                        round: c.round,
                        block: Some(c.block),
                        validator: *validator,
                        signature: *signature,
                    };
                    if self.verify(&vote) {
                        cast.push((c.height, c.round, Kind::Prevote, vote.block));
                    }
                }
            }
            Message::RoundCertificate(c) => {
                for v in c.votes.iter().filter(|v| v.validator == me) {
                    let vote = Vote {
                        kind: v.kind,
                        height: c.height,
                        round: c.round,
                        block: v.block,
                        validator: v.validator,
                        signature: v.signature,
                    };
                    if self.verify(&vote) {
                        cast.push((c.height, c.round, kind(v.kind), v.block));
                    }
                }
            }
            Message::Status(status) => self.claimed[from] = self.claimed[from].max(status.height - 1),
            _ => {}
        }
        for (height, round, kind, block) in cast {
            let first = *self.cast.entry((from, height, round, kind)).or_insert(block);
            if first != block {
                self.fail(format!(
                    "double sign: node {from} {kind:?} at {height}/{round}: {first:?} and {block:?}"
                ));
            }
        }
    }

    fn verify(&self, vote: &Vote) -> bool {
        self.verifier.verify(&vote.validator, &vote.sign_bytes(&self.chain_id), &vote.signature)
    }

    /// A node tells its user that a block is final.
    pub fn told(&mut self, node: usize, height: Height, id: Hash) {
        self.claimed[node] = self.claimed[node].max(height);
        if self.chain.get(height as usize - 1) != Some(&id) {
            self.fail(format!("node {node} told of block {id} at {height}, which it did not decide"));
        }
    }

    /// A node came up with a chain of this height.
    pub fn booted(&mut self, node: usize, height: Height) {
        if height < self.claimed[node] {
            let claimed = self.claimed[node];
            self.fail(format!("node {node} lost a decision: it has {height} blocks and told of {claimed}"));
        }
        // What it decided and lost before anybody knew may be decided again, and is checked again.
        self.checked[node] = self.checked[node].min(height as usize);
    }

    /// The chain of a node, from the first height not checked so far.
    pub fn chain_of(
        &mut self,
        node: usize,
        height: Height,
        block: impl Fn(Height) -> Option<(Hash, Commit)>,
    ) {
        for at in self.checked[node] as u64 + 1..=height {
            let Some((id, commit)) = block(at) else {
                return self.fail(format!("node {node} has no block of height {at}"));
            };
            if self.chain.len() as u64 == at - 1 {
                self.chain.push(id);
            } else if self.chain[at as usize - 1] != id {
                return self.fail(format!(
                    "fork at height {at}: node {node} has {id}, others {}",
                    self.chain[at as usize - 1]
                ));
            }
            if commit.height != at || commit.block != id || !self.is_proof(&commit) {
                return self.fail(format!("node {node} decided height {at} without proof"));
            }
        }
        self.checked[node] = self.checked[node].max(height as usize);
    }

    /// Written apart from the engine's own check on purpose.
    fn is_proof(&self, commit: &Commit) -> bool {
        let mut signers = BTreeSet::new();
        let mut power = 0;
        for (validator, signature) in &commit.signatures {
            let (kind, height, round, block) =
                (VoteKind::Precommit, commit.height, commit.round, Some(commit.block));
            let vote = Vote { kind, height, round, block, validator: *validator, signature: *signature };
            let Some(known) = self.validators.get(validator) else { return false };
            if !signers.insert(*validator) || !self.verify(&vote) {
                return false;
            }
            power += known.power;
        }
        3 * power > 2 * self.validators.total_power()
    }

    pub fn blamed(&mut self, by: usize, peer: usize, reason: &str) {
        if self.byzantine != Some(peer) {
            self.fail(format!("node {by} blamed node {peer}, which is honest: {reason}"));
        }
    }

    pub fn evidence(&mut self, by: usize, evidence: &Evidence) {
        self.evidence += 1;
        let culprit = self.byzantine.map(validator);
        if let Err(error) = evidence.verify(&self.chain_id, &self.validators) {
            self.fail(format!("node {by} reported evidence that proves nothing: {error}"));
        } else if Some(evidence.first.validator) != culprit {
            self.fail(format!("node {by} proved that honest {} voted twice", evidence.first.validator));
        }
    }
}
