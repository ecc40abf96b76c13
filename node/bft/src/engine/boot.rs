//! Starting from the log: decisions that the application lost are applied again, then the height that was under way is
//! replayed, so that lock, valid block, round, polkas and own votes come back as they were.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use malachitebft_core_consensus::{Input as CoreInput, ProposedValue};
use malachitebft_core_types::{Round, Timeout, TimeoutKind, Validity, ValueOrigin};
use netsplit_core::{Commit, Hash, Height};

use super::effects::record_hash;
use super::{Engine, new_core};
use crate::bodies::Body;
use crate::context::{Addr, At, Ctx, Id};
use crate::timers::Purpose;
use crate::wal::record::{LoggedInput, Record, Step};
use crate::{Application, Fatal, LogStorage};

impl<A: Application, L: LogStorage> Engine<A, L> {
    /// The order is: decisions; guard and pools from the log; the height's start; its inputs, each as if it had just
    /// arrived; blocks whose check was not logged; the proposal that the core asked for meanwhile.
    pub(super) fn replay(&mut self) -> Result<(), Fatal> {
        self.host.check_limits()?;
        let records = self.open_log()?;
        self.apply_decisions(&records)?;
        let height = self.host.app.height() + 1;
        if height > 1 && self.host.last_commit.height + 1 != height {
            let missing = || {
                Fatal::Inconsistent(format!("the application has no block of its own height {}", height - 1))
            };
            self.host.last_commit = self.host.app.block(height - 1)?.ok_or_else(missing)?.1;
        }
        self.core = new_core(self.host.address, height, self.host.members.clone());

        let mut inputs = Vec::new();
        let mut known = HashSet::new();
        for record in records.into_iter().filter(|record| record.height() == height) {
            if self.host.config.mutations.no_replay {
                break;
            }
            known.insert(record_hash(&record));
            match record {
                Record::Input(_, input) => inputs.push(self.restore(height, input)),
                Record::Body { id, bytes, .. } => {
                    self.host.bodies.hold(height, id, Body { bytes, valid: None, logged: true });
                }
                Record::Decided(_) => {}
            }
        }
        self.host.replaying = Some(known);
        let start = self.host.start_input(height);
        self.run(start)?;
        // Without the index, own votes would be signed anew, and votes of rounds far ahead dropped. It has to be made after
        // the height's start, and only for the replay.
        self.core.index_wal_entries(inputs.iter());
        self.host.certificate_checked = true;
        for input in inputs {
            if let CoreInput::TimeoutElapsed(timeout) = &input {
                self.host.timers.cancel(Purpose::Core(*timeout));
            }
            self.run(input)?;
        }
        self.host.certificate_checked = false;
        self.core.reset_entries_index();
        self.host.replaying = None;

        let unchecked: Vec<Hash> =
            self.host.bodies.at(height).filter(|(_, body)| body.valid.is_none()).map(|(id, _)| *id).collect();
        for id in unchecked {
            self.check_body(height, id)?;
        }
        if let Some((at, round)) = self.host.build {
            let waiting = at == self.height()
                && self.core.round() == Round::new(round)
                && self.core.driver.step_is_propose();
            if waiting && !self.host.guard.has_proposed(at, round) {
                self.host.schedule_build();
            }
        }
        // What was derived anew during the replay may leave only once it is durable.
        self.host.must_sync = true;
        let every = self.host.config.timeouts.status;
        self.host.set_timer(Purpose::Status, every.min(Duration::from_millis(500)));
        Ok(())
    }

    fn open_log(&mut self) -> Result<Vec<Record>, Fatal> {
        let host = &mut self.host;
        let height = host.app.height();
        if let Some(contents) = host.log.open()? {
            if contents.decided < height {
                return Err(Fatal::Inconsistent(format!(
                    "it ends at height {}, but the chain is at height {height}: it is older than the store; restore both \
                     from one time, or start this node from an empty data directory with a new validator key",
                    contents.decided
                )));
            }
            return Ok(contents.records);
        }
        if height > 0 && host.config.validator_key.is_some() {
            return Err(Fatal::Inconsistent(format!(
                "it is empty although the chain is at height {height}; a validator that lost its log may have signed votes \
                 that it does not remember: start it from an empty data directory with a new validator key"
            )));
        }
        host.log.begin(height + 1)?;
        Ok(Vec::new())
    }

    /// Applies the log's decisions above the application's height.
    fn apply_decisions(&mut self, records: &[Record]) -> Result<(), Fatal> {
        let mut blocks = BTreeMap::new();
        for record in records {
            match record {
                Record::Body { height, id, bytes } => {
                    blocks.insert((*height, *id), bytes.clone());
                }
                Record::Decided(commit) => {
                    self.apply_decision(commit, blocks.get(&(commit.height, commit.block)).cloned())?;
                    blocks.retain(|(height, _), _| *height > commit.height);
                }
                Record::Input(..) => {}
            }
        }
        Ok(())
    }

    fn apply_decision(&mut self, commit: &Commit, block: Option<bytes::Bytes>) -> Result<(), Fatal> {
        let host = &mut self.host;
        let height = host.app.height();
        if commit.height <= height {
            return Ok(());
        }
        if commit.height != height + 1 {
            return Err(Fatal::Inconsistent(format!(
                "it goes on at height {}, but the application ends at {height}; the store is older than the log: restore \
                 both from one time, or start this node from an empty data directory",
                commit.height
            )));
        }
        let block = block.ok_or_else(|| {
            Fatal::Inconsistent(format!("the block of height {} is missing", commit.height))
        })?;
        host.apply(&block, commit.clone())?;
        if let Some(next) = host.next_members.take() {
            host.members = next;
        }
        Ok(())
    }

    /// Puts a logged input where guard and pools would have it, and returns it for the core.
    fn restore(&mut self, height: Height, input: LoggedInput) -> CoreInput<Ctx> {
        let host = &mut self.host;
        match input {
            LoggedInput::Vote(vote) => {
                if let Some(index) = host.members.set.index_of(&vote.validator) {
                    host.pool.add_vote(vote, index);
                }
                let vote = vote.to_core();
                if vote.validator.0 == host.address {
                    host.guard.note_vote(&vote);
                }
                CoreInput::Vote(vote)
            }
            LoggedInput::Proposal(proposal) => {
                host.pool.add_proposal(proposal, host.now);
                let proposal = proposal.to_core();
                if proposal.proposer.0 == host.address {
                    host.guard.note_proposal(&proposal);
                }
                CoreInput::Proposal(proposal)
            }
            LoggedInput::Polka(certificate) => CoreInput::PolkaCertificate(certificate.to_core()),
            LoggedInput::Timeout { step, round } => {
                let kind = match step {
                    Step::Propose => TimeoutKind::Propose,
                    Step::Prevote => TimeoutKind::Prevote,
                    Step::Precommit => TimeoutKind::Precommit,
                };
                CoreInput::TimeoutElapsed(Timeout::new(Round::new(round), kind))
            }
            LoggedInput::Value { round, proposer, id, valid } => {
                if let Some(body) = host.bodies.get_mut(height, &id) {
                    body.valid = Some(valid);
                }
                let value = ProposedValue {
                    height: At(height),
                    round: Round::new(round),
                    valid_round: Round::Nil,
                    proposer: Addr(proposer),
                    value: Id(id),
                    validity: Validity::from_bool(valid),
                };
                CoreInput::ProposedValue(value, ValueOrigin::Consensus)
            }
        }
    }
}
