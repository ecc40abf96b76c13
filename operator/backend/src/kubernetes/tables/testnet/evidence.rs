//! What is known of a testnet's cuts, from what all of its agents report.

use std::{collections::BTreeSet, time::Instant};

use netsplit_links::{CutState, Proof, cuts::Observed};

use super::{Desired, FRESH, TestnetState};
use crate::{
    backend::CutEvidence,
    translate::{Names, cut_evidence},
};

impl TestnetState {
    pub(in super::super) fn evidence(&mut self, now: Instant) -> Vec<CutEvidence> {
        self.look(now);
        let names =
            Names::new(self.nodes.iter().filter_map(|(name, node)| Some((name.clone(), node.address()?))));
        let mut evidence = self.tracker.evidence(&self.pairs, now);
        for cut in evidence.iter_mut().filter(|cut| cut.state == CutState::Active && cut.proof.is_proven()) {
            if let Some(silent) = self.unheard(&cut.id, now) {
                cut.proof = Proof::Unproven(silent);
            }
        }
        // Links that heal are probed until they are seen open: those that are need not be any more.
        self.publish(now, false);
        evidence.into_iter().map(|evidence| cut_evidence(evidence, &names)).collect()
    }

    /// Who of a cut's nodes has not reported for too long, as a sentence: what it counted before proves nothing now.
    fn unheard(&self, id: &str, now: Instant) -> Option<String> {
        let rects = &self.desired.iter().find(|desired| desired.request.id == id)?.request.rects;
        let names: BTreeSet<&String> =
            rects.iter().flat_map(|rect| rect.from.iter().chain(&rect.to)).collect();
        names.into_iter().find_map(|name| {
            let node = self.nodes.get(name)?;
            let Some(agent) = &node.agent else {
                return node.member.running.then(|| format!("the link agent of {name} is not connected"));
            };
            let age = now.saturating_duration_since(agent.heard_at);
            (age > FRESH).then(|| {
                format!(
                    "not measured for {:.1} s: the link agent of {name} does not answer",
                    age.as_secs_f64()
                )
            })
        })
    }

    /// Before any change: what has ended in between must not be renewed unseen.
    pub(super) fn look(&mut self, now: Instant) {
        let observed: Vec<Observed> = self.desired.iter().map(|desired| self.observed(desired)).collect();
        self.tracker.observed(&mut self.pairs, &observed, now);
    }

    /// What all agents together hold of a cut.
    fn observed(&self, desired: &Desired) -> Observed {
        let mut observed = Observed {
            id: desired.request.id.clone(),
            drops: desired.earlier_drops,
            rule_missing: false,
            deadline: desired.deadline,
        };
        for agent in self.nodes.values().filter_map(|node| node.agent.as_ref()) {
            let Some(cut) = agent.report.cuts.iter().find(|cut| cut.id == desired.instance) else { continue };
            observed.drops += cut.drops;
            observed.rule_missing |= cut.rule_missing;
            if let Some(deadline) = agent.deadlines.get(&desired.instance) {
                observed.deadline = observed.deadline.min(*deadline);
            }
        }
        observed
    }
}
