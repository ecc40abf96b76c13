//! Testnets and experiments as objects of a cluster, with the operator installed as users install it.

use std::process::Command;

use netsplit_e2e::{programs, until};

use crate::installed::{Installed, LEASE, PATIENCE, QUICKSTART, SPLIT_BRAIN, partition};

#[test]
fn the_examples_run_to_a_verdict() {
    let here = Installed::new("examples");
    here.quickstart();
    // The very file that `netsplit run` takes; it holds the testnet once more.
    here.namespace.apply(SPLIT_BRAIN);
    let (phase, status) = here.verdict("split-brain");
    assert_eq!(phase, "Passed", "{status}");
    assert_eq!(here.get("exp/split-brain", ".status.faults[*].state"), "open", "{status}");
    assert!(status.contains("\"links\":18"), "{status}");
    assert_eq!(here.get("exp/split-brain", ".status.conditions[?(@.type==\"Passed\")].status"), "True");
    let table = here.namespace.ok(&["get", "tn,exp"]);
    assert!(table.contains("Running") && table.contains("Passed"), "{table}");

    // What has run is not changed, and what makes no sense is not taken.
    let patch = |experiment: &str, patch: &str| {
        let arguments = ["patch", experiment, "--type=merge", &format!("--patch={{\"spec\":{patch}}}")];
        let patched = here.namespace.kubectl(&arguments).output().expect("kubectl can be started");
        assert!(!patched.status.success(), "{experiment} took {patch}");
        String::from_utf8_lossy(&patched.stderr).into_owned()
    };
    let said = patch("experiment/split-brain", r#"{"settle":"9s"}"#);
    assert!(said.contains("cannot be changed"), "{said}");

    // What only the operator can see becomes a condition and an event.
    here.namespace.apply(&partition("typo", "5s").replace("validator-3", "validator-9"));
    here.wait_for("experiment/typo", "condition=Accepted=false");
    let why = here.message("experiment/typo", "Accepted");
    assert!(why.contains("the last of group `validator` is `validator-3`"), "{why}");
    until("an event says so too", PATIENCE, || {
        here.namespace.ok(&["get", "events"]).contains("the last of group `validator` is `validator-3`")
    });

    let other = QUICKSTART.replace("  consensus:", "  chain: {cometbft: {}}\n  consensus:");
    here.namespace.apply(&other.replace("name: quickstart", "name: other"));
    here.wait_for("testnet/other", "condition=Accepted=false");
    let why = here.message("testnet/other", "Accepted");
    assert!(why.contains("CometBFT runs on one machine only"), "{why}");

    // Everything that a testnet is goes with it.
    here.namespace.ok(&["delete", "testnet/quickstart", "testnet/other"]);
    here.nothing_is_left();
}

#[test]
fn a_deleted_fault_is_healed() {
    let here = Installed::new("deleted");
    here.quickstart();
    here.namespace.apply(&partition("cut", "1h"));
    here.until_fault_is("cut", "proven");
    // In one breath: the new object is another one, whatever the end of the old one still has to say.
    for _ in 0..3 {
        here.namespace.ok(&["delete", "experiment/cut"]);
        here.namespace.apply(&partition("cut", "1h"));
        here.until_fault_is("cut", "proven");
    }
    here.namespace.ok(&["delete", "experiment/cut"]);
    here.the_chain_lives("after");
}

#[test]
fn rules_that_somebody_removed_make_the_run_invalid() {
    let here = Installed::new("sabotaged");
    here.quickstart();
    here.namespace.apply(SPLIT_BRAIN);
    here.until_fault_is("split-brain", "proven");
    let pid = here.process("quickstart-validator-0", "netsplit-node");
    let sabotage = Command::new(programs().join("netsplit-saboteur")).arg(pid.to_string()).output();
    let sabotage = sabotage.expect("netsplit-saboteur can be started");
    assert!(sabotage.status.success(), "{}", String::from_utf8_lossy(&sabotage.stderr));
    let (phase, status) = here.verdict("split-brain");
    assert_eq!(phase, "Invalid", "{status}");
    here.the_chain_lives("after");
}

#[test]
fn an_operator_that_is_killed_is_succeeded() {
    let here = Installed::new("killed");
    here.quickstart();
    here.namespace.apply(SPLIT_BRAIN);
    here.until_fault_is("split-brain", "proven");
    let operator = "--selector=app.kubernetes.io/name=netsplit";
    here.namespace.ok(&["delete", "pods", operator, "--force", "--grace-period=0"]);
    let (phase, status) = here.verdict("split-brain");
    assert_eq!(phase, "Passed", "{status}");
    let events = here.namespace.ok(&["get", "events"]);
    assert!(events.contains("another operator began it"), "{events}");
}

#[test]
fn a_fault_does_not_outlive_an_operator_that_was_uninstalled() {
    let here = Installed::new("uninstalled");
    here.quickstart();
    here.namespace.apply(&partition("cut", "1h"));
    here.until_fault_is("cut", "proven");
    // A block whose votes were under way may still become final; two cannot.
    let stalled = here.height();
    here.cluster.ok(here.cluster.helm(&["uninstall", "netsplit", "--namespace", &here.namespace.name]));
    until("blocks become final again", LEASE + PATIENCE, || here.height() > stalled + 2);
    here.namespace.ok(&["delete", "experiment/cut", "testnet/quickstart", "--timeout=10s"]);
    here.nothing_is_left();
}

/// Where nobody may have NET_ADMIN, a testnet runs without faults, and one with faults says what to do.
#[test]
fn a_restricted_namespace_takes_a_testnet_without_faults() {
    let here = Installed::new("restricted");
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    here.cluster.ok(here.cluster.kubectl(&["label", "namespace", &here.namespace.name, enforce]));
    here.namespace.apply(QUICKSTART);
    here.wait_for("testnet/quickstart", "condition=LinksSupported=false");
    let why = here.message("testnet/quickstart", "LinksSupported");
    assert!(why.contains("set `faults: off` in the testnet, or allow them with `kubectl label"), "{why}");
    here.namespace.ok(&["delete", "testnet/quickstart"]);
    here.nothing_is_left();

    here.namespace.apply(&QUICKSTART.replace("  consensus:", "  faults: off\n  consensus:"));
    here.wait_for("testnet/quickstart", "condition=Ready");
    here.namespace.apply(&partition("cut", "5s"));
    here.wait_for("experiment/cut", "condition=Accepted=false");
    let why = here.message("experiment/cut", "Accepted");
    assert!(why.contains("faults: off"), "{why}");
}
