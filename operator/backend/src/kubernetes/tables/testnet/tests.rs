use netsplit_links::{
    CutState, Proof,
    pod::{CutReport, Inbound, Received, Sent, Table},
};

use super::*;
use crate::backend::{CutRect, LinksRequest};

pub(super) const LEASE: Duration = Duration::from_secs(30);

pub(super) fn at(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

pub(super) fn member(node: &str, uid: &str, host: u8) -> Member {
    Member {
        node: node.to_owned(),
        pod: format!("t-{node}"),
        uid: Some(uid.to_owned()),
        address: Some(at(host)),
        running: true,
    }
}

pub(super) fn newcomer(node: &str, uid: &str, host: u8) -> Newcomer {
    Newcomer {
        pod: format!("t-{node}"),
        uid: uid.to_owned(),
        boot: 1,
        address: at(host),
        unable: None,
        cannot_shape: None,
        applied: None,
    }
}

fn cut(from: &[&str], to: &[&str]) -> CutRequest {
    let names = |nodes: &[&str]| nodes.iter().map(|node| (*node).to_owned()).collect();
    CutRequest { id: "c".into(), rects: vec![CutRect { from: names(from), to: names(to) }], lease: LEASE }
}

pub(super) type Tables = watch::Receiver<Option<wire::LinkTable>>;

/// Nodes a, b, c at 1, 2, 3, each with an agent. It is known that no link is asked for and no node held.
pub(super) fn three(now: Instant) -> (TestnetState, Vec<Tables>) {
    let mut state = TestnetState::new(7, 1);
    state.set_members(vec![member("a", "ua", 1), member("b", "ub", 2), member("c", "uc", 3)], now);
    let tables = [("a", "ua", 1), ("b", "ub", 2), ("c", "uc", 3)]
        .map(|(node, uid, host)| state.join(node, newcomer(node, uid, host), now).unwrap().1);
    state.set_links(LinksRequest::default(), now).unwrap();
    state.set_nodes((Vec::new(), LEASE), now).unwrap();
    (state, tables.into())
}

pub(super) fn read(tables: &Tables) -> Table {
    convert::read_table(tables.borrow().as_ref().expect("it was told something")).unwrap()
}

fn confirm(state: &mut TestnetState, node: &str, stream: u64, tables: &Tables, now: Instant) {
    let table = read(tables);
    let cut = |cut: &Inbound| CutReport {
        id: cut.id,
        drops: 5,
        lease_left_ms: cut.lease.as_millis() as u64,
        rule_missing: false,
        interrupted: None,
    };
    let report = Report {
        applied: Some(table.version),
        cuts: table.cuts.iter().map(cut).collect(),
        ..Report::default()
    };
    state.report(node, stream, convert::report(&report), now);
}

#[test]
fn nobody_is_told_anything_before_the_cuts_are_known_nor_the_same_twice() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    assert!(tables.iter().all(|tables| tables.borrow().is_none()));
    state.set_cuts(Vec::new(), now).unwrap();
    let first = read(&tables[0]);
    assert_eq!((first.version.term, first.known.len(), first.cuts.len()), (7, 3, 0));
    state.evidence(now);
    state.renew(now);
    state.set_members(vec![member("a", "ua", 1), member("b", "ub", 2), member("c", "uc", 3)], now);
    assert_eq!(read(&tables[0]).version, first.version);
}

#[test]
fn who_receives_is_told_who_may_not_send_and_both_what_to_probe() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    let (_, awaited) = state.set_cuts(vec![cut(&["a", "b"], &["b", "c"])], now).unwrap();
    assert_eq!(awaited.tables.keys().collect::<Vec<_>>(), ["b", "c"]);
    let [a, b, c] = [0, 1, 2].map(|place| read(&tables[place]));
    assert!(a.cuts.is_empty());
    assert_eq!((b.cuts[0].from.clone(), b.cuts[0].lease), (vec![at(1)], LEASE));
    assert_eq!(c.cuts[0].from, [at(1), at(2)]);
    assert_eq!((a.probes.len(), b.probes.len(), c.expected.len()), (2, 1, 2));
    assert_eq!(b.expected[0].pair, a.probes.iter().find(|end| end.to == at(2)).unwrap().pair);

    assert_eq!(state.unconfirmed(&awaited, now).len(), 2);
    confirm(&mut state, "b", 2, &tables[1], now);
    assert_eq!(state.unconfirmed(&awaited, now), [("c".to_owned(), None)]);
    // Not over a stream that is not the agent's.
    confirm(&mut state, "c", 2, &tables[2], now);
    assert_eq!(state.unconfirmed(&awaited, now).len(), 1);
    confirm(&mut state, "c", 3, &tables[2], now);
    assert!(state.unconfirmed(&awaited, now).is_empty());
    assert_eq!(state.evidence(now)[0].drops, 10);
}

#[test]
fn what_an_agent_said_long_ago_proves_nothing() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(vec![cut(&["a"], &["b"])], now).unwrap();
    let pair = read(&tables[1]).expected[0].pair;
    let sent = Report { sent: vec![Sent { pair, probes: 9, controls: 9, errors: 0 }], ..Report::default() };
    state.report("a", 1, convert::report(&sent), now);
    let table = read(&tables[1]);
    let cut = CutReport {
        id: table.cuts[0].id,
        drops: 9,
        lease_left_ms: LEASE.as_millis() as u64,
        rule_missing: false,
        interrupted: None,
    };
    let seen = Report {
        applied: Some(table.version),
        cuts: vec![cut],
        received: vec![Received { pair, probes: 0, controls: 9 }],
        ..Report::default()
    };
    state.report("b", 2, convert::report(&seen), now);
    assert_eq!(state.evidence(now + FRESH)[0].proof, Proof::Proven);
    let later = now + FRESH + Duration::from_millis(100);
    state.report("b", 2, convert::report(&seen), later);
    let proof = state.evidence(later).remove(0).proof;
    let silent = "not measured for 2.1 s: the link agent of a does not answer";
    assert_eq!(proof, Proof::Unproven(silent.to_owned()));
}

#[test]
fn only_what_was_there_before_is_taken_back() {
    let now = Instant::now();
    let (mut state, _tables) = three(now);
    let (before, _) = state.set_cuts(vec![cut(&["a"], &["b"])], now).unwrap();
    assert_eq!(before, None, "an earlier leader's cuts may be in force");
    let (before, _) = state.set_cuts(Vec::new(), now).unwrap();
    assert_eq!(before.map(|cuts| cuts.len()), Some(1));
}

#[test]
fn leases_are_prolonged_by_renewing_only() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(vec![cut(&["a"], &["b"])], now).unwrap();
    let later = now + Duration::from_secs(10);
    // A pod comes: everybody is told, with what is left of the lease.
    state.set_members(vec![member("a", "ua", 1), member("b", "ub", 2), member("c", "new", 4)], later);
    assert_eq!(read(&tables[1]).cuts[0].lease, Duration::from_secs(20));
    assert!(state.renew(later).is_empty());
    assert_eq!(read(&tables[1]).cuts[0].lease, LEASE);
    let after = later + LEASE;
    assert_eq!(state.renew(after), ["c"]);
    assert!(read(&tables[1]).cuts.is_empty());
    let evidence = state.evidence(after);
    assert_eq!(evidence.last().unwrap().state, CutState::LeaseEnded);
}

#[test]
fn an_agent_whose_lease_ended_ends_the_cut_for_all() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(vec![cut(&["a"], &["b", "c"])], now).unwrap();
    confirm(&mut state, "b", 2, &tables[1], now);
    let cut = read(&tables[2]).cuts[0].id;
    let lapsed = wire::CutReport {
        cut,
        drops: 1,
        lease_left_ms: 0,
        rule_missing: false,
        interrupted: "it slept".to_owned(),
    };
    let report = wire::AgentReport { cuts: vec![lapsed], ..wire::AgentReport::default() };
    state.report("c", 3, report, now);
    let evidence = state.evidence(now).pop().unwrap();
    assert_eq!(evidence.state, CutState::LeaseEnded);
    assert!(evidence.problems.iter().any(|problem| problem == "it slept at c"), "{evidence:?}");
}

#[test]
fn a_replaced_pod_takes_the_cut_to_its_new_address() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(vec![cut(&["a", "b"], &["c"])], now).unwrap();
    let before = read(&tables[2]);
    state.set_members(vec![member("a", "ua", 1), member("b", "other", 9), member("c", "uc", 3)], now);
    let after = read(&tables[2]);
    assert_eq!(after.cuts[0].from, [at(1), at(9)]);
    assert_eq!(after.cuts[0].id, before.cuts[0].id);
    assert!(!after.known.contains(&at(2)) && after.known.contains(&at(9)));
    assert!(tables[1].has_changed().is_err(), "the old pod's stream goes on");
    // Its agent comes: it is probed under a number of its own, and the other pair goes on.
    let (_, mine) = state.join("b", newcomer("b", "other", 9), now).unwrap();
    assert_eq!(read(&mine).probes.len(), 1);
    let pairs = |table: &Table| table.expected.iter().map(|end| end.pair).collect::<BTreeSet<_>>();
    let (before, after) = (pairs(&before), pairs(&read(&tables[2])));
    assert_eq!((after.len(), before.intersection(&after).count()), (2, 1));
}

/// Packets of the pod that goes may still come, and the one that comes has no address yet.
#[test]
fn a_cut_goes_on_while_the_pod_that_is_cut_off_is_away() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(vec![cut(&["b"], &["a", "c"])], now).unwrap();
    let id = read(&tables[0]).cuts[0].id;
    let gone = Member { uid: None, address: None, running: false, ..member("b", "", 0) };
    state.set_members(vec![member("a", "ua", 1), gone, member("c", "uc", 3)], now);
    for tables in [&tables[0], &tables[2]] {
        let table = read(tables);
        assert_eq!((table.cuts[0].id, table.cuts[0].from.len()), (id, 0));
        assert_eq!(table.known, [at(1), at(3)], "nobody else may come near");
    }
}

#[test]
fn a_pod_that_is_gone_leaves_the_table() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(Vec::new(), now).unwrap();
    let gone = Member { uid: None, address: None, running: false, ..member("b", "", 0) };
    state.set_members(vec![member("a", "ua", 1), gone, member("c", "uc", 3)], now);
    assert_eq!(read(&tables[0]).known, [at(1), at(3)]);
    // A cut over it waits for nobody.
    let (_, awaited) = state.set_cuts(vec![cut(&["a"], &["b"])], now).unwrap();
    assert!(awaited.tables.is_empty());
}

#[test]
fn an_agent_that_cannot_be_right_does_not_join() {
    let now = Instant::now();
    let (mut state, _tables) = three(now);
    let mut refused = |newcomer: Newcomer| state.join("b", newcomer, now).unwrap_err();
    assert_eq!(refused(newcomer("b", "old", 2)), JoinError::OtherPod("t-b".into()));
    let taken = JoinError::AddressTaken { address: at(1), node: "a".into() };
    assert_eq!(refused(newcomer("b", "ub", 1)), taken);
    let version = Version { term: 8, sequence: 1 };
    let ahead = Newcomer { applied: Some(version), ..newcomer("b", "ub", 2) };
    assert_eq!(refused(ahead), JoinError::LaterLeader(version));
}

#[test]
fn a_leader_that_came_back_goes_on_where_its_agents_are() {
    let now = Instant::now();
    let (mut state, _tables) = three(now);
    let held = Version { term: 7, sequence: 900 };
    let again = Newcomer { applied: Some(held), ..newcomer("b", "ub", 2) };
    let (_, tables) = state.join("b", again, now).unwrap();
    state.set_cuts(Vec::new(), now).unwrap();
    assert!(read(&tables).version > held);
}

#[test]
fn requests_that_cannot_be_meant_are_refused() {
    let now = Instant::now();
    let (mut state, _tables) = three(now);
    let mut refused = |request: CutRequest| state.set_cuts(vec![request], now).unwrap_err();
    assert!(matches!(refused(cut(&["a"], &["nobody"])), BackendError::UnknownNode(name) if name == "nobody"));
    for request in [
        cut(&["a"], &[]),
        CutRequest { id: String::new(), ..cut(&["a"], &["b"]) },
        CutRequest { lease: Duration::from_millis(1), ..cut(&["a"], &["b"]) },
        CutRequest { rects: Vec::new(), ..cut(&["a"], &["b"]) },
    ] {
        assert!(matches!(refused(request), BackendError::Invalid(_)));
    }
}
