//! The command line's verbs over a cluster: they say and return what they say and return on one machine.

use std::{net::SocketAddr, time::Duration};

use netsplit_e2e::{Claim, Experiment, Lab, NodeStatus, Testnet, exit, process_of_pod, until};
use nix::sys::signal::Signal;

use crate::{
    everywhere::{Place, by_hand, topologies, verdicts},
    installed::{HTTP_PORT, Installed},
};

/// Far above what it takes on a machine that does nothing else.
const MOMENT: Duration = Duration::from_mins(1);

/// A namespace of the cluster as a place of the scenarios that are the same everywhere.
pub struct Namespaced<'a> {
    pub here: Installed<'a>,
    lab: Lab,
}

impl Namespaced<'_> {
    pub fn new(purpose: &str) -> Self {
        let here = Installed::new(purpose);
        let lab = Lab::on(here.cluster, &here.namespace.name);
        Self { here, lab }
    }
}

impl Place for Namespaced<'_> {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn moment(&self) -> Duration {
        MOMENT
    }

    fn process(&self, testnet: &str, node: &str) -> i32 {
        self.here.process(&format!("{testnet}-{node}"), "netsplit-node").cast_signed()
    }

    fn find_process(&self, testnet: &str, node: &str) -> Option<i32> {
        let uid = self.here.uid(&format!("{testnet}-{node}"))?;
        process_of_pod(&uid, "netsplit-node").map(u32::cast_signed)
    }

    fn http(&self, node: &NodeStatus) -> SocketAddr {
        let address = node.address.parse();
        SocketAddr::new(address.unwrap_or_else(|_| panic!("{} is an address", node.address)), HTTP_PORT)
    }

    fn own_load_waits(&self, testnet: &str) -> bool {
        let condition = ".status.conditions[?(@.type==\"LoadMadeWay\")].status";
        self.here.get(&format!("testnet/{testnet}"), condition) == "True"
    }

    fn program(&self) -> String {
        "/netsplit-node".to_owned()
    }

    fn nothing_left(&self) {
        until("nothing is left", MOMENT, || {
            let kinds = "testnets,experiments,statefulsets,pods,persistentvolumeclaims";
            let ours = "--selector=app.kubernetes.io/name!=netsplit";
            self.here.namespace.ok(&["get", kinds, ours, "--output=name"]).is_empty()
        });
    }
}

#[test]
fn a_testnet_by_hand() {
    let place = Namespaced::new("verbs");
    let lab = place.lab();
    let doctor = lab.ok(&["doctor"]);
    assert!(doctor.contains("leads") && doctor.contains("every command works"), "{doctor}");
    let _volumes = by_hand::NODES.map(|node| {
        let (namespace, name) = (place.here.namespace.name.as_str(), format!("data-hand-{node}"));
        place.here.cluster.volume(&Claim { namespace, name: &name, class: "standard", size: "64Mi" })
    });
    let before = by_hand::is_brought_up_once(&place);
    by_hand::a_split_stops_finality_until_healed(&place);
    by_hand::a_split_ends_by_itself(&place);
    by_hand::a_one_way_cut_is_told_apart(&place);
    by_hand::mistakes_are_told(&place);
    by_hand::transfers_become_final(&place);
    by_hand::a_command_runs_at_a_node(&place);
    let ended = lab.run(&["exec", "full-0", "--", "sh"]);
    assert!(ended.stderr.contains("/netsplit-node and no shell"), "{ended:#?}");
    verdicts::a_split_brain_passes(&place);
    verdicts::a_stall_that_does_not_happen_fails(&place);
    verdicts::a_chain_that_does_not_recover_fails(&place);
    by_hand::a_node_comes_back_with_its_data(&place);
    let after = lab.status("hand");
    assert_ne!(after.node("validator-3").address, before.node("validator-3").address, "it is another pod");
    by_hand::is_taken_down(&place);
}

#[test]
fn a_run_brings_its_testnet_and_takes_it_away() {
    let place = Namespaced::new("run");
    let lab = place.lab();
    let experiment = Experiment { lasts: 60, ..Experiment::halves("brought").expect_all() };
    let file = lab.write("long.yaml", &experiment.with(&Testnet::new("brought")));
    let mut run = lab.start(&["run", &file]);
    run.wait_for("fault-proven", MOMENT);
    run.signal(Signal::SIGINT);
    let ended = run.wait(MOMENT);
    assert_eq!(ended.code, Some(exit::INVALID), "{ended:#?}");
    place.nothing_left();

    let testnet = lab.write("testnet.yaml", &Testnet { load: 50, ..Testnet::new("brought") }.yaml());
    let mut up = lab.start(&["up", "-f", &testnet]);
    up.wait_for("Ctrl-C takes it down", MOMENT);
    by_hand::a_load_by_hand_goes_first(&place, "brought");
    // Its data would go with its pod.
    let ended = lab.run(&["restart", "validator-0"]);
    assert!(ended.code == Some(exit::USAGE) && ended.stderr.contains("`storage: 1Gi`"), "{ended:#?}");
    up.signal(Signal::SIGINT);
    let ended = up.wait(MOMENT);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    place.nothing_left();

    topologies::a_ring_splits_and_heals(&place);
}
