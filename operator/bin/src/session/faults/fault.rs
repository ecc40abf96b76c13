//! One fault and what is known of it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use netsplit_backend::{CutEvidence, CutRect, CutState, Proof};
use netsplit_plan::{LinkFault, NodeFault, Ramp, experiment::FaultObserved};
use netsplit_spec::Links;

use super::{Shape, unix_ms};

/// Evidence that is older shows nothing about now: as long as an agent has to answer.
const FRESH: Duration = Duration::from_secs(2);

/// One fault, active or healed.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Unique in the testnet.
    pub id: String,
    /// Unique among its owner's faults: what an experiment's state machine calls it.
    pub name: String,
    pub description: String,
    /// `user`, or the experiment's name.
    pub owner: String,
    pub shape: Option<Shape>,
    pub rects: Vec<CutRect>,
    /// What it changes its links to; none: it cuts them.
    pub(super) change: Option<LinkFault>,
    /// How its links grow to what they are changed to.
    pub(super) ramp: Option<(Ramp, Links)>,
    /// What it does to nodes, instead of to links.
    pub held: Option<Held>,
    /// What was measured of changed links or of nodes, as one sentence.
    pub(super) measured: String,
    /// What the emulation had done wrong before it: that says nothing about this fault. None until somebody has looked.
    pub(super) earlier_faults: Option<Vec<String>>,
    pub since_ms: u64,
    /// Planned end; none: until healed.
    pub until: Option<(Instant, u64)>,
    pub applied_at_ms: Option<u64>,
    pub healed_at_ms: Option<u64>,
    /// What contradicts it, each once.
    pub violations: Vec<String>,
    pub evidence: Option<CutEvidence>,
    /// When the evidence came in.
    pub(super) measured_at: Option<Instant>,
    /// It was proven at some time, and nothing has contradicted it since.
    pub was_proven: bool,
    /// The sentence that proved it, kept after its heal.
    pub(super) proof: String,
    /// It was over before this process began: that its links are open is known by the agents' word alone, which hold no
    /// rule of it.
    pub(super) recalled_open: bool,
}

/// Nodes by name, and what is done to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub what: NodeFault,
    pub nodes: Vec<String>,
}

impl fmt::Display for Held {
    /// `kill validator-0, validator-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what.as_str(), self.nodes.join(", "))
    }
}

/// A fault that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub owner: String,
    pub name: String,
    pub description: String,
    pub shape: Option<Shape>,
    pub rects: Vec<CutRect>,
    /// What the links are changed to; none: they are cut.
    pub links: Option<Links>,
    /// How they grow to that.
    pub ramp: Option<Ramp>,
    /// What is done to nodes; then it has no `rects`.
    pub held: Option<Held>,
    /// None: until healed.
    pub lasts: Option<Duration>,
}

impl Fault {
    /// Not applied yet; `change` is what `wanted.links` means, at the end of a ramp.
    pub(super) fn new(wanted: Wanted, change: Option<LinkFault>) -> Self {
        let Wanted { owner, name, description, shape, rects, links, ramp, held, lasts } = wanted;
        let since_ms = unix_ms();
        Self {
            id: format!("{owner}/{name}"),
            name,
            description,
            owner,
            shape,
            rects,
            change,
            ramp: ramp.zip(links),
            held,
            measured: String::new(),
            earlier_faults: None,
            since_ms,
            until: lasts.map(|lasts| (Instant::now() + lasts, since_ms + lasts.as_millis() as u64)),
            applied_at_ms: None,
            healed_at_ms: None,
            violations: Vec::new(),
            evidence: None,
            measured_at: None,
            was_proven: false,
            proof: String::new(),
            recalled_open: false,
        }
    }

    /// It is in force, `late` after it was asked for, and lasts from now on: nodes take their time to end.
    pub(super) fn begin(&mut self, late: Duration) {
        self.applied_at_ms = Some(unix_ms());
        if let Some((at, at_ms)) = &mut self.until {
            *at += late;
            *at_ms += late.as_millis() as u64;
        }
    }

    pub fn links(&self) -> u64 {
        let pairs = |rect: &CutRect| {
            let both = rect.from.iter().filter(|name| rect.to.contains(name)).count();
            (rect.from.len() * rect.to.len() - both) as u64
        };
        self.rects.iter().map(pairs).sum()
    }

    /// Packets that its rules have dropped.
    pub fn dropped(&self) -> u64 {
        self.evidence.as_ref().map_or(0, |evidence| evidence.drops)
    }

    /// It is proven by what is measured, and not by what its rules drop.
    fn is_measured(&self) -> bool {
        self.change.is_some() || self.held.is_some()
    }

    /// It cuts its links.
    pub(super) fn is_cut(&self) -> bool {
        !self.is_measured()
    }

    /// What its links are changed to; none: they are cut.
    pub fn quality(&self) -> Option<Links> {
        self.ramp.map(|(_, goal)| goal).or_else(|| self.change.as_ref().map(|change| change.links))
    }

    /// Goes on with its ramp; whether that changes its links.
    pub(super) fn grow(&mut self, now_ms: u64) -> bool {
        let (Some((ramp, goal)), Some(change)) = (self.ramp, self.change.as_mut()) else { return false };
        let since_ms = now_ms.saturating_sub(self.applied_at_ms.unwrap_or(now_ms));
        let links = netsplit_plan::ramped(&ramp, goal, since_ms);
        std::mem::replace(&mut change.links, links) != links
    }

    /// Its links are not yet what they are changed to.
    pub(super) fn is_growing(&self) -> bool {
        let links = self.change.as_ref().map(|change| change.links);
        self.ramp.is_some_and(|(_, goal)| links != Some(goal))
    }

    /// One word for people and scripts.
    pub fn state(&self) -> &'static str {
        if !self.violations.is_empty() {
            "violated"
        } else if self.is_open() {
            "open"
        } else if self.healed_at_ms.is_some() {
            "healing"
        } else if self.is_proven() {
            "proven"
        } else {
            "applying"
        }
    }

    /// The last measurement shows it, and that is fresh or was the last one before its heal.
    pub fn is_proven(&self) -> bool {
        self.violations.is_empty()
            && self.unmeasured().is_none()
            && self.evidence.as_ref().is_some_and(|evidence| evidence.proof.is_proven())
    }

    /// For how long nobody has measured it, if that is too long while it is active.
    fn unmeasured(&self) -> Option<Duration> {
        let age = self.measured_at?.elapsed();
        (self.healed_at_ms.is_none() && age > FRESH).then_some(age)
    }

    pub fn is_open(&self) -> bool {
        let seen_open = self.evidence.as_ref().is_some_and(|evidence| evidence.state == CutState::Open);
        self.healed_at_ms.is_some() && (seen_open || self.recalled_open)
    }

    /// What is known, as one sentence.
    pub fn evidence_text(&self) -> String {
        if let Some(violation) = self.violations.first() {
            return violation.clone();
        }
        let Some(evidence) = &self.evidence else { return "no evidence yet".to_owned() };
        if let Some(age) = self.unmeasured() {
            let who = if self.held.is_some() { "whoever owns the nodes" } else { "the link agent" };
            return format!("not measured for {:.1} s: {who} does not answer", age.as_secs_f64());
        }
        match &evidence.proof {
            Proof::Unproven(what) | Proof::Violated(what) => what.clone(),
            Proof::Proven if self.is_measured() => self.measured.clone(),
            Proof::Proven => {
                let sent: u64 = evidence.pairs.iter().map(|pair| pair.probes_sent).sum();
                let controls: u64 = evidence.pairs.iter().map(|pair| pair.controls_received).sum();
                format!(
                    "{} packets dropped, {sent} probes sent and none arrived, {controls} control probes arrived",
                    evidence.drops
                )
            }
        }
    }

    /// What proved it, or why nothing did.
    pub fn proof_text(&self) -> String {
        if self.was_proven { self.proof.clone() } else { self.evidence_text() }
    }

    pub(super) fn take(&mut self, evidence: CutEvidence) {
        if let Proof::Violated(what) = &evidence.proof {
            self.violate(what.clone());
        }
        self.evidence = Some(evidence);
        self.measured_at = Some(Instant::now());
        if self.is_proven() {
            self.was_proven = true;
            self.proof = self.evidence_text();
        }
    }

    pub(super) fn observed(&self) -> FaultObserved {
        FaultObserved {
            id: self.name.clone(),
            applied_at_ms: self.applied_at_ms,
            proven: self.is_proven(),
            violations: self.violations.clone(),
            healed_at_ms: self.healed_at_ms,
            confirmed_open: self.is_open(),
        }
    }

    pub(super) fn violate(&mut self, what: String) {
        if !self.violations.contains(&what) {
            tracing::warn!(fault = %self.id, %what, "the fault is not what was asked for");
            self.violations.push(what);
            self.was_proven = false;
        }
    }
}
