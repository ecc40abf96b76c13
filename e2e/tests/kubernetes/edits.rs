//! Somebody changes by hand what a testnet is made of.

use std::time::{Duration, Instant};

use netsplit_e2e::until;

use crate::installed::{Installed, PATIENCE, testnet};

/// Far above the time after which something is put back.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Whatever a testnet owns is as the Testnet says again, and an event tells what was done to each and by whom; unless the testnet
/// is paused.
#[test]
fn what_somebody_changes_by_hand_is_put_back() {
    let here = Installed::new("edited");
    here.namespace.apply(&testnet("net", 2, ""));
    here.wait_for("testnet/net", "condition=Ready");
    let replicas = || here.get("statefulset/net-validator", ".spec.replicas");

    here.namespace.ok(&["annotate", "testnet/net", "netsplit.dev/paused=true"]);
    here.wait_for("testnet/net", "condition=Paused");
    here.namespace.ok(&["scale", "statefulset/net-validator", "--replicas=1"]);
    here.wait_for("testnet/net", "jsonpath={.status.ready}=1");
    let began = Instant::now();
    until("it would have been put back", PATIENCE, || replicas() != "1" || began.elapsed() > LEFT_ALONE);
    assert_eq!(replicas(), "1");
    here.namespace.ok(&["annotate", "testnet/net", "netsplit.dev/paused-"]);
    until("it is put back", PATIENCE, || replicas() == "2");
    here.until_told("StatefulSet net-validator was changed by kubectl");

    let data = || here.get("configmap/net", ".data");
    let genesis = data();
    let patch = |object: &str, patch: &str| {
        let patch = format!("--patch={patch}");
        here.namespace.ok(&["patch", object, "--type=merge", "--field-manager=somebody", &patch]);
    };
    patch("service/net", "{\"spec\":{\"selector\":{\"netsplit.dev/testnet\":\"another\"}}}");
    patch("configmap/net", "{\"data\":{\"genesis.json\":\"nonsense\"}}");
    here.namespace.ok(&["delete", "secret/net-validator"]);
    until("everything is as it was", PATIENCE, || {
        here.get("service/net", ".spec.selector.netsplit\\.dev/testnet") == "net"
            && data() == genesis
            && !here.namespace.ok(&["get", "secret/net-validator", "--ignore-not-found"]).is_empty()
    });
    // Changes that come while others are put back may be told without a name.
    for object in ["Service net was changed", "ConfigMap net was changed", "Secret net-validator was gone"] {
        here.until_told(object);
    }
    patch("service/net", "{\"spec\":{\"publishNotReadyAddresses\":false}}");
    here.until_told("Service net was changed by somebody");
    here.wait_for("testnet/net", "condition=Ready");
}
