//! Blocks on their way: the proposer pushes its block to its neighbours, everybody else announces it and sends it to
//! those who ask.

use std::sync::Arc;
use std::time::Duration;

use malachitebft_core_consensus::{Input as CoreInput, LocallyProposedValue, ProposedValue};
use malachitebft_core_types::{Round, Validity, ValueOrigin};
use netsplit_core::{Hash, Height};

use super::{Engine, Host};
use crate::bodies::{self, Arrived, Body};
use crate::context::{Addr, At, Id};
use crate::io::{Misbehaviour, PeerId};
use crate::message::{BlockPart, Message, Proposal, SyncResponse};
use crate::timers::Purpose;
use crate::wal::record::Record;
use crate::{Application, Fatal, LogStorage, Verdict};

impl<A: Application, L: LogStorage> Engine<A, L> {
    /// Builds and offers a block, if the core still waits for it.
    pub(super) fn propose(&mut self, height: Height, round: u32) -> Result<(), Fatal> {
        let host = &mut self.host;
        let current = self.core.height().0 == height && self.core.round() == Round::new(round);
        if !current || host.guard.has_proposed(height, round) {
            return Ok(());
        }
        let bytes = host.app.propose(height, &host.last_commit)?;
        if bytes.len() > host.config.max_block_bytes {
            let (len, max) = (bytes.len(), host.config.max_block_bytes);
            return Err(Fatal::Consensus(format!(
                "the application built a block of {len} bytes, {max} are allowed"
            )));
        }
        let header = bodies::header(&bytes).filter(|header| header.height == height);
        let id = header
            .ok_or_else(|| Fatal::Consensus("the application built no block of this height".into()))?
            .id();
        host.log.append(&Record::Body { height, id, bytes: bytes.clone() })?;
        host.bodies.hold(height, id, Body { bytes, valid: Some(true), logged: true });
        // The proposal itself comes out of the core after all that it causes, which can be the decision.
        host.pool.note_proposal(height, round, host.now);
        let value = LocallyProposedValue::new(At(height), Round::new(round), Id(id));
        host.queue.push_back(CoreInput::Propose(value));
        Ok(())
    }

    /// The blocks of a round that has begun.
    pub(super) fn seek_round(&mut self, height: Height, round: u32) {
        for proposal in self.host.pool.proposals(height, round).to_vec() {
            self.seek_body(&proposal, false);
        }
    }

    /// A proposal names a block: look for it, or make sure that the core knows about it. Blocks of rounds further ahead
    /// wait until their round begins: a bad proposer could offer many. `fresh`: the proposal has only just arrived, and its
    /// proposer may be pushing the block.
    pub(super) fn seek_body(&mut self, proposal: &Proposal, fresh: bool) {
        let (height, id) = (proposal.height, proposal.block);
        let current = self.core.round().as_u32().unwrap_or(0);
        if height == self.core.height().0 && proposal.round > current + 1
            || height > self.core.height().0 && proposal.round > 0
        {
            return;
        }
        let host = &mut self.host;
        if let Some(body) = host.bodies.get(height, &id) {
            let known =
                self.core.get_proposed_value_by_id(At(height), Round::new(proposal.round), &Id(id)).is_some();
            if let (true, false, Some(valid)) = (height == self.core.height().0, known, body.valid) {
                host.feed_value(proposal, valid);
            }
            return;
        }
        if host.bodies.seek(height, id, host.now) {
            let pushed = fresh
                && proposal.pol_round.is_none()
                && host.gossip.neighbour_of(&proposal.proposer).is_some();
            if pushed {
                let patience = host.config.timeouts.body;
                host.set_timer(Purpose::Body(height, id), patience);
            } else {
                host.ask_for_body(height, id);
            }
        }
    }

    pub(super) fn on_have(&mut self, from: PeerId, height: Height, id: Hash) {
        let message = Message::Have { height, id };
        if !(height == self.height() || height == self.height() + 1)
            || self.host.bodies.get(height, &id).is_some()
        {
            return;
        }
        let host = &mut self.host;
        host.bodies.announce(height, id, from);
        if host.bodies.fetch(height, &id).is_some() {
            host.gossip.mark(&from, &message);
            if !host.timers.is_set(Purpose::Body(height, id)) {
                host.ask_for_body(height, id);
            }
        }
    }

    pub(super) fn on_part(&mut self, from: PeerId, part: BlockPart) -> Result<(), Fatal> {
        let (height, id) = (part.height, part.id);
        let host = &mut self.host;
        match host.bodies.arrived(part, from, host.now, host.config.max_block_bytes) {
            Arrived::Ignored | Arrived::Stored => Ok(()),
            Arrived::Wrong => {
                host.blame(from, Misbehaviour::WrongBody);
                host.ask_for_body(height, id);
                Ok(())
            }
            Arrived::Complete(bytes) => {
                host.timers.cancel(Purpose::Body(height, id));
                host.bodies.hold(height, id, Body { bytes, valid: None, logged: false });
                let have = Message::Have { height, id };
                host.gossip.mark(&from, &have);
                host.gossip.spread(have, Some(from));
                if height == self.height() { self.check_body(height, id) } else { Ok(()) }
            }
        }
    }

    /// Lets the application check a block of the current height, and tells the core.
    pub(super) fn check_body(&mut self, height: Height, id: Hash) -> Result<(), Fatal> {
        let host = &mut self.host;
        let Some(proposal) = host.pool.proposal_of(height, &id).copied() else { return Ok(()) };
        let Some(body) = host.bodies.get_mut(height, &id) else { return Ok(()) };
        let bytes = body.bytes.clone();
        if !std::mem::replace(&mut body.logged, true) {
            host.log.append(&Record::Body { height, id, bytes: bytes.clone() })?;
        }
        let valid = match host.app.check(&bytes)? {
            Verdict::Valid { id: found } if found == id => true,
            Verdict::Valid { id: found } => {
                return Err(Fatal::Consensus(format!(
                    "the application calls block {id} by another id, {found}"
                )));
            }
            Verdict::Invalid { reason } => {
                tracing::warn!(height, block = %id, proposer = %proposal.proposer, reason, "invalid block proposed");
                false
            }
        };
        if let Some(body) = host.bodies.get_mut(height, &id) {
            body.valid = Some(valid);
        }
        host.feed_value(&proposal, valid);
        Ok(())
    }

    /// Serves decided blocks, as far as the peer's ration reaches.
    pub(super) fn on_sync_request(&mut self, from: PeerId, first: Height, count: u8) -> Result<(), Fatal> {
        for height in (first..self.height()).take(usize::from(count)) {
            let host = &mut self.host;
            let Some((bytes, commit)) = host.app.block(height)? else {
                let missing =
                    SyncResponse { height, index: 0, total: 0, commit: None, bytes: bytes::Bytes::new() };
                host.gossip.direct(from, Message::SyncResponse(Arc::new(missing)));
                continue;
            };
            if !host.gossip.get_mut(&from).is_some_and(|peer| peer.may_serve(bytes.len())) {
                break;
            }
            let mut commit = Some(commit);
            for (index, total, bytes) in bodies::cut(&bytes, host.config.part_bytes) {
                let piece = SyncResponse { height, index, total, commit: commit.take(), bytes };
                host.gossip.direct(from, Message::SyncResponse(Arc::new(piece)));
            }
        }
        Ok(())
    }
}

impl<A: Application, L: LogStorage> Host<A, L> {
    fn feed_value(&mut self, proposal: &Proposal, valid: bool) {
        let value = ProposedValue {
            height: At(proposal.height),
            round: Round::new(proposal.round),
            valid_round: Round::Nil,
            proposer: Addr(proposal.proposer),
            value: Id(proposal.block),
            validity: Validity::from_bool(valid),
        };
        self.queue.push_back(CoreInput::ProposedValue(value, ValueOrigin::Consensus));
    }

    /// Pushes the own block to every neighbour.
    pub(super) fn push_body(&mut self, height: Height, id: &Hash) {
        let Some(body) = self.bodies.get(height, id) else { return };
        for (index, total, bytes) in bodies::cut(&body.bytes, self.config.part_bytes) {
            self.gossip.spread(Message::BlockPart(BlockPart { height, id: *id, index, total, bytes }), None);
        }
    }

    /// Asks one neighbour that has a block for what is missing of it. Without such a neighbour, the next announcement
    /// does.
    fn ask_for_body(&mut self, height: Height, id: Hash) {
        let proposer = self.pool.proposal_of(height, &id).map(|proposal| proposal.proposer);
        let pusher = proposer.and_then(|proposer| self.gossip.neighbour_of(&proposer));
        let Some(peer) = self.bodies.whom(height, &id, pusher) else { return };
        let parts = self.bodies.ask(height, &id, peer, self.now);
        self.gossip.direct(peer, Message::Want { height, id, parts });
        // Twice the patience: a request travels both ways.
        let patience = 2 * self.config.timeouts.body;
        self.set_timer(Purpose::Body(height, id), patience);
    }

    /// Parts were expected for a while. If some came, wait on; else ask somebody else.
    pub(super) fn body_overdue(&mut self, height: Height, id: Hash) {
        let Some(fetch) = self.bodies.fetch(height, &id) else { return };
        let patience = self.config.timeouts.body * if fetch.asked.is_some() { 2 } else { 1 };
        let left = (fetch.progress + patience).saturating_sub(self.now);
        if left > Duration::ZERO {
            self.set_timer(Purpose::Body(height, id), left);
        } else {
            self.ask_for_body(height, id);
        }
    }

    pub(super) fn on_want(&mut self, from: PeerId, height: Height, id: Hash, parts: u128) {
        let Some(body) = self.bodies.get(height, &id).map(|body| body.bytes.clone()) else { return };
        for (index, total, bytes) in bodies::cut(&body, self.config.part_bytes) {
            if parts >> index & 1 == 0 {
                continue;
            }
            if !self.gossip.get_mut(&from).is_some_and(|peer| peer.may_serve(bytes.len())) {
                return;
            }
            self.gossip.direct(from, Message::BlockPart(BlockPart { height, id, index, total, bytes }));
        }
    }
}
