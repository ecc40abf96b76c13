//! What keeps a testnet's pods from running is told, with what to do about it; when it is gone, the testnet starts by itself.

use netsplit_e2e::Claim;

use crate::installed::{Installed, testnet};

/// The condition says why, with the pod's name and each of these; an event says the same.
fn is_told(here: &Installed<'_>, testnet: &str, reason: &str, texts: &[&str]) {
    let object = format!("testnet/{testnet}");
    let of_ready = "{.status.conditions[?(@.type==\"Ready\")].reason}";
    here.wait_for(&object, &format!("jsonpath={of_ready}={reason}"));
    let message = here.message(&object, "Ready");
    let pod = format!("pod {testnet}-validator-");
    for text in texts.iter().copied().chain([pod.as_str()]) {
        assert!(message.contains(text), "{text:?} is not in: {message}");
    }
    assert_eq!(here.get(&object, ".status.conditions[?(@.type==\"Ready\")].status"), "False");
    assert_eq!(here.get(&object, ".status.problem"), message);
    here.until_told(&message);
}

#[test]
fn a_quota() {
    let here = Installed::new("quota");
    // One for the operator, one for the first of two nodes.
    here.namespace.ok(&["create", "quota", "small", "--hard=pods=2"]);
    here.namespace.apply(&testnet("net", 2, ""));
    is_told(&here, "net", "QuotaExceeded", &["exceeded quota: small", "raise the namespace's ResourceQuota"]);
    here.namespace.ok(&["delete", "quota", "small"]);
    here.wait_for("testnet/net", "condition=Ready");
}

#[test]
fn an_image_that_is_not_there() {
    let here = Installed::new("image");
    let images = here.cluster.images();
    let late = format!("localhost/netsplit-node:late-{}", std::process::id());
    let operator = here.namespace.ok(&["get", "deployment/netsplit", "--output=json"]);
    here.namespace.apply(&operator.replace(&images.node, &late));
    here.namespace.ok(&["rollout", "status", "deployment/netsplit", "--timeout=60s"]);
    here.namespace.apply(&testnet("net", 1, ""));
    is_told(&here, "net", "ImageMissing", &[&late, "push it there, load it into the cluster's nodes"]);
    here.cluster.tag(&images.node, &late);
    here.wait_for("testnet/net", "condition=Ready");
}

/// The storage class that claims get who name none, not being that until this is dropped.
struct NoDefaultClass<'a>(&'a Installed<'a>);

impl<'a> NoDefaultClass<'a> {
    fn begin(here: &'a Installed<'a>) -> Self {
        let this = Self(here);
        this.set("false");
        this
    }

    fn set(&self, is_default: &str) {
        let annotation = format!("storageclass.kubernetes.io/is-default-class={is_default}");
        self.0.namespace.ok(&["annotate", "--overwrite", "storageclass/standard", &annotation]);
    }
}

impl Drop for NoDefaultClass<'_> {
    fn drop(&mut self) {
        self.set("true");
    }
}

#[test]
fn a_volume_that_nobody_provides() {
    let here = Installed::new("volume");
    let _nobody = NoDefaultClass::begin(&here);
    here.namespace.apply(&testnet("net", 1, "  storage: 64Mi\n"));
    is_told(&here, "net", "VolumePending", &["make a default StorageClass or a PersistentVolume"]);
    let claim =
        Claim { namespace: &here.namespace.name, name: "data-net-validator-0", class: "", size: "64Mi" };
    let _volume = here.cluster.volume(&claim);
    here.wait_for("testnet/net", "condition=Ready");
}
