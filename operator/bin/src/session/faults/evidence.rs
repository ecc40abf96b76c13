//! What backends report, taken into the faults.

use std::time::Instant;

use netsplit_backend::{BackendError, CutEvidence, CutState, LinksEvidence, Proof};
use netsplit_plan::LinkFault;

use super::{Entries, Fault, FaultTable, changes};
use crate::session::links::emulation_fault;

impl FaultTable {
    pub(super) async fn take_evidence(&self, entries: &mut Entries, all: Vec<CutEvidence>) {
        let mut lapsed = Vec::new();
        for evidence in all {
            if let Some(fault) = entries.active.iter_mut().find(|fault| fault.id == evidence.id) {
                match evidence.state {
                    CutState::LeaseEnded => {
                        fault.violate(
                            "its lease ended before it was renewed: the links opened by themselves"
                                .to_owned(),
                        );
                        lapsed.push(fault.id.clone());
                    }
                    CutState::Active => {}
                    // Of an earlier fault with the same id.
                    CutState::Healing | CutState::Open => continue,
                }
                fault.take(evidence);
            } else if let Some(fault) = entries.healed.iter_mut().rev().find(|fault| fault.id == evidence.id)
                && matches!(evidence.state, CutState::Healing | CutState::Open)
            {
                fault.evidence = Some(evidence);
            }
        }
        // Handing a lapsed fault over again would start it anew in silence.
        if !lapsed.is_empty()
            && let Err(error) = self.remove(entries, |fault| lapsed.contains(&fault.id)).await
        {
            tracing::error!(%error, "cannot drop a fault whose lease has ended");
        }
        self.publish(entries);
    }

    /// What the probes say of links, and so of the faults that change them.
    pub(super) async fn take_measures(&self, entries: &mut Entries, seen: LinksEvidence) {
        let active = changes(&entries.active);
        let cuts: Vec<LinkFault> = self
            .book
            .cuts(entries.active.iter().filter(|fault| fault.is_cut()).map(|fault| fault.rects.as_slice()));
        // Links that are on their way are nothing that lasts long enough to be measured.
        let growing: Vec<LinkFault> = entries
            .active
            .iter()
            .filter(|fault| fault.is_growing())
            .filter_map(|f| f.change.clone())
            .collect();
        let cuts = [cuts, growing].concat();
        for fault in &mut entries.active {
            let Some(change) = fault.change.clone() else { continue };
            if seen.lease_ended {
                fault.violate(
                    "its lease ended before it was renewed: the links went back by themselves".to_owned(),
                );
                continue;
            }
            fault.measured = self.book.words(&change, &seen);
            let earlier = fault.earlier_faults.get_or_insert_with(|| seen.faults.clone());
            let proof = match emulation_fault(earlier, &seen) {
                Some(problem) => Proof::Unproven(problem),
                None if fault.is_growing() => {
                    Proof::Unproven(format!("its links are on their way: {}", change.links))
                }
                None => self.book.judge(&change, &active, &cuts, &seen),
            };
            fault.take(evidence(fault, CutState::Active, proof));
        }
        for fault in &mut entries.healed {
            let Some(change) = fault.change.clone().filter(|_| !fault.is_open()) else { continue };
            let proof = self.book.judge(&change, &active, &cuts, &seen);
            let state = if proof.is_proven() { CutState::Open } else { CutState::Healing };
            fault.evidence = Some(evidence(fault, state, proof));
        }
        self.base_problem.send_replace(self.book.base_problem(&active, &cuts, &seen));
        let lapsed = seen.lease_ended;
        entries.links = seen;
        entries.links_at = Some(Instant::now());
        entries.measured = entries.told;
        if let Err(error) = self.remove(entries, |fault| fault.change.is_some() && lapsed).await {
            tracing::error!(%error, "cannot drop a fault whose lease has ended");
        }
        self.end_measuring(entries).await;
        self.publish(entries);
    }

    /// Nobody answers for the links: what cannot be measured is not known to be as asked.
    pub(super) fn cannot_measure(&self, error: &BackendError) {
        tracing::warn!(%error, "no measures of links");
        if self.book.has_base() {
            self.base_problem.send_replace(Some(format!("no link can be measured: {error}")));
        }
    }

    /// Nothing is shaped any more and the last healed fault was seen open: its links need no probes.
    async fn end_measuring(&self, entries: &mut Entries) {
        let is_wanted = |fault: &Fault| fault.change.is_some() && !fault.is_open();
        if self.book.has_base() || entries.active.iter().chain(&entries.healed).any(is_wanted) {
            return;
        }
        match self.hand_over(entries).await {
            Ok(()) => {
                entries.links = LinksEvidence::default();
                entries.links_at = None;
            }
            Err(error) => tracing::warn!(%error, "cannot end the measuring of links"),
        }
    }
}

/// Changed links and held nodes are proven by what is measured of them, not by drops.
pub(super) fn evidence(fault: &Fault, state: CutState, proof: Proof) -> CutEvidence {
    CutEvidence {
        id: fault.id.clone(),
        state,
        drops: 0,
        lease_left_ms: 0,
        pairs: Vec::new(),
        proof,
        problems: Vec::new(),
    }
}
