//! The operator, installed as users install it, and what scenarios ask of it.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    sync::MutexGuard,
    time::Duration,
};

use netsplit_e2e::{Cluster, Namespace, http_get, process_of_pod, until, until_some};

use crate::alone;

pub const QUICKSTART: &str = include_str!("../../../examples/quickstart.yaml");
pub const SPLIT_BRAIN: &str = include_str!("../../../examples/split-brain.yaml");
/// Far above what it takes on a machine that does nothing else.
pub const PATIENCE: Duration = Duration::from_mins(3);
/// A fault that no operator renews ends after this.
pub const LEASE: Duration = Duration::from_secs(30);
/// A node's metrics.
pub const HTTP_PORT: u16 = 26602;

/// An operator that looks after a namespace of its own.
pub struct Installed<'a> {
    pub cluster: &'a Cluster,
    pub namespace: Namespace<'a>,
    _alone: MutexGuard<'static, ()>,
}

impl Installed<'_> {
    pub fn new(purpose: &str) -> Self {
        Self::with(purpose, &[])
    }

    /// With values of the chart, each `name=value`.
    pub fn with(purpose: &str, values: &[&str]) -> Self {
        let alone = alone();
        let cluster = Cluster::shared();
        let here = Self { cluster, namespace: cluster.namespace(purpose), _alone: alone };
        here.helm("install", values);
        here
    }

    /// Installs or upgrades, and waits until that is done. What was set before and is not set again is as in the beginning.
    pub fn helm(&self, verb: &str, values: &[&str]) {
        self.cluster.ok(self.cluster.helm_chart(verb, &self.namespace.name, values));
    }

    pub fn get(&self, object: &str, path: &str) -> String {
        self.namespace.ok(&["get", object, &format!("--output=jsonpath={{{path}}}")])
    }

    /// The message of an object's condition.
    pub fn message(&self, object: &str, condition: &str) -> String {
        self.get(object, &format!(".status.conditions[?(@.type==\"{condition}\")].message"))
    }

    pub fn wait_for(&self, object: &str, condition: &str) {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.namespace.ok(&["wait", &format!("--for={condition}"), object, &limit]);
    }

    /// Waits until some event says this.
    pub fn until_told(&self, text: &str) {
        until(&format!("an event says {text:?}"), PATIENCE, || {
            self.namespace.ok(&["get", "events", "--output=jsonpath={.items[*].message}"]).contains(text)
        });
    }

    /// Applies the example's testnet and waits until it is ready.
    pub fn quickstart(&self) {
        self.namespace.apply(QUICKSTART);
        self.wait_for("testnet/quickstart", "condition=Ready");
    }

    /// Waits for an experiment's end; gives its phase, and its status for a message.
    pub fn verdict(&self, experiment: &str) -> (String, String) {
        let object = format!("experiment/{experiment}");
        self.wait_for(&object, "condition=Complete");
        (self.get(&object, ".status.phase"), self.get(&object, ".status"))
    }

    pub fn until_fault_is(&self, experiment: &str, state: &str) {
        let object = format!("experiment/{experiment}");
        until(&format!("the fault of {experiment} is {state}"), PATIENCE, || {
            self.get(&object, ".status.faults[*].state") == state
        });
    }

    /// The last final block of a node, as it says itself.
    pub fn height(&self) -> u64 {
        height_at(self.address("quickstart-validator-0")).expect("the node answers")
    }

    /// Where a pod is reached, also when the API server is not.
    pub fn address(&self, pod: &str) -> SocketAddr {
        let address = self.get(&format!("pod/{pod}"), ".status.podIP");
        SocketAddr::new(
            address.parse().unwrap_or_else(|_| panic!("{pod} has the address {address:?}")),
            HTTP_PORT,
        )
    }

    /// The last final block of each of these pods that answers.
    pub fn heights(&self, pods: &[&str]) -> Vec<u64> {
        let address = |pod: &&str| {
            let ip = self.namespace.ok(&[
                "get",
                "pod",
                pod,
                "--ignore-not-found",
                "--output=jsonpath={.status.podIP}",
            ]);
            Some(SocketAddr::new(ip.parse().ok()?, HTTP_PORT))
        };
        pods.iter().filter_map(address).filter_map(height_at).collect()
    }

    pub fn nothing_is_left(&self) {
        until("nothing of the testnet is left", PATIENCE, || {
            let kinds = "pods,statefulsets,services,secrets,configmaps,persistentvolumeclaims";
            let selector = "--selector=netsplit.dev/testnet=quickstart";
            self.namespace.ok(&["get", kinds, selector, "--output=name"]).is_empty()
        });
    }

    /// An experiment that passes if and only if the chain makes progress now.
    pub fn the_chain_lives(&self, name: &str) {
        self.namespace.apply(&experiment(name, "expect: [{progress: {within: 5s}}, {agreement: {}}]"));
        let (phase, status) = self.verdict(name);
        assert_eq!(phase, "Passed", "{status}");
    }

    /// The id of a process of a pod: containers of the test cluster are processes of this machine.
    pub fn process(&self, pod: &str, program: &str) -> u32 {
        let uid = self.get(&format!("pod/{pod}"), ".metadata.uid");
        until_some(&format!("{program} of {pod} runs"), PATIENCE, || process_of_pod(&uid, program))
    }

    /// Tells a pod from others of its name; none while there is none.
    pub fn uid(&self, pod: &str) -> Option<String> {
        let uid = ["get", "pod", pod, "--ignore-not-found", "--output=jsonpath={.metadata.uid}"];
        Some(self.namespace.ok(&uid)).filter(|uid| !uid.is_empty())
    }

    fn dump(&self, what: &[&str]) {
        match self.namespace.kubectl(what).output() {
            Ok(Output { stdout, .. }) => eprintln!("{what:?}:\n{}", String::from_utf8_lossy(&stdout)),
            Err(error) => eprintln!("{what:?}: {error}"),
        }
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump(&["logs", "--selector=app.kubernetes.io/name=netsplit", "--tail=100", "--prefix"]);
            self.dump(&["describe", "experiments,testnets"]);
        }
        // What the chart has outside of the namespace goes with it.
        let uninstall =
            self.cluster.helm(&["uninstall", "netsplit", "--namespace", &self.namespace.name]).output();
        if let Err(error) = uninstall {
            eprintln!("cannot uninstall: {error}");
        }
    }
}

/// The last final block of a node, as it says itself; none while it does not answer. Asks no API server.
pub fn height_at(node: SocketAddr) -> Option<u64> {
    let metrics = http_get(node, "/metrics")?;
    metrics.lines().find_map(|line| line.strip_prefix("netsplit_chain_height "))?.trim().parse().ok()
}

/// A testnet of validators only; `more` is the rest of its spec.
pub fn testnet(name: &str, count: u32, more: &str) -> String {
    format!(
        "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: {name}}}\nspec:\n  consensus: {{bft: \
         {{blockTime: 500ms}}}}\n  nodes: [{{name: validator, role: validator, count: {count}}}]\n{more}"
    )
}

pub fn experiment(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n  testnet: \
         quickstart\n  {spec}\n"
    )
}

/// A partition of the example, as a plain fault.
pub fn partition(name: &str, lasts: &str) -> String {
    experiment(
        name,
        &format!(
            "faults: [{{at: 0s, for: {lasts}, partition: [[validator-0, validator-1, full-0], [validator-2, \
             validator-3, full-1]]}}]"
        ),
    )
}

/// Runs a program that must succeed; returns what it printed.
pub fn demand(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program can be started");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}
