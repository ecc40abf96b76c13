//! Decisions: made durable, applied, and followed by the next height. From the core's votes, or from value sync.

use malachitebft_core_consensus::Input as CoreInput;
use malachitebft_core_votekeeper::EvidenceMap;
use netsplit_core::{Commit, Evidence, Height, SignedVote as EvidenceVote};

use bytes::Bytes;

use super::{Engine, Host};
use crate::bodies::{self, Body};
use crate::context::{Ctx, Members};
use crate::io::{Misbehaviour, Output};
use crate::message::{Message, Vote, limits};
use crate::sync::Ready;
use crate::timers::Purpose;
use crate::wal::record::Record;
use crate::{Application, Fatal, LogStorage, Verdict};

/// Blocks of value sync applied in one step. Messages and questions wait for a step, and a full block takes tens of
/// milliseconds.
pub(super) const SYNCED_PER_STEP: u32 = 4;

impl<A: Application, L: LogStorage> Host<A, L> {
    /// Makes a decision durable, then applies it. Nothing may show the new height to others before.
    pub(super) fn decide(&mut self, block: &Bytes, commit: Commit) -> Result<(), Fatal> {
        if self.app.height() + 1 != commit.height {
            return Err(Fatal::Consensus(format!(
                "decided height {}, but the application is at {}",
                commit.height,
                self.app.height()
            )));
        }
        self.log_body(commit.height, commit.block, block)?;
        self.log.append(&Record::Decided(commit.clone()))?;
        self.log.sync()?;
        self.apply(block, commit)
    }

    /// Hands a durable decision to the application.
    pub(super) fn apply(&mut self, block: &Bytes, commit: Commit) -> Result<(), Fatal> {
        let next = self.app.decide(block, &commit)?;
        let time_ms = bodies::header(block).map_or(0, |header| header.time_ms);
        self.outputs.push(Output::Decided { height: commit.height, id: commit.block, time_ms });
        self.previous_proposal = self.pool.proposed_at(commit.height);
        self.last_commit = commit;
        self.next_members = Some(Members::new(next));
        self.check_limits()
    }

    /// Limits that the engine's bitmaps and pieces set.
    pub(super) fn check_limits(&self) -> Result<(), Fatal> {
        let count = self.next_members.as_ref().unwrap_or(&self.members).set.len();
        if count > limits::VALIDATORS {
            let text = format!("{count} validators, at most {} are supported", limits::VALIDATORS);
            return Err(Fatal::Consensus(text));
        }
        let (part, block) = (self.config.part_bytes, self.config.max_block_bytes);
        if part == 0 || part > limits::PART_BYTES || block > limits::PARTS * limits::PART_BYTES {
            return Err(Fatal::Consensus(format!(
                "blocks of {block} bytes do not fit in parts of {part} bytes"
            )));
        }
        Ok(())
    }

    fn log_body(&mut self, height: Height, id: netsplit_core::Hash, bytes: &Bytes) -> Result<(), Fatal> {
        match self.bodies.get_mut(height, &id) {
            Some(body) if body.logged => return Ok(()),
            Some(body) => body.logged = true,
            None => {
                self.bodies.hold(height, id, Body { bytes: bytes.clone(), valid: Some(true), logged: true });
            }
        }
        self.log.append(&Record::Body { height, id, bytes: bytes.clone() })
    }

    /// Hands out proof of double votes.
    pub(super) fn report(&mut self, evidence: &EvidenceMap<Ctx>) {
        for validator in self.members.set.iter() {
            for (one, other) in evidence.get(&crate::context::Addr(validator.address)).into_iter().flatten() {
                let vote = |vote| {
                    let Vote { kind, height, round, block, validator, signature } = Vote::from_core(vote);
                    EvidenceVote { kind, height, round, block, validator, signature }
                };
                self.outputs.extend(Evidence::new(vote(one), vote(other)).map(Output::Evidence));
            }
        }
    }
}

impl<A: Application, L: LogStorage> Engine<A, L> {
    /// Leaves the decided height behind and begins the next one.
    pub(super) fn start_height(&mut self, height: Height) -> Result<(), Fatal> {
        let host = &mut self.host;
        // A height that value sync ended has evidence in the core still.
        let evidence = self.core.driver.take_vote_evidence();
        host.report(&evidence);
        if host.log.is_full() {
            host.app.sync()?;
            host.log.rotate(height)?;
        }
        host.pool.prune(height);
        if let Some(next) = host.next_members.take().filter(|next| next.set != host.members.set) {
            // They were checked against other validators.
            host.pool.forget_from(height);
            host.members = next;
        }
        host.gossip.prune(height);
        host.bodies.prune(height);
        host.guard.prune(height);
        host.sync.prune(height);
        host.build = None;
        host.timers.retain(
            |purpose| !matches!(purpose, Purpose::Body(at, _) | Purpose::Build(at, _) if *at < height),
        );
        let start = host.start_input(height);
        self.run(start)?;
        self.feed_pools()?;
        self.request_blocks();
        Ok(())
    }

    /// Messages of this height that arrived during the last one.
    fn feed_pools(&mut self) -> Result<(), Fatal> {
        let height = self.height();
        let host = &mut self.host;
        let proposals: Vec<_> = host.pool.proposals_at(height).copied().collect();
        let votes: Vec<_> = host.pool.votes_at(height).collect();
        for proposal in proposals {
            host.queue.push_back(CoreInput::Proposal(proposal.to_core()));
        }
        let bodies: Vec<_> = host.bodies.at(height).map(|(id, _)| *id).collect();
        for id in bodies {
            self.check_body(height, id)?;
        }
        for vote in votes {
            self.host.queue.push_back(CoreInput::Vote(vote.to_core()));
        }
        Ok(())
    }

    /// Decides this height with a block and a commit of value sync.
    ///
    /// The core is not asked: a commit proves a decision by itself. Fed to the core, a commit of a later round would lift
    /// the node to that round, where it would vote, and the core does not log commits: after a crash it would be in the
    /// earlier round again, and could vote differently in the later one. So a commit has no effect before its block is
    /// here, and then it ends the height in the same step.
    pub(super) fn apply_synced(&mut self) -> Result<(), Fatal> {
        let height = self.height();
        let Some(Ready { bytes, commit, peer }) = self.host.sync.take(height) else { return Ok(()) };
        let host = &mut self.host;
        let whole = commit.height == height && bodies::matches(&bytes, height, &commit.block);
        let proven =
            whole && (host.config.mutations.no_certificate_check || host.checker().commit(&commit).is_ok());
        if !proven {
            host.sync.blame(peer, host.now);
            host.blame(peer, Misbehaviour::WrongSyncAnswer);
            self.request_blocks();
            return Ok(());
        }
        if host.bodies.get(height, &commit.block).and_then(|body| body.valid) != Some(true)
            && let Verdict::Invalid { reason } = host.app.check(&bytes)?
        {
            return Err(Fatal::Consensus(format!(
                "the validators decided block {} at height {height}, which breaks a rule here: {reason}",
                commit.block
            )));
        }
        host.decide(&bytes, commit)?;
        let next = host.start_input(height + 1);
        host.queue.push_back(next);
        Ok(())
    }

    /// Asks neighbours that are ahead for the blocks in between.
    pub(super) fn request_blocks(&mut self) {
        let height = self.height();
        let host = &mut self.host;
        let peers: Vec<_> = host.gossip.iter().map(|(id, peer)| (*id, peer.height)).collect();
        for request in host.sync.requests(height, peers.into_iter(), host.now, host.config.timeouts.sync) {
            host.gossip
                .direct(request.peer, Message::SyncRequest { from: request.from, count: request.count });
        }
        if let Some(deadline) = host.sync.deadline()
            && !host.timers.is_set(Purpose::Sync)
        {
            host.set_timer(Purpose::Sync, deadline.saturating_sub(host.now));
        }
    }
}
