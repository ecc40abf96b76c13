//! Testnets and experiments as objects of a cluster, with the operator installed as users install it.

use std::{process::Command, sync::MutexGuard, time::Duration};

use netsplit_e2e::{Cluster, Namespace, programs, until, until_some};

use crate::{alone, chart};

const QUICKSTART: &str = include_str!("../../../examples/quickstart.yaml");
const SPLIT_BRAIN: &str = include_str!("../../../examples/split-brain.yaml");
/// Far above what it takes on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_mins(3);
/// A fault that no operator renews ends after this.
const LEASE: Duration = Duration::from_secs(30);

/// An operator that looks after a namespace of its own.
struct Installed<'a> {
    cluster: &'a Cluster,
    namespace: Namespace<'a>,
    _alone: MutexGuard<'static, ()>,
}

impl Installed<'_> {
    fn new(purpose: &str) -> Self {
        let alone = alone();
        let cluster = Cluster::shared();
        let namespace = cluster.namespace(purpose);
        let images = cluster.images();
        let (registry, image) = images.netsplit.rsplit_once('/').expect("registry/name:tag");
        let (_, tag) = image.rsplit_once(':').expect("name:tag");
        let values = [
            format!("image.registry={registry}"),
            format!("image.tag={tag}"),
            format!("image.pullPolicy={}", images.pull_policy),
        ];
        let mut install = cluster.helm(&["install", "netsplit", "--namespace", &namespace.name, "--wait"]);
        install.arg("--timeout=180s").args(values.iter().flat_map(|value| ["--set", value]));
        install.arg(chart::path());
        cluster.ok(install);
        Self { cluster, namespace, _alone: alone }
    }

    fn get(&self, object: &str, path: &str) -> String {
        self.namespace.ok(&["get", object, &format!("--output=jsonpath={{{path}}}")])
    }

    fn wait_for(&self, object: &str, condition: &str) {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.namespace.ok(&["wait", &format!("--for={condition}"), object, &limit]);
    }

    /// Applies the example's testnet and waits until it is ready.
    fn quickstart(&self) {
        self.namespace.apply(QUICKSTART);
        self.wait_for("testnet/quickstart", "condition=Ready");
    }

    /// Waits for an experiment's end; gives its phase, and its status for a message.
    fn verdict(&self, experiment: &str) -> (String, String) {
        let object = format!("experiment/{experiment}");
        self.wait_for(&object, "condition=Complete");
        (self.get(&object, ".status.phase"), self.get(&object, ".status"))
    }

    fn until_fault_is(&self, experiment: &str, state: &str) {
        let object = format!("experiment/{experiment}");
        until(&format!("the fault of {experiment} is {state}"), PATIENCE, || {
            self.get(&object, ".status.faults[*].state") == state
        });
    }

    /// The last final block of a node, as it says itself.
    fn height(&self) -> u64 {
        let pod = format!(
            "/api/v1/namespaces/{}/pods/quickstart-validator-0:26602/proxy/metrics",
            self.namespace.name
        );
        let metrics = self.namespace.ok(&["get", "--raw", &pod]);
        let height = metrics.lines().find_map(|line| line.strip_prefix("netsplit_chain_height "));
        height
            .and_then(|height| height.trim().parse().ok())
            .unwrap_or_else(|| panic!("no height in {metrics}"))
    }

    fn nothing_is_left(&self) {
        until("nothing of the testnet is left", PATIENCE, || {
            let kinds = "pods,statefulsets,services,secrets,configmaps,persistentvolumeclaims";
            let selector = "--selector=netsplit.dev/testnet=quickstart";
            self.namespace.ok(&["get", kinds, selector, "--output=name"]).is_empty()
        });
    }

    /// An experiment that passes if and only if the chain makes progress now.
    fn the_chain_lives(&self, name: &str) {
        self.namespace.apply(&experiment(name, "expect: [{progress: {within: 5s}}, {agreement: {}}]"));
        let (phase, status) = self.verdict(name);
        assert_eq!(phase, "Passed", "{status}");
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in
                [&["logs", "deployment/netsplit", "--tail=200"][..], &["describe", "experiments,testnets"]]
            {
                match self.namespace.kubectl(what).output() {
                    Ok(said) => eprintln!("{what:?}:\n{}", String::from_utf8_lossy(&said.stdout)),
                    Err(error) => eprintln!("{what:?}: {error}"),
                }
            }
        }
        // What the chart has outside of the namespace goes with it.
        let uninstall =
            self.cluster.helm(&["uninstall", "netsplit", "--namespace", &self.namespace.name]).output();
        if let Err(error) = uninstall {
            eprintln!("cannot uninstall: {error}");
        }
    }
}

fn experiment(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n  testnet: \
         quickstart\n  {spec}\n"
    )
}

/// A partition of the example, as a plain fault.
fn partition(name: &str, lasts: &str) -> String {
    experiment(
        name,
        &format!(
            "faults: [{{at: 0s, for: {lasts}, partition: [[validator-0, validator-1, full-0], [validator-2, \
             validator-3, full-1]]}}]"
        ),
    )
}

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
    let refused = here
        .namespace
        .kubectl(&[
            "patch",
            "experiment/split-brain",
            "--type=merge",
            "--patch={\"spec\":{\"settle\":\"9s\"}}",
        ])
        .output()
        .expect("kubectl can be started");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cannot be changed"), "{said}");

    // What only the operator can see becomes a condition and an event.
    here.namespace.apply(&partition("typo", "5s").replace("validator-3", "validator-9"));
    here.wait_for("experiment/typo", "condition=Accepted=false");
    let why = here.get("experiment/typo", ".status.conditions[?(@.type==\"Accepted\")].message");
    assert!(why.contains("the last of group `validator` is `validator-3`"), "{why}");
    until("an event says so too", PATIENCE, || {
        here.namespace.ok(&["get", "events"]).contains("the last of group `validator` is `validator-3`")
    });

    // Everything that a testnet is goes with it.
    here.namespace.ok(&["delete", "testnet/quickstart"]);
    here.nothing_is_left();
}

#[test]
fn a_deleted_fault_is_healed() {
    let here = Installed::new("deleted");
    here.quickstart();
    here.namespace.apply(&partition("cut", "1h"));
    here.until_fault_is("cut", "proven");
    here.namespace.ok(&["delete", "experiment/cut"]);
    here.the_chain_lives("after");
}

#[test]
fn rules_that_somebody_removed_make_the_run_invalid() {
    let here = Installed::new("sabotaged");
    here.quickstart();
    here.namespace.apply(SPLIT_BRAIN);
    here.until_fault_is("split-brain", "proven");
    let pid = process_of(&here.namespace.name, "quickstart-validator-0");
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
    let why = here.get("testnet/quickstart", ".status.conditions[?(@.type==\"LinksSupported\")].message");
    assert!(why.contains("set `faults: off` in the testnet, or allow them with `kubectl label"), "{why}");
    here.namespace.ok(&["delete", "testnet/quickstart"]);
    here.nothing_is_left();

    here.namespace.apply(&QUICKSTART.replace("  consensus:", "  faults: off\n  consensus:"));
    here.wait_for("testnet/quickstart", "condition=Ready");
    here.namespace.apply(&partition("cut", "5s"));
    here.wait_for("experiment/cut", "condition=Accepted=false");
    let why = here.get("experiment/cut", ".status.conditions[?(@.type==\"Accepted\")].message");
    assert!(why.contains("faults: off"), "{why}");
}

/// The id of a pod's node process: containers of the test cluster are processes of this machine.
fn process_of(namespace: &str, pod: &str) -> u32 {
    let peers = format!(".quickstart.{namespace}.svc:");
    until_some(&format!("the process of {namespace}/{pod} is found"), PATIENCE, || {
        std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok).find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let is_node = command.contains("netsplit-node");
            let mut variables = environment.split(|byte| *byte == 0);
            let is_pod = variables.any(|variable| variable == format!("POD_NAME={pod}").as_bytes());
            let config = std::fs::read_to_string(entry.path().join("root/netsplit/node.toml")).ok()?;
            (is_node && is_pod && config.contains(&peers)).then_some(pid)
        })
    })
}
