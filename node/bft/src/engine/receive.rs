//! Messages from neighbours. Everything is verified before it is kept or passed on: pools and the memory of what
//! neighbours have are bounded by what validators can sign.

use std::sync::Arc;

use malachitebft_core_consensus::Input as CoreInput;
use netsplit_core::Height;

use super::{Engine, Host};
use crate::io::{Misbehaviour, PeerId};
use crate::message::{Message, PolkaCertificate, Proposal, RoundCertificate, Vote};
use crate::pool::Novelty;
use crate::{Application, Fatal, LogStorage};

/// Rounds ahead of the current one that are listened to; the core's own bound.
const ROUNDS_AHEAD: u32 = 10;

impl<A: Application, L: LogStorage> Engine<A, L> {
    pub(super) fn receive(&mut self, from: PeerId, message: Message) -> Result<(), Fatal> {
        if self.host.gossip.get(&from).is_none() {
            return Ok(());
        }
        match message {
            Message::Vote(vote) => self.on_vote(from, vote),
            Message::Proposal(proposal) => self.on_proposal(from, proposal),
            Message::BlockPart(part) => self.on_part(from, part)?,
            Message::PolkaCertificate(certificate) => self.on_polka(from, certificate)?,
            Message::RoundCertificate(certificate) => self.on_round_certificate(from, certificate)?,
            Message::Status(status) => self.on_status(from, &status),
            Message::Have { height, id } => self.on_have(from, height, id),
            Message::Want { height, id, parts } => self.host.on_want(from, height, id, parts),
            Message::SyncRequest { from: first, count } => self.on_sync_request(from, first, count)?,
            Message::SyncResponse(response) => {
                let (patience, max) = (self.host.config.timeouts.sync, self.host.config.max_block_bytes);
                self.host.sync.response(from, &response, self.host.now, patience, max);
                self.request_blocks();
            }
        }
        Ok(())
    }

    /// This height and the next one only, and rounds not too far ahead.
    pub(super) fn is_near(&self, height: Height, round: u32) -> bool {
        let current = self.core.round().as_u32().unwrap_or(0);
        (height == self.height() && round <= current.saturating_add(ROUNDS_AHEAD))
            || (height == self.height() + 1 && round <= ROUNDS_AHEAD)
    }

    fn on_vote(&mut self, from: PeerId, vote: Vote) {
        if !self.is_near(vote.height, vote.round) {
            return;
        }
        let current = vote.height == self.height();
        let host = &mut self.host;
        let message = Message::Vote(vote);
        let Some(index) = host.members.set.index_of(&vote.validator) else {
            // The next height may have other validators.
            if current {
                host.blame(from, Misbehaviour::ForgedMessage);
            }
            return;
        };
        match host.pool.novelty(&vote, index) {
            Novelty::Spent => return,
            Novelty::Held => {
                if host.pool.holds(&vote, index) {
                    host.gossip.mark(&from, &message);
                } else if !host.checker().verify_vote(&vote) {
                    return host.blame(from, Misbehaviour::ForgedMessage);
                }
            }
            Novelty::New | Novelty::Conflicting => {
                if !host.checker().verify_vote(&vote) {
                    return host.blame(from, Misbehaviour::ForgedMessage);
                }
                host.pool.add_vote(vote, index);
                host.gossip.mark(&from, &message);
                host.gossip.spread(message, Some(from));
            }
        }
        // Also what the pool holds already: the core may have dropped it.
        if current {
            let vote = vote.to_core();
            if !self.core.driver.votes().has_vote(&vote) {
                host.queue.push_back(CoreInput::Vote(vote));
            }
        }
    }

    fn on_proposal(&mut self, from: PeerId, proposal: Proposal) {
        let sound = proposal.pol_round.is_none_or(|pol| pol < proposal.round);
        if !self.is_near(proposal.height, proposal.round) || !sound {
            return;
        }
        let current = proposal.height == self.height();
        let host = &mut self.host;
        let message = Message::Proposal(proposal);
        if host.pool.has_proposal(&proposal) {
            host.gossip.mark(&from, &message);
        } else {
            if host.pool.proposals_full(proposal.height, proposal.round) {
                return;
            }
            let right = host.members.proposer(proposal.height, proposal.round) == proposal.proposer
                && host.config.verifier.verify(
                    &proposal.proposer,
                    &proposal.sign_bytes(&host.config.chain_id),
                    &proposal.signature,
                );
            if !right {
                if current {
                    host.blame(from, Misbehaviour::ForgedMessage);
                }
                return;
            }
            host.pool.add_proposal(proposal, host.now);
            host.gossip.mark(&from, &message);
            host.gossip.spread(message, Some(from));
        }
        if current {
            host.queue.push_back(CoreInput::Proposal(proposal.to_core()));
        }
        self.seek_body(&proposal, true);
    }

    fn on_polka(&mut self, from: PeerId, certificate: Arc<PolkaCertificate>) -> Result<(), Fatal> {
        if certificate.height != self.height() || !self.is_near(certificate.height, certificate.round) {
            return Ok(());
        }
        let core = certificate.to_core();
        if !self.host.config.mutations.no_certificate_check && self.host.checker().polka(&core).is_err() {
            self.host.blame(from, Misbehaviour::ForgedCertificate);
            return Ok(());
        }
        self.host.relay(from, Message::PolkaCertificate(certificate));
        self.run_checked(CoreInput::PolkaCertificate(core))
    }

    fn on_round_certificate(
        &mut self,
        from: PeerId,
        certificate: Arc<RoundCertificate>,
    ) -> Result<(), Fatal> {
        // No bound on the round here: f+1 signers vouch for it, and a node that was away may be any number of rounds behind.
        if certificate.height != self.height() {
            return Ok(());
        }
        let core = certificate.to_core();
        if !self.host.config.mutations.no_certificate_check {
            if self.host.checker().round(&core).is_err() {
                self.host.blame(from, Misbehaviour::ForgedCertificate);
                return Ok(());
            }
            for vote in certificate.to_votes() {
                if let Some(index) = self.host.members.set.index_of(&vote.validator) {
                    self.host.pool.add_vote(vote, index);
                }
            }
        }
        self.host.relay(from, Message::RoundCertificate(certificate));
        self.run_checked(CoreInput::RoundCertificate(core))
    }

    /// Feeds the core a certificate that needs no second check.
    fn run_checked(&mut self, input: CoreInput<Ctx>) -> Result<(), Fatal> {
        // Inputs that wait were there first.
        while let Some(earlier) = self.host.queue.pop_front() {
            self.feed(earlier)?;
        }
        self.host.certificate_checked = true;
        let result = self.run(input);
        self.host.certificate_checked = false;
        result
    }
}

use crate::context::Ctx;

impl<A: Application, L: LogStorage> Host<A, L> {
    fn relay(&mut self, from: PeerId, message: Message) {
        self.gossip.mark(&from, &message);
        self.gossip.spread(message, Some(from));
    }
}
