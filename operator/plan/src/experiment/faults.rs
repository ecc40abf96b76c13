//! Each fault's way: due, applied, proven, healed, open again.

use std::time::Duration;

use netsplit_spec::{Links, NodeFault, NodeIndex, Ramp};
use serde::{Deserialize, Serialize};

use super::Action;
use super::limits::{EARLY_MS, ORDERLY_MS, PROOF_MS, REPEAT_MS};
use super::log::{Log, seconds};
use super::observed::{FaultObserved, Observed};
use super::verdict::TimelineKind;
use crate::fault::{CutRect, FaultPlan, HeldNodes};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultState {
    pub plan: FaultPlan,
    pub asked_at_ms: Option<u64>,
    pub applied_at_ms: Option<u64>,
    proven_at_ms: Option<u64>,
    /// Since when it is active without proof.
    unproven_since_ms: Option<u64>,
    /// It was seen to be something else than what was asked for.
    #[serde(default)]
    violated: bool,
    pub heal_asked_at_ms: Option<u64>,
    pub healed_at_ms: Option<u64>,
    pub open_at_ms: Option<u64>,
    /// When its pending action was given last.
    given_at_ms: Option<u64>,
    /// Give it again, whatever was given: the caller has restarted.
    again: bool,
}

/// A fault that was asked for, for whoever takes a run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultStands<'a> {
    pub id: &'a str,
    pub rects: &'a [CutRect],
    /// What its links are changed to; none: they are cut.
    pub links: Option<Links>,
    /// How `links` are reached.
    pub ramp: Option<Ramp>,
    /// What is done to nodes; then it has no `rects`.
    pub held: Option<&'a HeldNodes>,
    pub lasts_ms: u64,
    /// When its last rule was in place, if that was seen.
    pub applied_at_ms: Option<u64>,
    /// It was proven at some time.
    pub proven: bool,
    /// Since when it is to be healed.
    pub heal_asked_at_ms: Option<u64>,
    /// When its rules were gone, if that was seen.
    pub healed_at_ms: Option<u64>,
}

impl FaultState {
    pub fn stands(&self) -> Option<FaultStands<'_>> {
        self.asked_at_ms.map(|_| FaultStands {
            id: &self.plan.id,
            rects: &self.plan.rects,
            links: self.plan.links,
            ramp: self.plan.ramp,
            held: self.plan.held.as_ref(),
            lasts_ms: self.plan.lasts_ms,
            applied_at_ms: self.applied_at_ms,
            proven: self.proven_at_ms.is_some(),
            heal_asked_at_ms: self.heal_asked_at_ms,
            healed_at_ms: self.healed_at_ms,
        })
    }

    pub fn new(plan: FaultPlan) -> Self {
        Self {
            plan,
            asked_at_ms: None,
            applied_at_ms: None,
            proven_at_ms: None,
            unproven_since_ms: None,
            violated: false,
            heal_asked_at_ms: None,
            healed_at_ms: None,
            open_at_ms: None,
            given_at_ms: None,
            again: false,
        }
    }

    /// How long it may be without proof: probes take as long as the links that they measure, and an orderly end its time.
    fn proof_ms(&self) -> u64 {
        let longest = self.plan.links.map_or(Duration::ZERO, |links| {
            links.latency.unwrap_or_default() + links.jitter.unwrap_or_default()
        });
        let is_orderly = self.plan.held.as_ref().is_some_and(|held| held.what == NodeFault::Restart);
        PROOF_MS + longest.as_millis() as u64 + if is_orderly { ORDERLY_MS } else { 0 }
    }

    /// It is done to this node, or was and the node is not known to run again: what the node does is not its own doing.
    pub fn holds(&self, node: NodeIndex) -> bool {
        self.asked_at_ms.is_some()
            && self.open_at_ms.is_none()
            && self.plan.held.as_ref().is_some_and(|held| held.nodes.contains(&node))
    }

    /// It ends this node's process, or has and the node is not known to run again.
    pub fn ends(&self, node: NodeIndex) -> bool {
        self.holds(node) && self.plan.held.as_ref().is_some_and(|held| held.what != NodeFault::Pause)
    }

    /// What it is done to, for sentences.
    fn whose(&self) -> &'static str {
        if self.plan.held.is_some() { "nodes" } else { "links" }
    }

    fn id(&self) -> &str {
        &self.plan.id
    }

    pub fn resume(&mut self) {
        self.again = true;
    }

    /// Asked for, and perhaps in force.
    pub fn is_out(&self) -> bool {
        self.asked_at_ms.is_some() && self.healed_at_ms.is_none()
    }

    /// It is done to each of all the nodes.
    pub fn holds_all(&self, nodes: usize) -> bool {
        self.plan.held.as_ref().is_some_and(|held| held.nodes.len() == nodes)
    }

    /// It is or was done to nodes, which are not known to run again. Its heal may be seen before it is asked for.
    pub fn waits_for_nodes(&self) -> bool {
        self.plan.held.is_some() && self.asked_at_ms.is_some() && self.open_at_ms.is_none()
    }

    /// It is done to this node now, as far as is known.
    pub fn has(&self, node: NodeIndex) -> bool {
        self.is_out() && self.plan.held.as_ref().is_some_and(|held| held.nodes.contains(&node))
    }

    pub fn is_active(&self) -> bool {
        self.asked_at_ms.is_some() && self.heal_asked_at_ms.is_none()
    }

    /// Healed, and the links seen open.
    pub fn is_over(&self) -> bool {
        self.healed_at_ms.is_some() && self.open_at_ms.is_some()
    }

    /// Takes in what the links report; why the run proves nothing, if it comes to that.
    ///
    /// `up`: by node, whether the backend's own list has it running; `None` for one that another fault holds.
    pub fn see(&mut self, log: &mut Log<'_>, observed: &Observed, up: &[Option<bool>]) -> Option<String> {
        let asked_at_ms = self.asked_at_ms?;
        let nothing = FaultObserved::default();
        // What was applied before it was asked for is left from an earlier run and proves nothing about this one.
        let is_own = |seen: &&FaultObserved| {
            seen.id == self.plan.id && seen.applied_at_ms.is_none_or(|at_ms| at_ms >= asked_at_ms)
        };
        let seen = observed.faults.iter().find(is_own).unwrap_or(&nothing);
        let now_ms = log.now_ms;
        if self.applied_at_ms.is_none()
            && let Some(at_ms) = seen.applied_at_ms
        {
            self.applied_at_ms = Some(at_ms);
            self.given_at_ms = None;
            log.note_at(at_ms, TimelineKind::FaultApplied, format!("{} applied", self.id()));
        }
        // Once: what is told of it later must not stand in the way of its heal.
        if !self.violated
            && self.healed_at_ms.is_none()
            && let Some(violation) = self.violation(seen)
        {
            self.violated = true;
            let text = format!("fault `{}` was not what was asked for: {violation}", self.id());
            log.note(TimelineKind::FaultViolated, text.clone());
            return Some(text);
        }
        if self.heal_asked_at_ms.is_none()
            && let (Some(applied_at_ms), Some(at_ms)) = (self.applied_at_ms, seen.healed_at_ms)
        {
            let lasted_ms = at_ms.saturating_sub(applied_at_ms);
            if lasted_ms.saturating_add(EARLY_MS) < self.plan.lasts_ms {
                let (lasted, lasts) = (seconds(lasted_ms), seconds(self.plan.lasts_ms));
                return Some(format!(
                    "fault `{}` was ended from outside after {lasted} of {lasts}",
                    self.id()
                ));
            }
            // The caller keeps time too, and was a little earlier.
            self.heal(at_ms.min(now_ms));
        }
        if self.heal_asked_at_ms.is_some() {
            return self.see_heal(log, seen, up);
        }
        let Some(applied_at_ms) = self.applied_at_ms else {
            let late = now_ms.saturating_sub(asked_at_ms) > self.proof_ms();
            return late.then(|| {
                format!(
                    "fault `{}` was asked for but not applied within {}",
                    self.id(),
                    seconds(self.proof_ms())
                )
            });
        };
        if seen.proven {
            self.unproven_since_ms = None;
            if self.proven_at_ms.is_none() {
                self.proven_at_ms = Some(now_ms);
                let after = seconds(now_ms.saturating_sub(applied_at_ms));
                log.note(
                    TimelineKind::FaultProven,
                    format!(
                        "{} proven after {after}: {}",
                        self.id(),
                        match (&self.plan.held, self.plan.links) {
                            (Some(held), _) if held.what == NodeFault::Pause => {
                                "processes stopped, and nobody answers"
                            }
                            (Some(_), _) => "processes gone, streams of blocks broken off",
                            (None, Some(_)) => "its links measured as asked",
                            (None, None) => "drops counted, nothing crosses, control probes pass",
                        }
                    ),
                );
            }
            return None;
        }
        // A proof that lapses is given as much time to come back as the first one had. On its way a ramp proves nothing.
        let ramp_ms = self.plan.ramp.map_or(0, |ramp| ramp.over.as_millis() as u64);
        let start_ms = if self.proven_at_ms.is_none() { applied_at_ms + ramp_ms } else { now_ms };
        let since = *self.unproven_since_ms.get_or_insert(start_ms);
        (now_ms.saturating_sub(since) > self.proof_ms()).then(|| {
            format!("fault `{}` was applied, but without proof for {}", self.id(), seconds(self.proof_ms()))
        })
    }

    fn violation(&self, seen: &FaultObserved) -> Option<String> {
        let anew = || match (self.applied_at_ms, seen.applied_at_ms) {
            (Some(first_ms), Some(again_ms)) if again_ms > first_ms => {
                let after = seconds(again_ms - first_ms);
                Some(format!(
                    "it was applied anew after {after}, so its {} were free in between",
                    self.whose()
                ))
            }
            _ => None,
        };
        seen.violations.first().cloned().or_else(anew)
    }

    fn see_heal(&mut self, log: &mut Log<'_>, seen: &FaultObserved, up: &[Option<bool>]) -> Option<String> {
        let asked_at_ms = self.heal_asked_at_ms?;
        let now_ms = log.now_ms;
        if self.healed_at_ms.is_none()
            && let Some(at_ms) = seen.healed_at_ms
        {
            self.healed_at_ms = Some(at_ms);
            self.given_at_ms = None;
            log.note_at(at_ms, TimelineKind::FaultHealed, format!("{} healed", self.id()));
            if self.proven_at_ms.is_none() && !seen.proven {
                return Some(format!("fault `{}` was over before it could be proven", self.id()));
            }
        }
        let Some(healed_at_ms) = self.healed_at_ms else {
            let late = now_ms.saturating_sub(asked_at_ms) > self.proof_ms();
            return late.then(|| {
                format!("fault `{}` could not be healed within {}", self.id(), seconds(self.proof_ms()))
            });
        };
        if self.open_at_ms.is_none() {
            let is_down = |node: &NodeIndex| up.get(*node).copied().flatten() == Some(false);
            let some_down = self.plan.held.as_ref().is_some_and(|held| held.nodes.iter().any(is_down));
            if seen.confirmed_open && !some_down {
                self.open_at_ms = Some(now_ms);
            } else if now_ms.saturating_sub(healed_at_ms) > self.proof_ms() {
                return Some(format!(
                    "fault `{}` was healed, but its {} were not seen {} within {}",
                    self.id(),
                    self.whose(),
                    if self.plan.held.is_some() { "running" } else { "open" },
                    seconds(self.proof_ms())
                ));
            }
        }
        None
    }

    /// Due by the run's clock, whose zero is at `zero_ms`.
    pub fn drive(&mut self, log: &mut Log<'_>, zero_ms: u64) {
        let now_ms = log.now_ms;
        if self.asked_at_ms.is_none() {
            if now_ms < zero_ms.saturating_add(self.plan.at_ms) {
                return;
            }
            self.asked_at_ms = Some(now_ms);
        }
        let over = |applied_at_ms: u64| now_ms >= applied_at_ms.saturating_add(self.plan.lasts_ms);
        if self.heal_asked_at_ms.is_none() && self.applied_at_ms.is_some_and(over) {
            self.heal(now_ms);
        }
    }

    /// From then on it is to be healed, if it was asked for.
    pub fn heal(&mut self, from_ms: u64) {
        if self.asked_at_ms.is_some() && self.heal_asked_at_ms.is_none() {
            self.heal_asked_at_ms = Some(from_ms);
            self.given_at_ms = None;
        }
    }

    /// The action whose effect is still to be seen, if it is time to give it.
    pub fn act(&mut self, log: &mut Log<'_>) {
        let again = std::mem::take(&mut self.again);
        if !self.is_out() {
            return;
        }
        let now_ms = log.now_ms;
        let waited = self.given_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= REPEAT_MS);
        let action = if self.heal_asked_at_ms.is_some() {
            (waited || again).then(|| Action::HealFault { id: self.plan.id.clone() })
        } else {
            let pending = self.applied_at_ms.is_none();
            ((waited && pending) || again).then(|| Action::ApplyFault {
                id: self.plan.id.clone(),
                rects: self.plan.rects.clone(),
                links: self.plan.links,
                ramp: self.plan.ramp,
                held: self.plan.held.clone(),
                lasts_ms: self.plan.lasts_ms,
            })
        };
        if let Some(action) = action {
            self.given_at_ms = Some(now_ms);
            log.actions.push(action);
        }
    }
}
