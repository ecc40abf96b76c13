//! The status exchange: what repairs losses. Neighbours tell each other where they stand, on connecting and regularly,
//! and each sends what the other lacks, whatever it was sent before.

use malachitebft_core_types::Round;
use malachitebft_core_votekeeper::keeper::PerRound;
use netsplit_core::sign_bytes::VoteKind;

use super::Engine;
use crate::convert;
use crate::io::PeerId;
use crate::message::{Message, PolkaCertificate, RoundCertificate, Status};
use crate::{Application, LogStorage};

impl<A: Application, L: LogStorage> Engine<A, L> {
    fn status(&self, reply: bool) -> Status {
        let (height, round) = (self.height(), self.core.round());
        let host = &self.host;
        // What the core holds, not what the pool does: the core drops a superseded round certificate with its votes. If the
        // status claimed them, nobody would send them again, and the height could stall for ever.
        let (mut prevotes, mut precommits) = (0u128, 0u128);
        for vote in self.core.driver.votes().per_round(round).into_iter().flat_map(PerRound::received_votes) {
            if let Some(index) = host.members.set.index_of(&vote.validator.0) {
                match convert::kind(vote.kind) {
                    VoteKind::Prevote => prevotes |= 1 << index,
                    VoteKind::Precommit => precommits |= 1 << index,
                }
            }
        }
        let proposals = round.as_u32().map_or(&[][..], |round| host.pool.proposals(height, round));
        let lacks_polka = |pol: u32, block| {
            self.core.polka_certificate(Round::new(pol), &crate::context::Id(block)).is_none()
        };
        Status {
            height,
            round: round.as_u32(),
            prevotes,
            precommits,
            has_proposal: proposals.iter().any(|p| host.bodies.get(height, &p.block).is_some()),
            has_polka: self.core.driver.polka_certificates().iter().any(|c| c.round == round),
            needs_polka: proposals.iter().find_map(|p| p.pol_round.filter(|pol| lacks_polka(*pol, p.block))),
            validator: host.config.validator_key.as_ref().map(|_| host.address),
            reply,
        }
    }

    pub(super) fn tell(&mut self, peer: PeerId, reply: bool) {
        let status = self.status(reply);
        self.host.gossip.direct(peer, Message::Status(status));
    }

    pub(super) fn tell_all(&mut self) {
        let status = self.status(false);
        let peers: Vec<PeerId> = self.host.gossip.iter().map(|(id, _)| *id).collect();
        for peer in peers {
            self.host.gossip.direct(peer, Message::Status(status));
        }
    }

    pub(super) fn on_status(&mut self, from: PeerId, status: &Status) {
        let now = self.host.now;
        let Some(peer) = self.host.gossip.get_mut(&from) else { return };
        peer.height = status.height;
        peer.validator = status.validator;
        let may_ask = peer.may_ask(now);
        let height = self.height();
        if status.height > height {
            self.request_blocks();
        }
        if !may_ask {
            return;
        }
        // One that is behind learns at once that it is.
        if status.reply || status.height < height {
            self.tell(from, false);
        }
        if let (true, Some(theirs), Some(ours)) =
            (status.height == height, status.round, self.core.round().as_u32())
        {
            if theirs <= ours {
                self.supply(from, status, theirs, ours);
            } else if !status.reply {
                // It can supply this node.
                self.tell(from, false);
            }
        }
    }

    /// Sends what a neighbour at this height, in this round or an earlier one, lacks.
    fn supply(&mut self, to: PeerId, status: &Status, theirs: u32, ours: u32) {
        let height = self.height();
        let host = &self.host;
        let mut messages: Vec<Message> = host
            .pool
            .missing(height, theirs, status.prevotes, status.precommits)
            .map(Message::Vote)
            .collect();
        if theirs < ours {
            // Votes alone do not always lift a node that is behind, the round certificate does.
            let certificate = self.core.round_certificate().map(|entered| &entered.certificate);
            if let Some(certificate) = certificate.filter(|certificate| certificate.height.0 == height) {
                messages.push(Message::RoundCertificate(RoundCertificate::from_core(certificate).into()));
            }
            messages.extend(host.pool.missing(height, ours, 0, 0).map(Message::Vote));
        }
        if theirs < ours || !status.has_proposal {
            for proposal in host.pool.proposals(height, ours) {
                messages.push(Message::Proposal(*proposal));
                if host.bodies.get(height, &proposal.block).is_some() {
                    messages.push(Message::Have { height, id: proposal.block });
                }
            }
        }
        // One that took the wrong half of a double prevote can never complete the polka from votes, since the core keeps the
        // first one: only the certificate helps, taken as a whole.
        for polka in self.core.driver.polka_certificates() {
            let round = convert::round(polka.round);
            let lacks = (round == ours && !status.has_polka) || Some(round) == status.needs_polka;
            if theirs == ours && lacks {
                messages.push(Message::PolkaCertificate(PolkaCertificate::from_core(polka).into()));
            }
        }
        for message in messages {
            self.host.gossip.direct(to, message);
        }
    }
}
