//! Whether links are measured to be what the spec and the faults ask of them.

use std::collections::BTreeSet;

use netsplit_backend::{FASTEST_MEASURED, LinkEvidence, LinksEvidence, Proof};
use netsplit_plan::{
    LinkFault,
    expected::{self, Shares},
};
use netsplit_spec::format_bits;

use super::{LinkBook, Pair, by_name, covers, pairs};

/// Probes whose median is a link's latency.
const LATENCY_SAMPLES: usize = 25;
/// Probes of which a share is lost, comes twice or overtakes others.
const SHARE_SAMPLES: u64 = 60;
/// A share of probes may be off by so many standard deviations, and by so much and one probe beyond that.
const DEVIATIONS: f64 = 4.0;
const SHARE_SLACK: f64 = 0.02;
impl LinkBook {
    /// Whether every link of a fault is measured to be what the faults in force ask for. For one that was healed: whether its
    /// links are as they would be without it. Links that are cut carry nothing to measure. A link that is measured to be
    /// something else is not proven: one busy moment makes no violation, and what lasts ends the run all the same.
    pub fn judge(
        &self,
        of: &LinkFault,
        active: &[LinkFault],
        cuts: &[LinkFault],
        seen: &LinksEvidence,
    ) -> Proof {
        let by_name = by_name(seen);
        let mut unproven = None;
        for (from, to) in pairs(of).filter(|pair| !covers(cuts, *pair)) {
            let (a, b) = (self.names[from].as_str(), self.names[to].as_str());
            let Some(link) = by_name.get(&(a, b)) else {
                unproven.get_or_insert(format!("the link from {a} to {b} is not measured"));
                continue;
            };
            match self.judge_one((from, to), active, link) {
                Proof::Proven => {}
                Proof::Unproven(what) | Proof::Violated(what) => drop(unproven.get_or_insert(what)),
            }
        }
        unproven.map_or(Proof::Proven, Proof::Unproven)
    }

    /// A link that no fault touches, and that is measured to be something else than the testnet asks for.
    pub fn base_problem(
        &self,
        active: &[LinkFault],
        cuts: &[LinkFault],
        seen: &LinksEvidence,
    ) -> Option<String> {
        let touched: BTreeSet<Pair> = active.iter().flat_map(pairs).collect();
        let measured =
            seen.links.iter().filter(|link| link.samples >= LATENCY_SAMPLES && link.sent >= SHARE_SAMPLES);
        measured
            .filter_map(|link| Some(((*self.indices.get(&link.from)?, *self.indices.get(&link.to)?), link)))
            .filter(|(pair, _)| !touched.contains(pair) && !covers(cuts, *pair))
            .find_map(|(pair, link)| self.contradiction(pair, active, link))
    }

    pub(super) fn judge_one(&self, pair: Pair, active: &[LinkFault], link: &LinkEvidence) -> Proof {
        let off = self.contradiction(pair, active, link).or_else(|| {
            let is_unknown = link.rate.is_none() && self.measurable_rate(pair, active).is_some();
            let (a, b) = (&link.from, &link.to);
            is_unknown
                .then(|| format!("too few trains of probes have come from {a} to {b} to say how fast it is"))
        });
        off.map_or(Proof::Proven, Proof::Unproven)
    }

    /// What was measured of a link and is not what was asked for, or too few probes to say.
    fn contradiction(&self, pair: Pair, active: &[LinkFault], link: &LinkEvidence) -> Option<String> {
        self.off_latency(pair, active, link)
            .or_else(|| self.off_shares(pair, active, link))
            .or_else(|| self.off_rate(pair, active, link))
    }

    fn measurable_rate(&self, (from, to): Pair, active: &[LinkFault]) -> Option<u64> {
        self.expected.rate(active, from, to).filter(|rate| *rate <= FASTEST_MEASURED)
    }

    fn off_latency(&self, (from, to): Pair, active: &[LinkFault], link: &LinkEvidence) -> Option<String> {
        let (a, b) = (&link.from, &link.to);
        let latency = self.expected.latency(active, from, to);
        let Some(measured) = link.latency_us.filter(|_| link.samples >= LATENCY_SAMPLES) else {
            // Of a link on which all packets overtake each other nobody can say how long they take.
            let is_timed = self.expected.shares(active, from, to).reordered < 1.0;
            return is_timed.then(|| {
                format!(
                    "{} probes have come from {a} to {b}: {LATENCY_SAMPLES} say how long they take",
                    link.samples
                )
            });
        };
        let off_us = measured.abs_diff(latency.as_micros() as i64);
        (off_us > expected::tolerance(latency).as_micros() as u64).then(|| {
            format!(
                "packets from {a} to {b} take {:.2} ms, not {:.2} ms",
                measured as f64 / 1_000.0,
                latency.as_secs_f64() * 1_000.0
            )
        })
    }

    fn off_rate(&self, pair: Pair, active: &[LinkFault], link: &LinkEvidence) -> Option<String> {
        let (a, b) = (&link.from, &link.to);
        let (rate, measured) = (self.measurable_rate(pair, active)?, link.rate?);
        (!expected::rate_bounds(rate).contains(&measured)).then(|| {
            format!(
                "the link from {a} to {b} lets {} through, not {}",
                format_bits(measured),
                format_bits(rate)
            )
        })
    }

    fn off_shares(&self, (from, to): Pair, active: &[LinkFault], link: &LinkEvidence) -> Option<String> {
        let (a, b) = (&link.from, &link.to);
        let shares = self.expected.shares(active, from, to);
        let wanted = if shares == Shares::default() { LATENCY_SAMPLES as u64 } else { SHARE_SAMPLES };
        if link.sent < wanted {
            return Some(format!(
                "{} probes were sent from {a} to {b}: {wanted} say how many are lost",
                link.sent
            ));
        }
        let lost = link.sent.saturating_sub(link.received);
        let mut checks = vec![
            (lost, link.sent, shares.lost, "were lost"),
            (link.duplicated, link.received, shares.duplicated, "came twice"),
        ];
        if expected::shows_order(self.expected.latency(active, from, to)) {
            checks.push((link.reordered, link.received, shares.reordered, "overtook others"));
        }
        let off = checks.into_iter().find(|(count, of, share, _)| is_off(*count, *of, *share));
        off.map(|(count, of, share, what)| {
            format!(
                "{:.1} % of {of} probes from {a} to {b} {what}, not {:.1} %",
                count as f64 / of.max(1) as f64 * 100.0,
                share * 100.0
            )
        })
    }

    /// What was measured of a fault's links, as one sentence.
    pub fn words(&self, of: &LinkFault, seen: &LinksEvidence) -> String {
        let wanted: BTreeSet<(&str, &str)> =
            pairs(of).map(|(from, to)| (self.names[from].as_str(), self.names[to].as_str())).collect();
        let links: Vec<&LinkEvidence> = seen
            .links
            .iter()
            .filter(|link| wanted.contains(&(link.from.as_str(), link.to.as_str())))
            .collect();
        let latencies = || links.iter().filter_map(|link| link.latency_us).map(|us| us as f64 / 1_000.0);
        let (sent, received): (u64, u64) =
            links.iter().fold((0, 0), |(sent, received), link| (sent + link.sent, received + link.received));
        let some = |count: u64, how: &str| {
            if count > 0 { format!(", {count} {how}") } else { String::new() }
        };
        format!(
            "{} links measured: {:.2} to {:.2} ms one way, {received} of {sent} probes came{}{}",
            links.len(),
            latencies().fold(f64::INFINITY, f64::min),
            latencies().fold(0.0, f64::max),
            some(links.iter().map(|link| link.duplicated).sum(), "twice"),
            some(links.iter().map(|link| link.reordered).sum(), "out of order"),
        )
    }
}

/// Whether so many of so many are another share than was asked for.
fn is_off(count: u64, of: u64, share: f64) -> bool {
    let of = of as f64;
    let deviation = (of * share * (1.0 - share)).sqrt();
    (count as f64 - of * share).abs() > DEVIATIONS * deviation + SHARE_SLACK * of + 1.0
}

/// What the emulation did wrong, apart from what it had done wrong `before`.
pub fn emulation_fault(before: &[String], seen: &LinksEvidence) -> Option<String> {
    seen.faults.iter().find(|fault| !before.contains(fault)).cloned()
}
