//! Shaped links: what the backend is asked for, and whether the links do what the spec and the faults ask.
//!
//! What is asked for comes from the tables ([`netsplit_plan::faulted_links`]); what must be measured comes from the spec and
//! the faults themselves ([`netsplit_plan::expected`]), so that a mistake in the tables is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use netsplit_backend::{
    CutRect, FASTEST_MEASURED, LinkEvidence, LinkRequest, LinkState, LinksEvidence, LinksRequest, Proof,
    Share,
};
use netsplit_plan::{
    Base, LinkFault, LinkRow, base_links,
    expected::{self, Expected, Shares},
    faulted_links,
};
use netsplit_spec::{Links, NodeIndex, Testnet, format_bits};

/// Probes whose median is a link's latency.
const LATENCY_SAMPLES: usize = 25;
/// Probes of which a share is lost, comes twice or overtakes others.
const SHARE_SAMPLES: u64 = 60;
/// A share of probes may be off by so many standard deviations, and by so much and one probe beyond that.
const DEVIATIONS: f64 = 4.0;
const SHARE_SLACK: f64 = 0.02;

/// The links of one testnet.
#[derive(Debug)]
pub struct LinkBook {
    names: Vec<String>,
    indices: BTreeMap<String, NodeIndex>,
    base: Base,
    /// The links of which the base asks something, as the backend is told.
    base_rows: Arc<[LinkRequest]>,
    expected: Expected,
    seed: u64,
}

type Pair = (NodeIndex, NodeIndex);

/// One directed link, asked for and measured.
#[derive(Clone, Debug)]
pub struct SeenLink {
    pub from: String,
    pub to: String,
    pub asked: Links,
    /// By a fault that is in force.
    pub changed: bool,
    /// `None`: nobody measures it, since nothing is asked of it.
    pub measured: Option<LinkEvidence>,
    /// What shows that it is something else, or why nothing shows what it is.
    pub problem: Option<String>,
}

impl LinkBook {
    pub fn new(testnet: &Testnet) -> Self {
        let names = netsplit_spec::node_names(testnet);
        let indices = names.iter().cloned().enumerate().map(|(index, name)| (name, index)).collect();
        let (base, expected) = (Base::of(testnet), Expected::of(testnet));
        let base_rows = base_links(&base).into_iter().map(|row| entry(&names, row)).collect();
        Self { names, indices, base, base_rows, expected, seed: testnet.seed() }
    }

    /// Whether links do something without any fault.
    pub fn has_base(&self) -> bool {
        !self.base.is_empty()
    }

    /// A fault by node name as the tables have it.
    pub fn fault(&self, rects: &[CutRect], links: Links) -> Result<LinkFault> {
        let indices = |names: &[String]| -> Result<Vec<NodeIndex>> {
            let index = |name: &String| match self.indices.get(name) {
                Some(index) => Ok(*index),
                None => bail!("no node is called `{name}`"),
            };
            names.iter().map(index).collect()
        };
        let rect = |rect: &CutRect| {
            Ok(netsplit_plan::CutRect { from: indices(&rect.from)?, to: indices(&rect.to)? })
        };
        Ok(LinkFault { rects: rects.iter().map(rect).collect::<Result<_>>()?, links })
    }

    /// The links of cuts.
    pub fn cuts<'a>(&self, cuts: impl Iterator<Item = &'a [CutRect]>) -> Vec<LinkFault> {
        // Names that no node has cut nothing; whoever asked for them was told.
        cuts.filter_map(|rects| self.fault(rects, Links::default()).ok()).collect()
    }

    /// The whole desired state: the base, what the active faults make of it, and the links of `healing` ones, which are
    /// measured until they are seen at their base.
    pub fn request(&self, active: &[LinkFault], healing: &[LinkFault], lease: Duration) -> LinksRequest {
        let clear: BTreeSet<Pair> = healing
            .iter()
            .flat_map(pairs)
            .filter(|(from, to)| self.base.link(*from, *to).is_empty())
            .collect();
        let base = if clear.is_empty() {
            Arc::clone(&self.base_rows)
        } else {
            let rows = clear.into_iter().map(|(from, to)| LinkRow { from, to, links: Links::default() });
            self.base_rows.iter().cloned().chain(rows.map(|row| entry(&self.names, row))).collect()
        };
        let faulted = faulted_links(&self.base, active);
        let faulted = faulted.into_iter().map(|row| entry(&self.names, row)).collect();
        LinksRequest { seed: self.seed, base, faulted, lease }
    }

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

    /// Every directed link, as asked for by the tables, and as measured.
    pub fn links(&self, active: &[LinkFault], seen: &LinksEvidence) -> Vec<SeenLink> {
        let by_name = by_name(seen);
        let faulted: BTreeMap<Pair, Links> = faulted_links(&self.base, active)
            .into_iter()
            .map(|LinkRow { from, to, links }| ((from, to), links))
            .collect();
        let count = self.names.len();
        let ends = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        ends.filter(|(from, to)| from != to)
            .map(|(from, to)| {
                let (a, b) = (&self.names[from], &self.names[to]);
                let measured = by_name.get(&(a.as_str(), b.as_str())).copied();
                SeenLink {
                    from: a.clone(),
                    to: b.clone(),
                    asked: faulted.get(&(from, to)).copied().unwrap_or_else(|| self.base.link(from, to)),
                    changed: faulted.contains_key(&(from, to)),
                    problem: measured.and_then(|link| match self.judge_one((from, to), active, link) {
                        Proof::Proven => None,
                        Proof::Unproven(what) | Proof::Violated(what) => Some(what),
                    }),
                    measured: measured.cloned(),
                }
            })
            .collect()
    }

    fn judge_one(&self, pair: Pair, active: &[LinkFault], link: &LinkEvidence) -> Proof {
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
        let mut words = format!(
            "{} links measured: {:.2} to {:.2} ms one way, {received} of {sent} probes came",
            links.len(),
            latencies().fold(f64::INFINITY, f64::min),
            latencies().fold(0.0, f64::max)
        );
        let counts: [(fn(&LinkEvidence) -> u64, &str); 2] =
            [(|link| link.duplicated, "twice"), (|link| link.reordered, "out of order")];
        for (count, how) in counts {
            let count: u64 = links.iter().map(|link| count(link)).sum();
            if count > 0 {
                words.push_str(&format!(", {count} {how}"));
            }
        }
        words
    }
}

/// Whether so many of so many are another share than was asked for.
fn is_off(count: u64, of: u64, share: f64) -> bool {
    let of = of as f64;
    let deviation = (of * share * (1.0 - share)).sqrt();
    (count as f64 - of * share).abs() > DEVIATIONS * deviation + SHARE_SLACK * of + 1.0
}

fn entry(names: &[String], LinkRow { from, to, links }: LinkRow) -> LinkRequest {
    LinkRequest {
        from: names[from].clone(),
        to: names[to].clone(),
        number: (from * names.len() + to) as u32,
        state: state(links),
    }
}

/// What the emulation did wrong, apart from what it had done wrong `before`.
pub fn emulation_fault(before: &[String], seen: &LinksEvidence) -> Option<String> {
    seen.faults.iter().find(|fault| !before.contains(fault)).cloned()
}

fn by_name(seen: &LinksEvidence) -> BTreeMap<(&str, &str), &LinkEvidence> {
    seen.links.iter().map(|link| ((link.from.as_str(), link.to.as_str()), link)).collect()
}

fn covers(cuts: &[LinkFault], (from, to): Pair) -> bool {
    cuts.iter().flat_map(|cut| &cut.rects).any(|rect| rect.from.contains(&from) && rect.to.contains(&to))
}

fn pairs(fault: &LinkFault) -> impl Iterator<Item = Pair> {
    let all = fault
        .rects
        .iter()
        .flat_map(|rect| rect.from.iter().flat_map(move |from| rect.to.iter().map(move |to| (*from, *to))));
    all.filter(|(from, to)| from != to)
}

fn state(links: Links) -> LinkState {
    let share = |share: Option<netsplit_spec::Share>| {
        share.map_or(Share::NONE, |share| Share::millionths(share.as_millionths()))
    };
    LinkState {
        latency: links.latency.unwrap_or_default(),
        jitter: links.jitter.unwrap_or_default(),
        loss: share(links.loss),
        rate: links.rate,
        duplicate: share(links.duplicate),
        reorder: share(links.reorder),
        corrupt: share(links.corrupt),
    }
}

#[cfg(test)]
mod tests {
    use netsplit_backend::Counters;
    use netsplit_spec::BaseLinks;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn testnet(fields: &str) -> Testnet {
        let text = format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: t}}\nspec: {{consensus: {{bft: \
             {{blockTime: 1s}}}}, {fields}}}"
        );
        match netsplit_spec::parse(&text, "t.yaml").unwrap().remove(0) {
            netsplit_spec::Document::Testnet(testnet) => testnet,
            other @ netsplit_spec::Document::Experiment(_) => panic!("{other:?}"),
        }
    }

    /// Of the nodes a, b and c.
    fn book(base: Option<Links>) -> LinkBook {
        let mut testnet = testnet("nodes: [{name: a, role: validator, count: 3}]");
        testnet.links = base.map(|links| BaseLinks { links, ..BaseLinks::default() });
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let indices = names.iter().cloned().enumerate().map(|(index, name)| (name, index)).collect();
        let base_rows = base_links(&Base::of(&testnet)).into_iter().map(|row| entry(&names, row)).collect();
        LinkBook { names, indices, base_rows, ..LinkBook::new(&testnet) }
    }

    fn latency(ms: u32) -> Links {
        Links { latency: Some(ms * MS), ..Links::default() }
    }

    fn from_a_to(to: &[&str]) -> Vec<CutRect> {
        vec![CutRect { from: vec!["a".into()], to: to.iter().map(|name| (*name).to_owned()).collect() }]
    }

    fn seen(from: &str, to: &str, ms: i64, received: u64) -> LinkEvidence {
        LinkEvidence {
            from: from.into(),
            to: to.into(),
            sent: 100,
            received,
            duplicated: 0,
            reordered: 0,
            latency_us: Some(ms * 1_000),
            samples: 33,
            rate: None,
            counters: Counters::default(),
        }
    }

    fn evidence(links: Vec<LinkEvidence>) -> LinksEvidence {
        LinksEvidence { links, ..LinksEvidence::default() }
    }

    #[test]
    fn what_is_asked_for_is_base_and_faults_and_what_heals() {
        let book = book(None);
        let fault = book.fault(&from_a_to(&["b", "c"]), latency(80)).unwrap();
        let asked = book.request(std::slice::from_ref(&fault), &[], MS);
        assert!(asked.base.is_empty());
        let names: Vec<_> = asked.faulted.iter().map(|link| (link.to.as_str(), link.number)).collect();
        assert_eq!(names, [("b", 1), ("c", 2)]);
        assert!(asked.faulted.iter().all(|link| link.state.latency == 80 * MS));
        let healing = book.request(&[], &[fault], MS);
        assert_eq!((healing.base.len(), healing.faulted.len()), (2, 0));
        assert!(healing.base.iter().all(|link| link.state.is_clear()), "measured, not shaped");
        book.fault(&from_a_to(&["nobody"]), latency(1)).unwrap_err();
    }

    #[test]
    fn each_link_must_be_measured_as_asked() {
        let book = book(Some(latency(10)));
        let fault = book.fault(&from_a_to(&["b", "c"]), latency(80)).unwrap();
        let active = [fault.clone()];
        let judge = |links| book.judge(&fault, &active, &[], &evidence(links));
        assert_eq!(judge(vec![seen("a", "b", 80, 100), seen("a", "c", 81, 99)]), Proof::Proven);
        // The directions exchanged, as a table that is wired wrong would have it.
        assert!(matches!(judge(vec![seen("b", "a", 80, 100), seen("c", "a", 80, 100)]), Proof::Unproven(_)));
        let wrong = judge(vec![seen("a", "b", 80, 100), seen("a", "c", 7, 100)]);
        assert_eq!(wrong, Proof::Unproven("packets from a to c take 7.00 ms, not 80.00 ms".into()));
        let lossy = judge(vec![seen("a", "b", 80, 80), seen("a", "c", 80, 100)]);
        assert!(
            matches!(lossy, Proof::Unproven(what) if what.starts_with("20.0 % of 100 probes from a to b"))
        );
        let few = LinkEvidence { samples: 3, ..seen("a", "b", 80, 3) };
        assert!(matches!(judge(vec![few, seen("a", "c", 80, 100)]), Proof::Unproven(_)));
    }

    #[test]
    fn shares_of_probes_must_be_as_asked() {
        let percent = |percent: u32| netsplit_spec::Share::millionths(percent * 10_000);
        let odd = |links: Links| {
            let book = book(Some(latency(20)));
            let fault = book.fault(&from_a_to(&["b"]), links).unwrap();
            let active = [fault.clone()];
            move |received, duplicated, reordered| {
                let link = LinkEvidence { received, duplicated, reordered, ..seen("a", "b", 20, 100) };
                book.judge(&fault, &active, &[], &evidence(vec![link]))
            }
        };
        let twice = odd(Links { duplicate: Some(percent(30)), ..Links::default() });
        assert_eq!(twice(100, 33, 0), Proof::Proven);
        for (duplicated, reordered) in [(0, 0), (100, 0), (30, 60)] {
            assert!(
                matches!(twice(100, duplicated, reordered), Proof::Unproven(_)),
                "{duplicated} {reordered}"
            );
        }
        let overtaking = odd(Links { reorder: Some(percent(25)), ..Links::default() });
        assert_eq!(overtaking(100, 0, 20), Proof::Proven);
        let none = overtaking(100, 0, 0);
        assert_eq!(
            none,
            Proof::Unproven("0.0 % of 100 probes from a to b overtook others, not 25.0 %".into())
        );
        let damaged = odd(Links { corrupt: Some(percent(50)), ..Links::default() });
        assert_eq!(damaged(52, 0, 0), Proof::Proven);
        assert!(
            matches!(damaged(100, 0, 0), Proof::Unproven(_)),
            "whole packets where damaged ones were asked"
        );
    }

    #[test]
    fn the_rate_must_be_as_asked_where_it_can_be_measured() {
        let judge = |asked: u64, measured: Option<u64>| {
            let book = book(None);
            let links = Links { rate: Some(asked), ..Links::default() };
            let fault = book.fault(&from_a_to(&["b"]), links).unwrap();
            let link = LinkEvidence { rate: measured, ..seen("a", "b", 0, 100) };
            book.judge(&fault, std::slice::from_ref(&fault), &[], &evidence(vec![link]))
        };
        assert_eq!(judge(1_000_000, Some(1_040_000)), Proof::Proven);
        for measured in [None, Some(700_000), Some(9_000_000)] {
            assert!(matches!(judge(1_000_000, measured), Proof::Unproven(_)), "{measured:?}");
        }
        assert_eq!(judge(FASTEST_MEASURED * 2, None), Proof::Proven, "nobody can measure it");
    }

    /// 5 % of 73 ms are 3.65 ms.
    #[test]
    fn a_link_may_be_off_by_so_much_and_no_more() {
        let book = book(Some(latency(73)));
        let judge = |ms| book.judge_one((0, 1), &[], &seen("a", "b", ms, 100));
        assert_eq!([70, 73, 76].map(judge), [Proof::Proven, Proof::Proven, Proof::Proven]);
        for ms in [7, 69, 77] {
            assert!(matches!(judge(ms), Proof::Unproven(_)), "{ms} ms where 73 were asked");
        }
    }

    #[test]
    fn a_healed_fault_is_over_when_its_links_are_at_their_base() {
        let book = book(Some(latency(10)));
        let fault = book.fault(&from_a_to(&["b"]), latency(80)).unwrap();
        let judge = |ms| book.judge(&fault, &[], &[], &evidence(vec![seen("a", "b", ms, 100)]));
        assert_eq!(judge(10), Proof::Proven);
        assert!(matches!(judge(80), Proof::Unproven(_)));
    }

    #[test]
    fn the_emulators_own_faults_prove_nothing() {
        let mut seen = evidence(vec![seen("a", "b", 80, 100)]);
        seen.faults.push("3 packets were lost by a full packet queue of the link agent".into());
        assert!(emulation_fault(&[], &seen).is_some());
        assert_eq!(emulation_fault(&seen.faults, &seen), None, "that was before the fault");
    }

    #[test]
    fn a_link_that_is_cut_is_not_measured() {
        let book = book(None);
        let fault = book.fault(&from_a_to(&["b", "c"]), latency(80)).unwrap();
        let cut = book.cuts(std::iter::once(from_a_to(&["c"]).as_slice()));
        let seen = evidence(vec![seen("a", "b", 80, 100)]);
        let active = [fault.clone()];
        assert_eq!(book.judge(&fault, &active, &cut, &seen), Proof::Proven);
        assert!(matches!(book.judge(&fault, &active, &[], &seen), Proof::Unproven(_)));
    }

    #[test]
    fn a_base_link_that_is_off_is_told() {
        let book = book(Some(latency(10)));
        let fault = book.fault(&from_a_to(&["b"]), latency(80)).unwrap();
        let problem = |links| book.base_problem(std::slice::from_ref(&fault), &[], &evidence(links));
        assert_eq!(problem(vec![seen("a", "b", 7, 100), seen("b", "a", 10, 100)]), None, "a fault's own");
        let off = problem(vec![seen("b", "c", 10, 100), seen("c", "b", 13, 100)]);
        assert_eq!(off.as_deref(), Some("packets from c to b take 13.00 ms, not 10.00 ms"));
        let few = LinkEvidence { samples: 3, ..seen("c", "b", 13, 100) };
        assert_eq!(problem(vec![few]), None, "too few to tell");
    }

    /// Trains come one after the other: of many links each waits for its turn, and raises no alarm meanwhile.
    #[test]
    fn a_base_rate_is_judged_once_it_is_known() {
        let book = book(Some(Links { rate: Some(1_000_000), ..latency(10) }));
        let problem = |rate| {
            let link = LinkEvidence { rate, ..seen("b", "c", 10, 100) };
            book.base_problem(&[], &[], &evidence(vec![link]))
        };
        assert_eq!([None, Some(1_000_000)].map(problem), [None, None]);
        assert!(problem(Some(3_000_000)).is_some());
    }

    /// A pack in which the directions of a pair differ, and what a table would give that takes one for the other.
    #[test]
    fn each_direction_between_two_regions_has_its_own_figure() {
        let matrix = "[{from: x, to: y, latency: 30ms}, {from: y, to: x, latency: 70ms}]";
        let fields = format!(
            "nodes: [{{name: v, role: validator, count: 3, regions: [x, y]}}], links: {{matrix: {matrix}, loss: 1%}}"
        );
        let book = LinkBook::new(&testnet(&fields));
        let asked = book.request(&[], &[], MS);
        let latency = |from: &str, to: &str| {
            let found = asked.base.iter().find(|link| link.from == from && link.to == to);
            found.map(|link| (link.state.latency, link.state.loss))
        };
        let loss = Share::millionths(10_000);
        assert_eq!(latency("v-0", "v-1"), Some((30 * MS, loss)));
        assert_eq!(latency("v-1", "v-0"), Some((70 * MS, loss)));
        assert_eq!(latency("v-0", "v-2"), Some((Duration::ZERO, loss)), "both are in x");
        let seen = |forth, back| evidence(vec![seen("v-0", "v-1", forth, 99), seen("v-1", "v-0", back, 99)]);
        assert_eq!(book.base_problem(&[], &[], &seen(30, 70)), None);
        let swapped = book.base_problem(&[], &[], &seen(70, 30));
        assert_eq!(swapped.as_deref(), Some("packets from v-0 to v-1 take 70.00 ms, not 30.00 ms"));
    }
}
