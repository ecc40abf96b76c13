//! What counters and probes say about a cut. Pure: the same facts give the same proof.

use crate::model::{CutState, PairEvidence, Proof};

/// Control probes that must have arrived on a pair before its silence means anything.
pub const MIN_CONTROLS: u64 = 3;

/// What is known about a cut while it is active.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub state: CutState,
    /// A rule was seen to be missing at any time.
    pub rule_missing: bool,
    /// The cut was not in force all the time; the sentence says since when.
    pub interrupted: Option<&'a str>,
    pub drops: u64,
    /// The sampled pairs; probes still on their way are not counted as sent.
    pub pairs: &'a [PairEvidence],
}

/// Judges a cut. A leak outweighs everything; without a control probe silence proves nothing.
pub fn judge(facts: &Facts<'_>) -> Proof {
    if let Some(pair) = facts.pairs.iter().find(|pair| pair.probes_received > 0) {
        return Proof::Violated(format!(
            "{} of {} probes arrived from {} at {} although the link is cut",
            pair.probes_received, pair.probes_sent, pair.from, pair.to
        ));
    }
    if facts.rule_missing {
        return Proof::Violated("a rule of the cut was removed from the kernel".to_owned());
    }
    if facts.state == CutState::LeaseEnded {
        return Proof::Unproven("its lease ended before it was renewed".to_owned());
    }
    if let Some(sentence) = facts.interrupted {
        return Proof::Unproven(sentence.to_owned());
    }
    if facts.pairs.is_empty() {
        return Proof::Unproven("no link of the cut joins two known nodes".to_owned());
    }
    let weak = facts.pairs.iter().find(|pair| {
        pair.controls_received < MIN_CONTROLS
            || pair.probes_sent < MIN_CONTROLS
            // Half of the control probes lost: the probes may be silent for the same reason.
            || pair.controls_received * 2 < pair.controls_sent
    });
    if let Some(pair) = weak {
        return Proof::Unproven(format!(
            "{} of {} control probes arrived from {} at {}, with {} probes sent: too few for silence to mean a cut",
            pair.controls_received, pair.controls_sent, pair.from, pair.to, pair.probes_sent
        ));
    }
    let sent: u64 = facts.pairs.iter().map(|pair| pair.probes_sent).sum();
    // The rest may be lost on a loaded machine before the rule sees them.
    if facts.drops * 2 < sent {
        return Proof::Unproven(format!(
            "the cut dropped {} packets, fewer than half of the {sent} probes",
            facts.drops
        ));
    }
    Proof::Proven
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn pair() -> PairEvidence {
        PairEvidence {
            from: Ipv4Addr::new(10, 0, 0, 1),
            to: Ipv4Addr::new(10, 0, 0, 2),
            probes_sent: 10,
            probes_received: 0,
            controls_sent: 10,
            controls_received: 10,
        }
    }

    fn judge_with(pair: PairEvidence, change: impl FnOnce(&mut Facts<'_>)) -> Proof {
        let pairs = [pair];
        let mut facts = Facts {
            state: CutState::Active,
            rule_missing: false,
            interrupted: None,
            drops: 10,
            pairs: &pairs,
        };
        change(&mut facts);
        judge(&facts)
    }

    #[test]
    fn silence_with_controls_and_drops_proves() {
        assert_eq!(judge_with(pair(), |_| {}), Proof::Proven);
    }

    #[test]
    fn one_arrival_violates_whatever_else_is_known() {
        let leaky = PairEvidence { probes_received: 1, controls_received: 0, ..pair() };
        assert!(matches!(judge_with(leaky, |f| f.state = CutState::LeaseEnded), Proof::Violated(_)));
    }

    #[test]
    fn a_missing_rule_violates() {
        assert!(matches!(judge_with(pair(), |f| f.rule_missing = true), Proof::Violated(_)));
    }

    #[test]
    fn what_is_not_shown_is_unproven() {
        let unproven = |pair, change: fn(&mut Facts<'_>)| {
            let proof = judge_with(pair, change);
            assert!(matches!(proof, Proof::Unproven(_)), "{proof:?}");
        };
        unproven(PairEvidence { controls_received: 2, ..pair() }, |_| {});
        unproven(PairEvidence { controls_received: 4, ..pair() }, |_| {});
        unproven(PairEvidence { probes_sent: 2, ..pair() }, |_| {});
        unproven(pair(), |f| f.drops = 4);
        unproven(pair(), |f| f.state = CutState::LeaseEnded);
        unproven(pair(), |f| f.interrupted = Some("it paused"));
        unproven(pair(), |f| f.pairs = &[]);
    }
}
