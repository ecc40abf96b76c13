use netsplit_backend::{Counters, FASTEST_MEASURED};
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
    assert!(matches!(lossy, Proof::Unproven(what) if what.starts_with("20.0 % of 100 probes from a to b")));
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
        assert!(matches!(twice(100, duplicated, reordered), Proof::Unproven(_)), "{duplicated} {reordered}");
    }
    let overtaking = odd(Links { reorder: Some(percent(25)), ..Links::default() });
    assert_eq!(overtaking(100, 0, 20), Proof::Proven);
    let none = overtaking(100, 0, 0);
    assert_eq!(none, Proof::Unproven("0.0 % of 100 probes from a to b overtook others, not 25.0 %".into()));
    let damaged = odd(Links { corrupt: Some(percent(50)), ..Links::default() });
    assert_eq!(damaged(52, 0, 0), Proof::Proven);
    assert!(matches!(damaged(100, 0, 0), Proof::Unproven(_)), "whole packets where damaged ones were asked");
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
