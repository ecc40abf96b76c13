//! What the agent remembers of each cut: its probes, what went wrong, and how it ended.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    cuts::{Changed, Observed},
    model::{Cut, CutEvidence, CutState, PairEvidence, Proof},
    probe::{PAIRS_PER_WATCH, Probes, WatchId, sample},
    proof::{Facts, judge},
};

/// Cuts that ended, kept for whoever asks late.
const HISTORY: usize = 64;
/// Probes that must come through on a pair for its link to be open again.
const OPEN_AFTER: u64 = 2;
/// A heal that takes longer is a problem worth a sentence.
const HEAL_DEADLINE: Duration = Duration::from_secs(5);
/// Sentences kept of one cut.
const PROBLEMS: usize = 8;

#[derive(Debug)]
struct Tracked {
    cut: Cut,
    watch: WatchId,
    deadline: Instant,
    lapsed: bool,
    drops: u64,
    rule_missing: bool,
    interrupted: Option<String>,
    problems: Vec<String>,
}

/// A cut that is no longer wanted.
#[derive(Debug)]
struct Ended {
    evidence: CutEvidence,
    /// Probes over its links, until they came through.
    healing: Option<(WatchId, Instant)>,
    cut: Cut,
}

/// All cuts of one network.
#[derive(Debug, Default)]
pub struct Tracker {
    active: Vec<Tracked>,
    ended: VecDeque<Ended>,
}

impl Tracker {
    /// Follows a change of the desired cuts that the kernel has just made.
    pub fn changed(&mut self, prober: &mut impl Probes, cuts: &[Cut], changed: &Changed, now: Instant) {
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.active.drain(..).partition(|tracked| !changed.ended.contains(&tracked.cut.id));
        self.active = kept;
        for cut in cuts {
            let deadline = now + cut.lease;
            if let Some(tracked) = self.active.iter_mut().find(|tracked| tracked.cut.id == cut.id) {
                tracked.deadline = deadline;
                tracked.lapsed = false;
                tracked.cut = cut.clone();
                prober.extend(tracked.watch, deadline);
            } else {
                let watch = prober.watch(sample(cut, PAIRS_PER_WATCH), Some(deadline));
                self.active.push(Tracked {
                    cut: cut.clone(),
                    watch,
                    deadline,
                    lapsed: false,
                    drops: 0,
                    rule_missing: false,
                    interrupted: None,
                    problems: Vec::new(),
                });
            }
        }
        for tracked in &mut self.active {
            if let Some((_, open_for)) = changed.lapsed.iter().find(|(id, _)| *id == tracked.cut.id) {
                let open_for = open_for.as_millis();
                tracked.interrupt(format!("its lease ended {open_for} ms before it was renewed"));
            }
            if changed.rebuilt {
                tracked.interrupt("its rules were removed from the kernel and made anew".to_owned());
            }
        }
        for tracked in gone {
            self.retire(prober, tracked, now);
        }
        self.stop_shadowed_healing(prober);
    }

    /// Keeps a cut's last evidence, and starts to probe whether its links are open.
    fn retire(&mut self, prober: &mut impl Probes, tracked: Tracked, now: Instant) {
        let mut evidence = tracked.evidence(prober, now);
        prober.end(tracked.watch);
        let healing = if evidence.state == CutState::LeaseEnded {
            None
        } else {
            evidence.state = CutState::Healing;
            let open = |(from, to): &(Ipv4Addr, Ipv4Addr)| !self.covered(*from, *to);
            let pairs = sample(&tracked.cut, PAIRS_PER_WATCH).into_iter().filter(open).collect();
            Some((prober.watch(pairs, None), now))
        };
        evidence.lease_left_ms = 0;
        if self.ended.len() == HISTORY
            && let Some(Ended { healing: Some((watch, _)), .. }) = self.ended.pop_front()
        {
            prober.end(watch);
        }
        self.ended.push_back(Ended { evidence, healing, cut: tracked.cut });
    }

    fn covered(&self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        self.active.iter().any(|tracked| tracked.cut.covers(from, to))
    }

    /// A new cut over links that are being confirmed open takes them out of that.
    fn stop_shadowed_healing(&mut self, prober: &mut impl Probes) {
        let active = &self.active;
        let covered = |from, to| active.iter().any(|tracked| tracked.cut.covers(from, to));
        for ended in &mut self.ended {
            let Some((watch, since)) = ended.healing else { continue };
            let all = sample(&ended.cut, PAIRS_PER_WATCH);
            if all.iter().any(|(from, to)| covered(*from, *to)) {
                prober.end(watch);
                let pairs = all.into_iter().filter(|(from, to)| !covered(*from, *to)).collect();
                ended.healing = Some((prober.watch(pairs, None), since));
            }
        }
    }

    /// Notes that a cut names other addresses than before, because a node has moved. Gives the watch that is to follow.
    pub fn moved(&mut self, cut: &Cut) -> Option<WatchId> {
        let tracked = self.active.iter_mut().find(|tracked| tracked.cut.id == cut.id)?;
        tracked.cut.rects.clone_from(&cut.rects);
        Some(tracked.watch)
    }

    /// Notes why an active cut was not in force all the time.
    pub fn interrupted(&mut self, id: &str, sentence: String) {
        if let Some(tracked) = self.active.iter_mut().find(|tracked| tracked.cut.id == id) {
            tracked.interrupt(sentence);
        }
    }

    /// Notes the cuts whose lease has ended.
    pub fn expire(&mut self, prober: &mut impl Probes, now: Instant) {
        for tracked in &mut self.active {
            if !tracked.lapsed && now >= tracked.deadline {
                tracked.lapsed = true;
                tracked.interrupt("its lease ended before it was renewed".to_owned());
            }
        }
        for ended in &mut self.ended {
            let Some((watch, since)) = ended.healing else { continue };
            let (pairs, _) = prober.evidence(watch, now);
            if pairs.iter().all(is_open) {
                ended.evidence.state = CutState::Open;
                ended.healing = None;
                prober.end(watch);
            } else if now.duration_since(since) >= HEAL_DEADLINE {
                let silent = pairs.iter().filter(|pair| !is_open(pair)).count();
                ended.evidence.problems.push(format!(
                    "{silent} of {} links carried no probe within {} s of the heal",
                    pairs.len(),
                    HEAL_DEADLINE.as_secs()
                ));
                ended.healing = None;
                prober.end(watch);
            }
        }
    }

    /// Takes what the kernel holds of the active cuts.
    pub fn observed(&mut self, prober: &mut impl Probes, observed: &[Observed], now: Instant) {
        for found in observed {
            if let Some(tracked) = self.active.iter_mut().find(|tracked| tracked.cut.id == found.id) {
                tracked.drops = found.drops;
                tracked.rule_missing |= found.rule_missing;
                // The table's deadline was taken before the transaction, so it is the earlier one.
                tracked.deadline = found.deadline;
                prober.extend(tracked.watch, found.deadline);
            }
        }
        self.expire(prober, now);
    }

    /// Notes that nothing could be read from the kernel.
    pub fn unobserved(&mut self, problem: &str) {
        for tracked in &mut self.active {
            tracked.problem(problem.to_owned());
        }
    }

    /// One entry per active cut and per cut that ended recently, these first.
    pub fn evidence(&self, prober: &impl Probes, now: Instant) -> Vec<CutEvidence> {
        let ended = self.ended.iter().map(|ended| ended.evidence.clone());
        ended.chain(self.active.iter().map(|tracked| tracked.evidence(prober, now))).collect()
    }
}

fn is_open(pair: &PairEvidence) -> bool {
    pair.probes_received >= OPEN_AFTER
}

impl Tracked {
    fn evidence(&self, prober: &impl Probes, now: Instant) -> CutEvidence {
        let (pairs, send_errors) = prober.evidence(self.watch, now);
        let state = if self.lapsed { CutState::LeaseEnded } else { CutState::Active };
        let proof = judge(&Facts {
            state,
            rule_missing: self.rule_missing,
            interrupted: self.interrupted.as_deref(),
            drops: self.drops,
            pairs: &pairs,
        });
        let mut problems = self.problems.clone();
        if send_errors > 0 {
            problems.push(format!("{send_errors} probes could not be sent"));
        }
        if let Proof::Unproven(sentence) | Proof::Violated(sentence) = &proof
            && !problems.contains(sentence)
        {
            problems.push(sentence.clone());
        }
        let left = if self.lapsed { Duration::ZERO } else { self.deadline.saturating_duration_since(now) };
        CutEvidence {
            id: self.cut.id.clone(),
            state,
            drops: self.drops,
            lease_left_ms: left.as_millis() as u64,
            pairs,
            proof,
            problems,
        }
    }

    fn interrupt(&mut self, sentence: String) {
        self.problem(sentence.clone());
        // The first interruption is the one to explain.
        self.interrupted.get_or_insert(sentence);
    }

    fn problem(&mut self, sentence: String) {
        if self.problems.len() < PROBLEMS && !self.problems.contains(&sentence) {
            self.problems.push(sentence);
        }
    }
}
