//! Nodes in pods that experiments kill, pause and restart.

use std::{thread, time::Duration};

use netsplit_e2e::{process_of_pod, until, until_some};

use crate::{
    command_line::Namespaced,
    everywhere::{Place as _, node_faults},
    installed::{LEASE, PATIENCE, experiment},
};

/// A keeper that was told nothing starts its node sooner.
const FIRST_WORD: Duration = Duration::from_secs(4);

#[test]
fn one_validator_that_is_killed_paused_or_restarted_holds_up_nobody() {
    node_faults::one_validator_that_is_killed_paused_or_restarted_holds_up_nobody(&Namespaced::new("nodes"));
}

/// A fault sticks to its node, and is the node's keeper's to end when nobody renews it.
#[test]
fn held_nodes_stay_so_in_other_pods_and_run_again_when_nobody_speaks_for_them() {
    let place = Namespaced::new("held");
    let here = &place.here;
    let process = |node: &str| place.find_process("quickstart", node);
    here.quickstart();
    here.namespace.apply(&experiment(
        "held",
        "faults: [{at: 0s, for: 1h, pause: [validator-1]}, {at: 0s, for: 1h, kill: [validator-2]}]",
    ));
    here.until_fault_is("held", "proven proven");
    let paused = process("validator-1").expect("a paused node has a process");
    assert_eq!(node_faults::is_stopped(paused), Some(true));
    assert_eq!(process("validator-2"), None);
    let ready = here.message("testnet/quickstart", "Ready");
    assert!(ready.contains("but for those that a fault holds: validator-1, validator-2"), "{ready}");

    let pod = "quickstart-validator-2";
    let before = here.uid(pod);
    here.namespace.ok(&["delete", "pod", pod, "--wait=false"]);
    until_some("another pod keeps the node", PATIENCE, || {
        let uid = here.uid(pod).filter(|uid| Some(uid) != before.as_ref())?;
        process_of_pod(&uid, "netsplit-keeper")
    });
    thread::sleep(FIRST_WORD);
    assert_eq!(process("validator-2"), None, "it was told to wait");
    assert_eq!(here.get("experiment/held", ".status.faults[*].state"), "proven proven");

    here.cluster.ok(here.cluster.helm(&["uninstall", "netsplit", "--namespace", &here.namespace.name]));
    until("the nodes run again", LEASE + PATIENCE, || {
        process("validator-2").is_some() && node_faults::is_stopped(paused) == Some(false)
    });
    here.namespace.ok(&["delete", "experiment/held", "testnet/quickstart", "--timeout=10s"]);
    here.nothing_is_left();
}
