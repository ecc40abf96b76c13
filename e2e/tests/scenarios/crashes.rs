//! Processes that end in the worst way, at the worst moment.

use std::{collections::BTreeMap, time::Duration};

use netsplit_e2e::{Experiment, Kind, Lab, Testnet, exit, kill, until};
use nix::sys::signal::Signal;

const MOMENT: Duration = Duration::from_secs(15);
/// Long enough for the kernel to end processes whose parent is gone.
const SOON: Duration = Duration::from_secs(5);

/// SIGKILL of whatever netsplit runs, in the middle of a partition: no process is left, and the next `up` is as the first.
#[test]
fn killing_any_process_leaves_nothing_behind() {
    let orders: [&[Kind]; 4] = [
        &[Kind::Outer],
        &[Kind::Inner],
        &[Kind::Agent, Kind::Inner, Kind::Outer],
        &[Kind::Outer, Kind::Inner, Kind::Agent, Kind::Node],
    ];
    let lab = Lab::new();
    let file = lab.write("killed.yaml", &Testnet::new("killed").yaml());
    for order in orders {
        let printed = lab.ok(&["up", "-f", &file, "--detach"]);
        assert!(printed.contains("first block final"), "before {order:?}: {printed}");
        lab.ok(&["split", "validator-0,validator-1", "validator-2,validator-3"]);
        let all = lab.processes();
        assert_eq!(all.len(), 7, "outer, inner, agent, four nodes: {all:#?}");
        for kind in order {
            for process in all.iter().filter(|process| process.kind == *kind) {
                kill(process.pid, Signal::SIGKILL);
            }
        }
        until(&format!("the nodes' end after SIGKILL of {order:?}"), SOON, || {
            lab.processes().iter().all(|process| process.kind == Kind::Outer)
        });
        // A supervisor whose network is gone lingers a little, to tell why.
        until("the supervisor's end, or its word", SOON, || {
            lab.try_status("killed").is_none_or(|status| status.state == "failed")
        });
    }
    lab.ok(&["up", "-f", &file, "--detach"]);
    lab.above("killed", lab.status("killed").top() + 2, MOMENT);
    lab.ok(&["down"]);
    lab.assert_nothing_left();
}

/// Cuts are the kernel's: they outlive the agent, and its successor goes on measuring them. The run may be told to be
/// Invalid, since what the first agent had measured is lost; a chain is not to blame for it.
#[test]
fn a_killed_link_agent_neither_ends_the_cut_nor_blames_the_chain() {
    let lab = Lab::new();
    let file = lab.write("agent.yaml", &Testnet::new("agent").yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    lab.ok(&["split", "validator-0,validator-1", "validator-2,validator-3"]);
    let height = lab.status("agent").top();
    let first = lab.processes_of(Kind::Agent)[0].pid;
    kill(first, Signal::SIGKILL);
    until("another agent", SOON, || lab.processes_of(Kind::Agent).iter().any(|agent| agent.pid != first));
    // The load ends seconds later; had the cut ended with its agent, blocks would have followed.
    assert_eq!(lab.run(&["load", "--rate", "20/s", "--for", "2s"]).code, Some(1), "nothing becomes final");
    let after = lab.status("agent").top();
    assert!(after <= height + 1, "the cut ended with its agent: {height} -> {after}");
    lab.ok(&["heal"]);
    lab.above("agent", after, MOMENT);

    let experiment = Experiment::halves("agent").expect_all();
    let file = lab.write("experiment.yaml", &experiment.yaml());
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("fault-proven", MOMENT);
    kill(lab.processes_of(Kind::Agent)[0].pid, Signal::SIGKILL);
    let (code, outcome) = run.verdict();
    assert!(code == exit::PASSED || code == exit::INVALID, "{code}: {}", outcome.words());
}

/// A validator that is killed under load holds up nobody, comes back with its data, and agrees with the others.
#[test]
fn killed_validators_come_back_and_agree() {
    const KILLS: usize = 10;
    let lab = Lab::new();
    let testnet = Testnet { load: 100, ..Testnet::new("kills") };
    let file = lab.write("kills.yaml", &testnet.yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    // Which one, and how far the others go without it: spread, and the same in every run.
    let mut spread = 0x2545_f491_u32;
    for round in 0..KILLS {
        spread = spread.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let victim = format!("validator-{}", (spread >> 16) % 4);
        let status = lab.status("kills");
        kill(status.node(&victim).pid, Signal::SIGKILL);
        until(&format!("{victim} is seen to be dead, round {round}"), SOON, || {
            lab.status("kills").node(&victim).state.contains("killed")
        });
        let target = lab.status("kills").top() + 1 + u64::from((spread >> 8) % 4);
        until(&format!("finality without {victim}, round {round}"), MOMENT, || {
            lab.status("kills").top() >= target
        });
        lab.ok(&["restart", &victim]);
        // Above all that was final when it came back: it has caught up, and votes again.
        let top = lab.status("kills").top();
        let back = lab.above("kills", top, MOMENT);
        assert_eq!(back.node(&victim).state, "running");
    }
    let experiment = Experiment { lasts: 1, ..Experiment::halves("kills") }.expect("agreement: {}");
    let file = lab.write("experiment.yaml", &experiment.yaml());
    let (code, outcome) = lab.decided(&file);
    assert_eq!(code, exit::PASSED, "{}", outcome.words());
    let mut ids: BTreeMap<u64, &str> = BTreeMap::new();
    for node in &outcome.nodes {
        let id = ids.entry(node.final_height).or_insert(&node.final_id);
        assert_eq!(*id, node.final_id, "two blocks at height {}: {:?}", node.final_height, outcome.nodes);
    }
}

/// The command line's own way to crash a node, and to restart it in order.
#[test]
fn restart_keeps_a_nodes_identity_and_data() {
    let lab = Lab::new();
    let file = lab.write("again.yaml", &Testnet::new("again").yaml());
    lab.ok(&["up", "-f", &file, "--detach"]);
    for arguments in [&["restart", "validator-1"][..], &["restart", "validator-1", "--kill"]] {
        let before = lab.status("again");
        lab.ok(arguments);
        let after = lab.above("again", before.top(), MOMENT);
        let (before, after) = (before.node("validator-1"), after.node("validator-1"));
        assert_ne!(before.pid, after.pid);
        assert_eq!(before.address, after.address);
        assert!(after.final_height > before.final_height);
    }
    let ended = lab.run(&["restart", "validatr-1"]);
    assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains("validator-1"), "{ended:#?}");
}
