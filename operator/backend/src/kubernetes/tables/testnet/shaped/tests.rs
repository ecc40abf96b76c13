use std::time::Duration;

use netsplit_links::{
    pod::{LinkSent, Report, Table},
    shape::{Counters, LinkState},
};

use super::*;
use crate::kubernetes::tables::{
    testnet::tests::{LEASE, Tables, at, member, newcomer, read, three},
    wire as convert,
};

fn link(from: &str, to: &str, number: u32, ms: u64) -> LinkRequest {
    let state = LinkState { latency: Duration::from_millis(ms), ..LinkState::default() };
    LinkRequest { from: from.to_owned(), to: to.to_owned(), number, state }
}

fn request(base: Vec<LinkRequest>, faulted: Vec<LinkRequest>) -> LinksRequest {
    LinksRequest { seed: 5, base: base.into(), faulted, lease: LEASE }
}

/// From a to b (1), from b to a (3) and from c to b (7).
fn base() -> Vec<LinkRequest> {
    vec![link("a", "b", 1, 20), link("b", "a", 3, 10), link("c", "b", 7, 30)]
}

fn received(link: u32, (first, last): (u64, u64), received: u64, ms: i64) -> LinkReceived {
    let (latency_us, samples) = (Some(ms * 1_000), 33);
    LinkReceived {
        link,
        first,
        last,
        received,
        duplicated: 0,
        reordered: 0,
        latency_us,
        samples,
        rate: None,
        counters: Counters::default(),
    }
}

/// What the agent of a node says while it holds its newest table.
fn tell(
    state: &mut TestnetState,
    (node, stream, tables): (&str, u64, &Tables),
    received: Vec<LinkReceived>,
    sent: Vec<(u32, u64)>,
    now: Instant,
) {
    let sent = sent.into_iter().map(|(link, last)| LinkSent { link, last }).collect();
    let shaped = Some(ShapedReport { received, sent, ..ShapedReport::default() });
    let report = Report { applied: Some(read(tables).version), shaped, ..Report::default() };
    state.report(node, stream, convert::report(&report), now);
}

fn all_tell_nothing(state: &mut TestnetState, tables: &[Tables], now: Instant) {
    for (place, node) in ["a", "b", "c"].into_iter().enumerate() {
        tell(state, (node, place as u64 + 1, &tables[place]), Vec::new(), Vec::new(), now);
    }
}

fn opened(request: LinksRequest, now: Instant) -> (TestnetState, Vec<Tables>) {
    let (mut state, tables) = three(now);
    state.set_cuts(Vec::new(), now).unwrap();
    state.set_links(request, now).unwrap();
    (state, tables)
}

#[test]
fn each_agent_is_told_its_own_links_and_no_others() {
    let now = Instant::now();
    let fault = vec![link("a", "b", 1, 80)];
    let (_state, tables) = opened(request(base(), fault), now);
    let shaping = |place: usize| read(&tables[place]).shaping;
    let numbers = |links: &[ShapedLink]| links.iter().map(|link| link.number).collect::<Vec<_>>();
    assert_eq!((numbers(&shaping(0).base), numbers(&shaping(0).faulted)), (vec![3], vec![]));
    assert_eq!((numbers(&shaping(1).base), numbers(&shaping(1).faulted)), (vec![1, 7], vec![1]));
    assert_eq!((shaping(1).base[0].from, shaping(1).faulted[0].state.latency.as_millis()), (at(1), 80));
    assert_eq!((shaping(1).seed, shaping(1).lease), (5, LEASE));
    assert!(shaping(2).base.is_empty() && shaping(2).faulted.is_empty());
    let probed = |place: usize| {
        let all = shaping(place).probed;
        all.iter().map(|probed| (probed.link, probed.to)).collect::<Vec<_>>()
    };
    assert_eq!((probed(0), probed(1), probed(2)), (vec![(1, at(2))], vec![(3, at(1))], vec![(7, at(2))]));
    // As long as the link, as it is now, may take.
    assert_eq!(shaping(0).probed[0].patience, Duration::from_millis(580));
}

#[test]
fn nobody_is_told_anything_before_cuts_links_and_nodes_are_known() {
    let now = Instant::now();
    let mut state = TestnetState::new(7, 1);
    state.set_members(vec![member("a", "ua", 1), member("b", "ub", 2)], now);
    let (_, tables) = state.join("a", newcomer("a", "ua", 1), now).unwrap();
    let (_, awaited) = state.set_cuts(Vec::new(), now).unwrap();
    assert!(state.unconfirmed(&awaited, now).is_empty(), "who has no table cannot confirm it");
    let (before, awaited) = state.set_links(LinksRequest::default(), now).unwrap();
    assert_eq!(before, None);
    assert!(state.unconfirmed(&awaited, now).is_empty());
    assert!(tables.borrow().is_none());
    let (before, awaited) = state.set_nodes((Vec::new(), LEASE), now).unwrap();
    assert_eq!(before, None);
    assert!(tables.borrow().is_some());
    assert_eq!(state.unconfirmed(&awaited, now).len(), 2, "both are to hold what the leader begins with");
}

#[test]
fn a_change_waits_for_those_it_ends_at_and_a_cut_resends_it_to_nobody_else() {
    let now = Instant::now();
    let (mut state, tables) = opened(request(base(), Vec::new()), now);
    all_tell_nothing(&mut state, &tables, now);
    let (before, awaited) = state.set_links(request(base(), vec![link("c", "b", 7, 90)]), now).unwrap();
    assert_eq!(before, Some(request(base(), Vec::new())));
    let waits: Vec<String> = state.unconfirmed(&awaited, now).into_iter().map(|(name, _)| name).collect();
    // c has to probe it for longer.
    assert_eq!(waits, ["b", "c"]);
    all_tell_nothing(&mut state, &tables, now);
    assert!(state.unconfirmed(&awaited, now).is_empty());
    let version = |tables: &Tables| read(tables).version;
    let held: Vec<_> = tables.iter().map(version).collect();
    let epoch = read(&tables[1]).shaping.epoch;
    let later = now + Duration::from_secs(10);
    assert!(state.renew(later).is_empty());
    let now_held: Vec<_> = tables.iter().map(version).collect();
    assert!(now_held[1] > held[1] && now_held[0] == held[0] && now_held[2] == held[2], "only b has a lease");
    assert_eq!((read(&tables[1]).shaping.epoch, read(&tables[1]).shaping.lease), (epoch, LEASE));
}

#[test]
fn both_ends_together_say_how_slow_a_link_is_and_what_it_loses() {
    let now = Instant::now();
    let (mut state, tables) = opened(request(base(), Vec::new()), now);
    all_tell_nothing(&mut state, &tables, now);
    let ours = 4 << 32;
    let b = ("b", 2, &tables[1]);
    tell(&mut state, ("a", 1, &tables[0]), Vec::new(), vec![(1, ours + 80), (7, ours + 999)], now);
    tell(&mut state, b, vec![received(1, (ours + 10, ours + 70), 58, 20)], Vec::new(), now);
    let seen = |state: &mut TestnetState| {
        let all = state.links(now).unwrap().links;
        all.into_iter().find(|link| (link.from.as_str(), link.to.as_str()) == ("a", "b")).unwrap()
    };
    let found = seen(&mut state);
    assert_eq!((found.sent, found.received, found.latency_us), (70, 58, Some(20_000)));
    // The receiver's own end alone, and what a says of a link that is not its own, say nothing.
    tell(&mut state, b, vec![received(7, (ours + 1, ours + 61), 60, 30)], Vec::new(), now);
    let links = state.links(now).unwrap().links;
    assert_eq!(links.iter().find(|link| link.from == "c").unwrap().sent, 60);
    // The sender was started again, and nothing has come since.
    tell(&mut state, ("a", 1, &tables[0]), Vec::new(), vec![(1, (5 << 32) + 40)], now);
    tell(&mut state, b, vec![received(1, (ours + 10, ours + 80), 65, 20)], Vec::new(), now);
    assert_eq!(seen(&mut state).sent, 110);
    // A change forgets, what is told under an older table is not heard.
    let stale = read(&tables[1]).version;
    state.set_links(request(base(), vec![link("a", "b", 1, 80)]), now).unwrap();
    let shaped = ShapedReport {
        received: vec![received(1, (ours + 10, ours + 90), 80, 20)],
        ..ShapedReport::default()
    };
    let report = Report { applied: Some(stale), shaped: Some(shaped), ..Report::default() };
    state.report("b", 2, convert::report(&report), now);
    assert_eq!((seen(&mut state).samples, seen(&mut state).latency_us), (0, None));
    assert_eq!(state.links(now).unwrap().links.iter().find(|link| link.from == "c").unwrap().sent, 60);
}

#[test]
fn a_lease_that_ended_anywhere_has_ended_everywhere_and_is_not_renewed() {
    let now = Instant::now();
    let fault = vec![link("a", "b", 1, 80), link("b", "a", 3, 80)];
    let (mut state, tables) = opened(request(base(), fault.clone()), now);
    all_tell_nothing(&mut state, &tables, now);
    assert!(!state.links(now).unwrap().lease_ended);
    let lapsed = ShapedReport { lease_ended: true, ..ShapedReport::default() };
    let report =
        Report { applied: Some(read(&tables[1]).version), shaped: Some(lapsed), ..Report::default() };
    state.report("b", 2, convert::report(&report), now);
    assert!(state.links(now).unwrap().lease_ended);
    assert!(tables.iter().all(|tables| read(tables).shaping.faulted.is_empty()));
    assert_eq!(state.renew(now), ["the faulted links"]);
    // Asked for again they are new ones.
    let ended = read(&tables[0]).shaping.epoch;
    state.set_links(request(base(), fault), now).unwrap();
    all_tell_nothing(&mut state, &tables, now);
    let again = read(&tables[0]).shaping;
    assert!(again.epoch > ended && again.faulted.len() == 1);
    assert!(!state.links(now).unwrap().lease_ended);
    let later = now + LEASE;
    all_tell_nothing(&mut state, &tables, later);
    assert!(state.links(later).unwrap().lease_ended, "nobody renewed it");
}

#[test]
fn who_does_not_answer_makes_the_links_unknown() {
    let now = Instant::now();
    let (mut state, tables) = opened(request(base(), Vec::new()), now);
    all_tell_nothing(&mut state, &tables, now);
    let later = now + FRESH + Duration::from_millis(100);
    for (node, stream, place) in [("a", 1, 0), ("b", 2, 1)] {
        tell(&mut state, (node, stream, &tables[place]), Vec::new(), Vec::new(), later);
    }
    let why = state.links(later).unwrap_err().to_string();
    assert_eq!(why, "the link agent of c has not answered for 2.1 s");
    // A pod that is away has no links, and nobody waits for it.
    let gone = super::super::Member { uid: None, address: None, running: false, ..member("c", "", 0) };
    state.set_members(vec![member("a", "ua", 1), member("b", "ub", 2), gone], later);
    let known = state.links(later).unwrap().links;
    let ends: Vec<_> = known.iter().map(|link| (link.from.as_str(), link.to.as_str())).collect();
    assert_eq!(ends, [("a", "b"), ("b", "a")]);
    assert_eq!(read(&tables[1]).shaping.base.len(), 1);
}

#[test]
fn an_agent_that_cannot_shape_is_told_no_link_and_a_change_says_why() {
    let now = Instant::now();
    let mut state = TestnetState::new(7, 1);
    state.set_members(vec![member("a", "ua", 1), member("b", "ub", 2)], now);
    let old_kernel =
        super::super::Newcomer { cannot_shape: Some("it has no queue".to_owned()), ..newcomer("b", "ub", 2) };
    state.join("a", newcomer("a", "ua", 1), now).unwrap();
    let (_, tables) = state.join("b", old_kernel, now).unwrap();
    state.set_nodes((Vec::new(), LEASE), now).unwrap();
    state.set_cuts(Vec::new(), now).unwrap();
    state.set_links(LinksRequest::default(), now).unwrap();
    let (_, awaited) = state.set_links(request(Vec::new(), vec![link("a", "b", 1, 80)]), now).unwrap();
    assert!(read(&tables).shaping.faulted.is_empty());
    assert!(state.hopeless(&awaited));
    let why = state.unconfirmed(&awaited, now).into_iter().find(|(name, _)| name == "b").unwrap().1;
    assert_eq!(why.as_deref(), Some("it has no queue"));
    // Cutting needs no queue.
    let cut = crate::backend::CutRequest {
        id: "c".into(),
        rects: vec![crate::backend::CutRect { from: vec!["a".into()], to: vec!["b".into()] }],
        lease: LEASE,
    };
    let (_, awaited) = state.set_cuts(vec![cut], now).unwrap();
    assert!(!state.hopeless(&awaited) && read(&tables).cuts.len() == 1);
}

#[test]
fn an_agent_that_was_started_again_is_told_of() {
    let now = Instant::now();
    let (mut state, tables) = opened(request(base(), Vec::new()), now);
    all_tell_nothing(&mut state, &tables, now);
    assert!(state.links(now).unwrap().faults.is_empty());
    for boot in [2, 3] {
        let again = super::super::Newcomer { boot, ..newcomer("b", "ub", 2) };
        state.join("b", again, now).unwrap();
    }
    let faults = state.links(now).unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains("of b was started again (2)"), "{faults:?}");
    // One that holds no packets leaves nothing open.
    state.join("c", super::super::Newcomer { boot: 2, ..newcomer("c", "uc", 3) }, now).unwrap();
    assert_eq!(state.links(now).unwrap().faults.len(), 1);
}

#[test]
fn links_follow_a_node_to_its_new_address() {
    let now = Instant::now();
    let (mut state, tables) = opened(request(base(), Vec::new()), now);
    state.set_members(vec![member("a", "ua", 9), member("b", "ub", 2), member("c", "uc", 3)], now);
    // The agent says where it is, until another pod has come.
    assert_eq!(read(&tables[1]).shaping.base[0].from, at(1));
    state.set_members(vec![member("a", "other", 9), member("b", "ub", 2), member("c", "uc", 3)], now);
    assert_eq!(read(&tables[1]).shaping.base[0].from, at(9));
    assert_eq!(read(&tables[1]).shaping.probed[0].to, at(9));
    let (_, mine) = state.join("a", newcomer("a", "other", 9), now).unwrap();
    let Table { shaping, .. } = read(&mine);
    assert_eq!((shaping.base.len(), shaping.probed.len()), (1, 1), "before its node starts");
}

#[test]
fn links_that_cannot_be_meant_are_refused_and_change_nothing() {
    let now = Instant::now();
    let (mut state, tables) = opened(request(base(), Vec::new()), now);
    let version = read(&tables[1]).version;
    let unknown = state.set_links(request(vec![link("a", "nobody", 1, 1)], Vec::new()), now).unwrap_err();
    assert!(matches!(unknown, BackendError::UnknownNode(name) if name == "nobody"));
    let short = LinksRequest { lease: Duration::from_millis(1), ..request(Vec::new(), base()) };
    assert!(matches!(state.set_links(short, now), Err(BackendError::Invalid(_))));
    assert_eq!(read(&tables[1]).version, version);
}
