//! Faults of nodes: what the backend is asked for, and what its nodes and their silence say.
//!
//! Two witnesses who do not know of each other: the backend tells what the kernel says of a process, the observer whether the
//! node answers. A node that is gone but answers, or that is stopped and answers, is not what was asked for.

use netsplit_backend::{CutState, Hold, NodeHold, NodeState, NodeStatus, Proof};
use netsplit_observe::NodeView;
use netsplit_plan::NodeFault;

use super::{Entries, Fault, FaultTable, Held, evidence::evidence};
use crate::session::clock::unix_ms;

/// A node that has not answered for so long is silent; it is asked twice as often.
const SILENT_MS: u64 = 1_000;

/// The whole desired state.
pub(super) fn holds(active: &[Fault]) -> Vec<NodeHold> {
    let held = active.iter().filter_map(|fault| fault.held.as_ref());
    held.flat_map(|held| held.nodes.iter().map(|node| NodeHold { node: node.clone(), hold: hold(held.what) }))
        .collect()
}

fn hold(what: NodeFault) -> Hold {
    match what {
        NodeFault::Pause => Hold::Paused,
        NodeFault::Restart => Hold::Ended,
        NodeFault::Kill => Hold::Killed,
    }
}

impl FaultTable {
    /// What is seen of held nodes. `told` is what the table had told the backend when it was asked: an older word does not
    /// speak of now.
    pub(super) async fn take_nodes(
        &self,
        entries: &mut Entries,
        told: u64,
        nodes: &[NodeStatus],
        views: &[NodeView],
    ) {
        if entries.told != told {
            return;
        }
        let now_ms = unix_ms();
        let seen = Seen { nodes, views, now_ms };
        let mut lapsed = Vec::new();
        for fault in &mut entries.active {
            let Some(held) = fault.held.clone() else { continue };
            if let Some(node) = seen.freed(&held) {
                fault.violate(format!("its lease ended before it was renewed: {node} was let go by itself"));
                lapsed.push(fault.id.clone());
                continue;
            }
            let since_ms = fault.applied_at_ms.unwrap_or(now_ms);
            let (proof, measured) = seen.judge(&held, since_ms, fault.was_proven);
            fault.measured = measured;
            fault.take(evidence(fault, CutState::Active, proof));
        }
        for fault in entries.healed.iter_mut().filter(|fault| !fault.is_open()) {
            let Some(held) = fault.held.clone() else { continue };
            let proof = seen.judge_free(&held);
            let state = if proof.is_proven() { CutState::Open } else { CutState::Healing };
            fault.evidence = Some(evidence(fault, state, proof));
        }
        let is_wanted = |fault: &Fault| fault.held.is_some() && !fault.is_open();
        entries.holding = entries.active.iter().chain(&entries.healed).any(is_wanted);
        // Handing a lapsed fault over again would start it anew in silence.
        if !lapsed.is_empty()
            && let Err(error) = self.remove(entries, |fault| lapsed.contains(&fault.id)).await
        {
            tracing::error!(%error, "cannot drop a fault whose lease has ended");
        }
        self.publish(entries);
    }
}

struct Seen<'a> {
    nodes: &'a [NodeStatus],
    views: &'a [NodeView],
    now_ms: u64,
}

impl Seen<'_> {
    fn status(&self, node: &str) -> Option<&NodeStatus> {
        self.nodes.iter().find(|status| status.name == node)
    }

    /// A node of the fault that the backend does not hold.
    fn freed<'h>(&self, held: &'h Held) -> Option<&'h str> {
        let is_free = |node: &&String| self.status(node).is_none_or(|status| status.held.is_none());
        held.nodes.iter().find(is_free).map(String::as_str)
    }

    /// Whether every node is what the fault asks for, applied at `since_ms`, and what was seen of them.
    fn judge(&self, held: &Held, since_ms: u64, was_proven: bool) -> (Proof, String) {
        let mut unproven = None;
        for node in &held.nodes {
            match self.judge_one(node, held.what, since_ms) {
                Proof::Proven => {}
                // The kernel's word on a process is exact, but an end or a stop takes its time at first.
                Proof::Violated(what) if was_proven => return (Proof::Violated(what), String::new()),
                Proof::Unproven(what) | Proof::Violated(what) => drop(unproven.get_or_insert(what)),
            }
        }
        let nodes = held.nodes.join(", ");
        let measured = match held.what {
            NodeFault::Pause => format!("{nodes}: stopped by the kernel's word, and no answer"),
            NodeFault::Restart | NodeFault::Kill => {
                format!("{nodes}: no process, no stream of blocks, and no answer")
            }
        };
        (unproven.map_or(Proof::Proven, Proof::Unproven), measured)
    }

    fn judge_one(&self, node: &str, what: NodeFault, since_ms: u64) -> Proof {
        let (Some(status), Some(view)) =
            (self.status(node), self.views.iter().find(|view| view.name == node))
        else {
            return Proof::Unproven(format!("nobody looks at {node}"));
        };
        let is_running = status.state == NodeState::Running;
        match what {
            // Another fault has ended it: there is nothing to pause.
            NodeFault::Pause if !is_running && status.held.is_some_and(Hold::is_down) => {
                return Proof::Proven;
            }
            NodeFault::Pause if !is_running => {
                return Proof::Violated(format!("{node} was to be paused, but has ended: {}", status.state));
            }
            NodeFault::Pause if !status.paused => {
                return Proof::Violated(format!("the process of {node} is not stopped"));
            }
            NodeFault::Kill | NodeFault::Restart if is_running => {
                return Proof::Violated(format!("{node} has a process, though it was to have none"));
            }
            NodeFault::Kill | NodeFault::Restart if view.following => {
                return Proof::Unproven(format!("{node} has no process, but its stream of blocks goes on"));
            }
            NodeFault::Pause | NodeFault::Kill | NodeFault::Restart => {}
        }
        let silent_ms = self.now_ms.saturating_sub(view.answered_at_ms.unwrap_or_default().max(since_ms));
        if view.asked_at_ms > view.answered_at_ms && silent_ms >= SILENT_MS {
            Proof::Proven
        } else {
            Proof::Unproven(format!("{node} has been silent for {silent_ms} ms only"))
        }
    }

    /// Whether the nodes of a healed fault run, those that another fault holds aside.
    fn judge_free(&self, held: &Held) -> Proof {
        let is_wrong = |node: &&String| {
            self.status(node).is_none_or(|status| {
                status.held.is_none() && (status.state != NodeState::Running || status.paused)
            })
        };
        match held.nodes.iter().find(is_wrong) {
            None => Proof::Proven,
            Some(node) => Proof::Unproven(format!("{node} does not run again yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: u64 = 100_000;

    /// A node as a fault has left it, `after_ms` after the fault was applied: the last question that it answered was put
    /// just before, and it is asked again and again.
    fn seen(status: &NodeStatus, view: &NodeView, what: NodeFault, after_ms: u64, was_proven: bool) -> Proof {
        let held = Held { what, nodes: vec!["a-0".to_owned()] };
        let (nodes, views) = (std::slice::from_ref(status), std::slice::from_ref(view));
        Seen { nodes, views, now_ms: SINCE + after_ms }.judge(&held, SINCE, was_proven).0
    }

    fn killed() -> NodeStatus {
        NodeStatus {
            name: "a-0".to_owned(),
            state: NodeState::Exited { code: None, signal: Some(9) },
            pid: Some(7),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            restarts: 0,
            paused: false,
            held: Some(Hold::Killed),
        }
    }

    fn paused() -> NodeStatus {
        NodeStatus { state: NodeState::Running, paused: true, held: Some(Hold::Paused), ..killed() }
    }

    fn silent() -> NodeView {
        NodeView {
            name: "a-0".to_owned(),
            answered_at_ms: Some(SINCE - 10),
            asked_at_ms: Some(SINCE + 490),
            ..NodeView::default()
        }
    }

    #[test]
    fn a_kill_is_proven_by_the_process_the_stream_and_the_silence() {
        let judge =
            |status: &NodeStatus, view: &NodeView, after| seen(status, view, NodeFault::Kill, after, false);
        assert_eq!(judge(&killed(), &silent(), 1_000), Proof::Proven);
        let unproven = [
            judge(&killed(), &silent(), 999),
            judge(&killed(), &NodeView { following: true, ..silent() }, 2_000),
            judge(&killed(), &NodeView { answered_at_ms: Some(SINCE + 1_500), ..silent() }, 2_000),
            judge(&NodeStatus { state: NodeState::Running, ..killed() }, &silent(), 2_000),
        ];
        assert!(unproven.iter().all(|proof| matches!(proof, Proof::Unproven(_))), "{unproven:?}");
    }

    /// Its connection stays open: the kernel goes on acknowledging for it.
    #[test]
    fn a_pause_is_proven_by_the_stopped_process_and_the_silence() {
        let judge = |status: &NodeStatus, view: &NodeView, proven| {
            seen(status, view, NodeFault::Pause, 2_000, proven)
        };
        assert_eq!(judge(&paused(), &NodeView { following: true, ..silent() }, false), Proof::Proven);
        // A question that was put before the pause, and that is open ever since.
        let open = NodeView { answered_at_ms: None, asked_at_ms: Some(SINCE - 5), ..silent() };
        assert_eq!(judge(&paused(), &open, false), Proof::Proven);
        let answered = NodeView { answered_at_ms: silent().asked_at_ms, ..silent() };
        assert!(matches!(judge(&paused(), &answered, false), Proof::Unproven(_)), "nobody has asked since");
        let runs = NodeStatus { paused: false, ..paused() };
        assert!(matches!(judge(&runs, &silent(), false), Proof::Unproven(_)), "it may take a moment to stop");
        assert!(matches!(judge(&runs, &silent(), true), Proof::Violated(_)), "somebody let it go on");
        assert!(matches!(judge(&killed(), &silent(), true), Proof::Proven), "there is nothing to pause");
        let exited = NodeStatus { held: Some(Hold::Paused), ..killed() };
        assert!(matches!(judge(&exited, &silent(), true), Proof::Violated(_)), "nobody asked for its end");
    }

    #[test]
    fn a_node_that_the_backend_does_not_hold_was_let_go() {
        let free = NodeStatus { held: None, ..killed() };
        let held = Held { what: NodeFault::Kill, nodes: vec!["a-0".to_owned()] };
        let of = |nodes: &[NodeStatus]| {
            let seen = Seen { nodes, views: &[], now_ms: SINCE };
            (seen.freed(&held).map(str::to_owned), seen.judge_free(&held).is_proven())
        };
        assert_eq!(of(&[killed()]), (None, true), "another fault holds it");
        assert_eq!(
            of(std::slice::from_ref(&free)),
            (Some("a-0".to_owned()), false),
            "it does not run again yet"
        );
        assert_eq!(of(&[NodeStatus { state: NodeState::Running, ..free }]), (Some("a-0".to_owned()), true));
    }
}
