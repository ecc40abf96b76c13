use std::net::{IpAddr, Ipv4Addr};

use super::{
    super::{
        Newcomer,
        tests::{LEASE, Tables, member, newcomer, three},
    },
    *,
};
use crate::backend::LinksRequest;

fn hold(node: &str, hold: Hold) -> NodeHold {
    NodeHold { node: node.to_owned(), hold }
}

fn wanted(holds: &[(&str, Hold)]) -> Wanted {
    (holds.iter().map(|(node, what)| hold(node, *what)).collect(), LEASE)
}

/// A node that runs.
fn runs() -> Status {
    Status {
        state: State::Running,
        pid: Some(7),
        paused: false,
        held: None,
        left: Duration::ZERO,
        restarts: 0,
    }
}

fn killed() -> Status {
    Status { state: State::Killed(9), held: Some(netsplit_keeper::Hold::Killed), left: LEASE, ..runs() }
}

fn paused() -> Status {
    Status { paused: true, held: Some(netsplit_keeper::Hold::Paused), left: LEASE, ..runs() }
}

/// As the agent with this stream tells it.
fn tell(state: &mut TestnetState, (node, stream): (&str, u64), status: Option<&Status>, now: Instant) {
    let report = wire::AgentReport { node: status.map(convert::status), ..wire::AgentReport::default() };
    state.report(node, stream, report, now);
}

/// a, b and c run, as their agents say over the streams 1, 2 and 3.
fn running(now: Instant) -> (TestnetState, Vec<Tables>) {
    let (mut state, tables) = three(now);
    state.set_cuts(Vec::new(), now).unwrap();
    for agent in [("a", 1), ("b", 2), ("c", 3)] {
        tell(&mut state, agent, Some(&runs()), now);
    }
    (state, tables)
}

fn asked(tables: &Tables) -> Option<(Hold, Duration)> {
    let table = tables.borrow().clone().expect("it was told something");
    table.hold.as_ref().map(|hold| convert::read_hold(hold).unwrap())
}

fn held(state: &mut TestnetState, node: &str, now: Instant) -> Option<Hold> {
    state.node_words(now)[node].held
}

fn pod(state: NodeState) -> NodeStatus {
    NodeStatus {
        name: "a".to_owned(),
        state,
        pid: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        restarts: 1,
        paused: false,
        held: None,
    }
}

#[test]
fn a_nodes_own_agent_is_told_of_its_hold_and_it_is_held_when_its_keeper_says_so() {
    let now = Instant::now();
    let (mut state, tables) = running(now);
    let both = wanted(&[("a", Hold::Paused), ("a", Hold::Killed), ("b", Hold::Paused)]);
    let (before, awaited) = state.set_nodes(both, now).unwrap();
    assert_eq!(before, Some((Vec::new(), LEASE)));
    assert_eq!(asked(&tables[0]), Some((Hold::Killed, LEASE)), "what leaves least of it");
    assert_eq!((asked(&tables[1]), asked(&tables[2])), (Some((Hold::Paused, LEASE)), None));
    let waits = |state: &TestnetState| {
        state.unconfirmed(&awaited, now).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(waits(&state), ["a", "b"]);
    // It was told, and does not do it yet.
    tell(&mut state, ("a", 1), Some(&Status { state: State::Running, ..killed() }), now);
    tell(&mut state, ("b", 2), Some(&Status { paused: false, ..paused() }), now);
    assert_eq!(waits(&state), ["a", "b"]);
    tell(&mut state, ("a", 1), Some(&killed()), now);
    tell(&mut state, ("b", 2), Some(&paused()), now);
    assert!(waits(&state).is_empty());

    let words = state.node_words(now);
    let a = words["a"].tell(pod(NodeState::Running));
    assert_eq!(
        (a.state, a.held, a.pid),
        (NodeState::Exited { code: None, signal: Some(9) }, Some(Hold::Killed), Some(7))
    );
    let b = words["b"].tell(pod(NodeState::Running));
    assert_eq!((b.state, b.paused, b.held), (NodeState::Running, true, Some(Hold::Paused)));
    assert_eq!(
        words["c"].tell(pod(NodeState::Running)),
        NodeStatus { pid: Some(7), ..pod(NodeState::Running) }
    );
    // What became of the container is the kubelet's to say.
    let failed = NodeState::Failed { reason: "no image".to_owned() };
    assert_eq!(words["a"].tell(pod(failed.clone())).state, failed);

    // Who is let go is not waited for.
    let (_, awaited) = state.set_nodes(wanted(&[("b", Hold::Paused)]), now).unwrap();
    assert!(state.unconfirmed(&awaited, now).is_empty());
    assert_eq!((asked(&tables[0]), held(&mut state, "a", now)), (None, None));
}

#[test]
fn nodes_without_a_process_or_a_keeper_are_refused() {
    let now = Instant::now();
    let (mut state, tables) = three(now);
    state.set_cuts(Vec::new(), now).unwrap();
    let mut refused = |node: &str| {
        let error = state.set_nodes(wanted(&[(node, Hold::Killed)]), now).unwrap_err();
        assert_eq!(asked(&tables[0]), None);
        error.to_string()
    };
    assert_eq!(refused("z"), "no node is called \"z\"");
    assert!(refused("a").starts_with("a cannot be held: nobody keeps its process"), "{}", refused("a"));
    tell(&mut state, ("a", 1), Some(&Status { state: State::Starting, pid: None, ..runs() }), now);
    tell(&mut state, ("b", 2), Some(&runs()), now);
    state.leave("b", 2);
    let mut refused =
        |node: &str| state.set_nodes(wanted(&[(node, Hold::Killed)]), now).unwrap_err().to_string();
    assert_eq!(refused("a"), "a has no running process");
    assert_eq!(refused("b"), "b cannot be held: its link agent is not connected");
    let short = (vec![hold("a", Hold::Killed)], Duration::from_millis(1));
    assert!(
        state.set_nodes(short, now).unwrap_err().to_string().starts_with("a lease of 1ms is not between")
    );
}

#[test]
fn holds_are_renewed_and_end_with_their_lease() {
    let now = Instant::now();
    let (mut state, tables) = running(now);
    state.set_nodes(wanted(&[("a", Hold::Killed)]), now).unwrap();
    tell(&mut state, ("a", 1), Some(&killed()), now);
    let later = now + LEASE / 2;
    assert!(state.renew(later).is_empty());
    assert_eq!(asked(&tables[0]), Some((Hold::Killed, LEASE)), "anew");
    tell(&mut state, ("a", 1), Some(&killed()), later);
    assert_eq!(held(&mut state, "a", now + LEASE), Some(Hold::Killed));
    // Nobody has renewed it.
    let over = later + LEASE;
    assert_eq!(held(&mut state, "a", over), None);
    assert_eq!(asked(&tables[0]), None);
    state.set_nodes(wanted(&[("b", Hold::Paused)]), over).unwrap();
    assert_eq!(state.renew(over + LEASE), ["the hold of b"]);
    assert!(state.renew(over + LEASE).is_empty(), "it is told once");
}

#[test]
fn what_a_keeper_has_let_go_is_not_held_whatever_was_asked() {
    let now = Instant::now();
    let (mut state, _tables) = running(now);
    state.set_nodes(wanted(&[("a", Hold::Paused), ("b", Hold::Killed)]), now).unwrap();
    tell(&mut state, ("a", 1), Some(&paused()), now);
    tell(&mut state, ("b", 2), Some(&Status { left: LEASE / 10, ..killed() }), now);
    tell(&mut state, ("a", 1), Some(&Status { restarts: 0, ..runs() }), now);
    assert_eq!(held(&mut state, "a", now), None);
    // It has not been heard of since, and could not be renewed.
    state.leave("b", 2);
    assert_eq!(held(&mut state, "b", now + LEASE / 20), Some(Hold::Killed));
    assert_eq!(held(&mut state, "b", now + LEASE / 10), None);
}

/// A fault sticks to the node.
#[test]
fn the_pod_that_takes_a_held_ones_place_is_told_before_its_node_starts() {
    let now = Instant::now();
    let (mut state, _) = running(now);
    state.set_nodes(wanted(&[("a", Hold::Killed)]), now).unwrap();
    tell(&mut state, ("a", 1), Some(&Status { restarts: 3, ..killed() }), now);
    let members = vec![member("a", "ua2", 4), member("b", "ub", 2), member("c", "uc", 3)];
    state.set_members(members, now);
    // Nothing runs, and nobody has let it go.
    let word = state.node_words(now)["a"].clone();
    assert_eq!(word.tell(pod(NodeState::Starting)).held, Some(Hold::Killed));
    let (stream, tables) = state.join("a", newcomer("a", "ua2", 4), now).unwrap();
    assert_eq!(asked(&tables), Some((Hold::Killed, LEASE)));
    tell(&mut state, ("a", stream), None, now);
    let started = state.node_words(now)["a"].tell(pod(NodeState::Running));
    assert_eq!(
        (started.state, started.held),
        (NodeState::Starting, Some(Hold::Killed)),
        "only its keeper runs"
    );
    tell(&mut state, ("a", stream), Some(&Status { state: State::Starting, pid: None, ..killed() }), now);
    assert_eq!(held(&mut state, "a", now), Some(Hold::Killed));
    // A keeper counts from nothing; who asks must see no node go back.
    state.set_nodes(wanted(&[]), now).unwrap();
    tell(&mut state, ("a", stream), Some(&Status { restarts: 1, ..runs() }), now);
    assert_eq!(state.node_words(now)["a"].tell(pod(NodeState::Running)).restarts, 1 + 3 + 1);
}

#[test]
fn an_agent_that_is_started_again_has_let_nothing_go() {
    let now = Instant::now();
    let (mut state, _tables) = running(now);
    state.set_nodes(wanted(&[("a", Hold::Paused)]), now).unwrap();
    tell(&mut state, ("a", 1), Some(&paused()), now);
    let again = Newcomer { boot: 2, ..newcomer("a", "ua", 1) };
    let (stream, tables) = state.join("a", again, now).unwrap();
    assert_eq!(asked(&tables), Some((Hold::Paused, LEASE)));
    // It has not found the keeper yet.
    tell(&mut state, ("a", stream), None, now);
    let status = state.node_words(now)["a"].tell(pod(NodeState::Running));
    assert_eq!((status.state, status.paused, status.held), (NodeState::Running, true, Some(Hold::Paused)));
}

/// The first call names what a leader before this one left in force.
#[test]
fn a_new_leader_takes_holds_over_before_anybody_is_told_to_let_go() {
    let now = Instant::now();
    let mut state = TestnetState::new(8, 1);
    state.set_members(vec![member("a", "ua", 1)], now);
    let (stream, tables) = state.join("a", newcomer("a", "ua", 1), now).unwrap();
    state.set_cuts(Vec::new(), now).unwrap();
    state.set_links(LinksRequest::default(), now).unwrap();
    assert!(tables.borrow().is_none());
    let (before, awaited) = state.set_nodes(wanted(&[("a", Hold::Killed)]), now).unwrap();
    assert_eq!((before, asked(&tables)), (None, Some((Hold::Killed, LEASE))));
    assert_eq!(state.unconfirmed(&awaited, now).len(), 2, "its table, and its node");
    tell(&mut state, ("a", stream), Some(&killed()), now);
    assert_eq!(held(&mut state, "a", now), Some(Hold::Killed));
}
