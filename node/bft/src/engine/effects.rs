//! The core's effects.

use std::time::Duration;

use malachitebft_core_consensus::{
    ConsensusMsg, Effect, Input as CoreInput, LivenessMsg, Resumable, Resume, SignedConsensusMsg,
};
use malachitebft_core_types::{Timeout, TimeoutKind};
use netsplit_core::{Domain, Hash, SecretKey, encode};

use super::Host;
use crate::certificates::Flaw;
use crate::context::{Ctx, SignedProposal, SignedVote};
use crate::convert;
use crate::message::{Message, PolkaCertificate, Proposal, RoundCertificate, Vote};
use crate::timers::Purpose;
use crate::wal::record::{LoggedInput, Record, Step};
use crate::{Application, Fatal, LogStorage};

impl<A: Application, L: LogStorage> Host<A, L> {
    pub(super) fn perform(&mut self, effect: Effect<Ctx>) -> Result<Resume<Ctx>, Fatal> {
        Ok(match effect {
            Effect::CancelAllTimeouts(r) => {
                self.timers.retain(|purpose| !matches!(purpose, Purpose::Core(_)));
                r.resume_with(())
            }
            Effect::CancelTimeout(timeout, r) => {
                self.timers.cancel(Purpose::Core(timeout));
                r.resume_with(())
            }
            // A replay schedules them too, from the restart on: they are what makes the node go on.
            Effect::ScheduleTimeout(timeout, r) => {
                self.schedule(timeout);
                r.resume_with(())
            }
            Effect::StartRound(height, round, _, _, r) => {
                self.round_started = Some((height.0, convert::round(round)));
                r.resume_with(())
            }
            // The own prevote comes out after all that it caused, a precommit and even a decision. Hence one outbox for
            // each step, released after one sync at its end.
            Effect::PublishConsensusMsg(message, r) => {
                self.publish(message);
                r.resume_with(())
            }
            // Certificates hold own votes, so they wait for the sync, too.
            Effect::PublishLivenessMsg(message, r) => {
                self.must_sync = true;
                let message = match message {
                    LivenessMsg::Vote(vote) => Message::Vote(Vote::from_core(&vote)),
                    LivenessMsg::PolkaCertificate(c) => {
                        Message::PolkaCertificate(PolkaCertificate::from_core(&c).into())
                    }
                    LivenessMsg::SkipRoundCertificate(c) => {
                        Message::RoundCertificate(RoundCertificate::from_core(&c).into())
                    }
                };
                self.gossip.spread(message, None);
                r.resume_with(())
            }
            // The same bytes again, which neighbours were sent already: the status exchange repairs what was lost.
            // And the core gets no blocks of value sync, see `Engine::apply_synced`.
            Effect::RepublishVote(_, r)
            | Effect::RepublishRoundCertificate(_, r)
            | Effect::CertVerifiedSyncValue(_, _, r)
            | Effect::CertRejectedSyncValue(_, _, _, r) => r.resume_with(()),
            // Comes out of StartHeight before the log is replayed. Answered at once, it would make a second proposal for a
            // round that was proposed in before the crash.
            Effect::GetValue(height, round, _, r) => {
                self.build = Some((height.0, convert::round(round)));
                if self.replaying.is_none() {
                    self.schedule_build();
                }
                r.resume_with(())
            }
            Effect::RestreamProposal(height, _, _, _, id, r) => {
                self.must_sync = true;
                self.gossip.spread(Message::Have { height: height.0, id: id.0 }, None);
                r.resume_with(())
            }
            Effect::Decide(certificate, _, r) => {
                let commit = convert::commit_from_core(&certificate);
                let body = self.bodies.get(commit.height, &commit.block).map(|body| body.bytes.clone());
                let block =
                    body.ok_or_else(|| Fatal::Consensus("decided a block that is not held".into()))?;
                self.decide(&block, commit)?;
                r.resume_with(())
            }
            // StartHeight is a later input, never fed from within this effect.
            Effect::Finalize(certificate, _, evidence, r) => {
                self.report(&evidence.votes);
                let next = self.start_input(certificate.height.0 + 1);
                self.queue.push_back(next);
                r.resume_with(())
            }
            Effect::SignVote(vote, r) => {
                let key = self.key()?;
                let signed = self.guard.sign_vote(&self.config.chain_id, &key, vote);
                r.resume_with(signed)
            }
            Effect::SignProposal(proposal, r) => {
                let key = self.key()?;
                let signed = self.guard.sign_proposal(&self.config.chain_id, &key, proposal);
                r.resume_with(signed)
            }
            Effect::VerifySignature(message, key, r) => {
                let valid = match &message.message {
                    ConsensusMsg::Vote(vote) => {
                        let vote = SignedVote::new(vote.clone(), message.signature);
                        self.is_own_vote(&vote) || self.checker().verify_vote(&Vote::from_core(&vote))
                    }
                    ConsensusMsg::Proposal(proposal) => {
                        let proposal = SignedProposal::new(proposal.clone(), message.signature);
                        let wire = Proposal::from_core(&proposal);
                        self.is_own_proposal(&proposal)
                            || self.pool.has_proposal(&wire)
                            || self.config.verifier.verify(
                                &key,
                                &wire.sign_bytes(&self.config.chain_id),
                                &wire.signature,
                            )
                    }
                };
                r.resume_with(valid)
            }
            // Asked only for the certificate that the core built itself; to refuse it is a panic there.
            Effect::VerifyCommitCertificate(certificate, _, _, r) => {
                let result = self.checker().core_commit(&certificate);
                r.resume_with(self.verdict(result))
            }
            // Commits of other nodes never reach the core, see `Engine::apply_synced`.
            Effect::VerifyExtendedCommitCertificate(certificate, _, _, _, r) => {
                let result = self.checker().core_commit(&certificate.trim_vote_extensions());
                r.resume_with(self.verdict(result))
            }
            Effect::VerifyPolkaCertificate(certificate, _, _, r) => {
                let result =
                    if self.certificate_checked { Ok(()) } else { self.checker().polka(&certificate) };
                r.resume_with(self.verdict(result))
            }
            Effect::VerifyRoundCertificate(certificate, _, _, r) => {
                let result =
                    if self.certificate_checked { Ok(()) } else { self.checker().round(&certificate) };
                r.resume_with(self.verdict(result))
            }
            Effect::WalAppend(height, input, r) => {
                self.log_input(height.0, &input)?;
                r.resume_with(())
            }
            Effect::ExtendVote(_, _, _, _, r) => r.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => r.resume_with(Ok(())),
        })
    }

    fn schedule(&mut self, timeout: Timeout) {
        // Rebroadcasting is left to the status exchange.
        if timeout.kind == TimeoutKind::Rebroadcast {
            return;
        }
        let mut after = self.config.timeouts.of(timeout);
        if timeout.kind == TimeoutKind::Propose && convert::round(timeout.round) == 0 {
            // The proposer waits for the block interval first.
            after += self.until_next_block();
        }
        self.set_timer(Purpose::Core(timeout), after);
    }

    /// How long the proposer of a height's first round has to wait.
    pub(super) fn until_next_block(&self) -> Duration {
        self.previous_proposal
            .map_or(Duration::ZERO, |at| (at + self.config.block_time).saturating_sub(self.now))
    }

    pub(super) fn schedule_build(&mut self) {
        if let Some((height, round)) = self.build {
            let after = if round == 0 { self.until_next_block() } else { Duration::ZERO };
            self.set_timer(Purpose::Build(height, round), after);
        }
    }

    fn publish(&mut self, message: SignedConsensusMsg<Ctx>) {
        self.must_sync = true;
        match message {
            SignedConsensusMsg::Vote(vote) => {
                let vote = Vote::from_core(&vote);
                if let Some(index) = self.members.set.index_of(&vote.validator) {
                    self.pool.add_vote(vote, index);
                }
                self.gossip.spread(Message::Vote(vote), None);
            }
            SignedConsensusMsg::Proposal(proposal) => {
                let proposal = Proposal::from_core(&proposal);
                self.pool.add_proposal(proposal, self.now);
                self.gossip.spread(Message::Proposal(proposal), None);
                if proposal.pol_round.is_none() {
                    self.push_body(proposal.height, &proposal.block);
                }
            }
        }
    }

    fn key(&self) -> Result<SecretKey, Fatal> {
        let missing = || Fatal::Consensus("the core asked a node without a validator key to sign".into());
        self.config.validator_key.clone().ok_or_else(missing)
    }

    fn is_own_vote(&self, vote: &SignedVote) -> bool {
        vote.validator.0 == self.address && self.guard.holds_vote(vote)
    }

    fn is_own_proposal(&self, proposal: &SignedProposal) -> bool {
        proposal.proposer.0 == self.address && self.guard.holds_proposal(proposal)
    }

    #[allow(clippy::result_large_err)] // the core's type
    fn verdict(&self, result: Result<(), Flaw>) -> Result<(), crate::context::CertificateError> {
        if self.config.mutations.no_certificate_check {
            return Ok(());
        }
        result.map_err(|flaw| flaw.to_core(self.members.set.total_power()))
    }

    /// Logs an input of the core. During replay the core asks to log what the log holds: that is skipped. But a vote that
    /// is derived anew at the end of a replay is not in the log yet, so not everything may be skipped.
    fn log_input(&mut self, height: u64, input: &CoreInput<Ctx>) -> Result<(), Fatal> {
        let logged = match input {
            CoreInput::Vote(vote) => {
                if vote.validator.0 == self.address {
                    self.guard.note_vote(vote);
                }
                LoggedInput::Vote(Vote::from_core(vote))
            }
            CoreInput::Proposal(proposal) => {
                if proposal.proposer.0 == self.address {
                    self.guard.note_proposal(proposal);
                }
                LoggedInput::Proposal(Proposal::from_core(proposal))
            }
            CoreInput::PolkaCertificate(certificate) => {
                LoggedInput::Polka(PolkaCertificate::from_core(certificate))
            }
            CoreInput::TimeoutElapsed(timeout) => {
                let step = match timeout.kind {
                    TimeoutKind::Propose => Step::Propose,
                    TimeoutKind::Prevote => Step::Prevote,
                    TimeoutKind::Precommit => Step::Precommit,
                    TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return Ok(()),
                };
                LoggedInput::Timeout { step, round: convert::round(timeout.round) }
            }
            CoreInput::ProposedValue(value, _) => LoggedInput::Value {
                round: convert::round(value.round),
                proposer: value.proposer.0,
                id: value.value.0,
                valid: value.validity.is_valid(),
            },
            CoreInput::StartHeight(..)
            | CoreInput::RoundCertificate(_)
            | CoreInput::Propose(_)
            | CoreInput::SyncValueResponse(_) => {
                return Err(Fatal::Consensus("the core asked to log an input that has no record".into()));
            }
        };
        let record = Record::Input(height, logged);
        if self.replaying.as_ref().is_some_and(|known| known.contains(&record_hash(&record))) {
            return Ok(());
        }
        self.log.append(&record)
    }
}

pub(super) fn record_hash(record: &Record) -> Hash {
    Hash::of(Domain::Seed, &encode(record))
}
