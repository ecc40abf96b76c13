//! A testnet that changes while it runs: more nodes, fewer nodes, another image.

use std::time::{Duration, Instant};

use netsplit_e2e::until;

use crate::installed::{Installed, PATIENCE, testnet};

/// Waits until no pod of an old template is left, and every group has so many that are ready.
fn until_rolled(here: &Installed<'_>, testnet: &str, counts: &[u32]) {
    let set = "{.spec.updateStrategy.rollingUpdate.partition}/{.status.currentRevision}/{.status.updateRevision}/\
               {.status.observedGeneration}/{.metadata.generation}/{.status.readyReplicas} ";
    let output = format!("--output=jsonpath={{range .items[*]}}{set}{{end}}");
    let selector = format!("--selector=netsplit.dev/testnet={testnet}");
    until("every pod is of the new template", 2 * PATIENCE, || {
        let sets =
            here.namespace.ok(&["get", "statefulsets", &selector, "--sort-by=.metadata.name", &output]);
        let sets: Vec<Vec<&str>> = sets.split_whitespace().map(|set| set.split('/').collect()).collect();
        sets.len() == counts.len()
            && sets.iter().zip(counts).all(|(set, count)| {
                set[0] == "0" && set[1] == set[2] && set[3] == set[4] && set[5] == count.to_string()
            })
    });
}

/// Several edits at once, of which none is lost and the last one counts. Nodes know each other by a list: it changes, and
/// their pods are replaced one after another.
#[test]
fn nodes_come_and_go() {
    let here = Installed::new("scaled");
    here.quickstart();
    let scale = |count: u32| {
        let patch =
            format!("--patch=[{{\"op\":\"replace\",\"path\":\"/spec/nodes/1/count\",\"value\":{count}}}]");
        let mut kubectl = here.namespace.kubectl(&["patch", "testnet/quickstart", "--type=json"]);
        kubectl.arg(patch);
        kubectl
    };
    let at_once: Vec<_> =
        (4..=9).map(|count| scale(count).spawn().expect("kubectl can be started")).collect();
    for mut child in at_once {
        assert!(child.wait().expect("a child can be waited for").success());
    }
    here.cluster.ok(scale(3));
    until_rolled(&here, "quickstart", &[3, 4]);
    let generation = here.get("testnet/quickstart", ".metadata.generation");
    assert_eq!(here.get("testnet/quickstart", ".status.observedGeneration"), generation);
    here.wait_for("testnet/quickstart", "jsonpath={.status.ready}=7");
    here.the_chain_lives("more");

    here.cluster.ok(scale(1));
    until_rolled(&here, "quickstart", &[1, 4]);
    here.wait_for("testnet/quickstart", "jsonpath={.status.ready}=5");
    here.the_chain_lives("fewer");

    // Who votes is written in the genesis.
    let path = "--patch=[{\"op\":\"replace\",\"path\":\"/spec/nodes/0/count\",\"value\":5}]";
    let refused = here.namespace.kubectl(&["patch", "testnet/quickstart", "--type=json", path]).output();
    let said = String::from_utf8_lossy(&refused.expect("kubectl can be started").stderr).into_owned();
    assert!(said.contains("the chain's genesis names its validators: make another testnet"), "{said}");
}

/// One pod at a time, also when the validators are of two groups, each of which would replace one of its own: the network
/// needs three of four.
#[test]
fn another_image_comes_without_a_pause_in_finality() {
    let here = Installed::new("upgraded");
    let groups = "{name: a, role: validator, count: 2}, {name: b, role: validator, count: 2}";
    here.namespace
        .apply(&testnet("net", 1, "").replace("{name: validator, role: validator, count: 1}", groups));
    here.wait_for("testnet/net", "condition=Ready");
    let images = here.cluster.images();
    let next = format!("next-{}", std::process::id());
    let renamed = |image: &str| {
        let (name, _) = image.rsplit_once(':').expect("name:tag");
        let renamed = format!("{name}:{next}");
        here.cluster.tag(image, &renamed);
        renamed
    };
    let [node, _] = [&images.node, &images.netsplit].map(|image| renamed(image));

    here.helm("upgrade", &[&format!("image.tag={next}")]);
    let look = || {
        let pod = "{.spec.containers[0].image} {.status.conditions[?(@.type==\"Ready\")].status}";
        let output = format!("--output=jsonpath={{range .items[*]}}{pod}{{\"\\n\"}}{{end}}");
        here.namespace.ok(&["get", "pods", "--selector=netsplit.dev/testnet=net", &output])
    };
    let (mut height, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    until("every pod has the other image", PATIENCE, || {
        let pods = look();
        let ready = pods.lines().filter(|pod| pod.ends_with("True")).count();
        assert!(ready >= 3, "more than one pod is away:\n{pods}");
        let seen =
            here.heights(&["net-a-0", "net-a-1", "net-b-0", "net-b-1"]).into_iter().max().unwrap_or_default();
        if seen > height {
            longest = longest.max(since.elapsed());
            (height, since) = (seen, Instant::now());
        }
        ready == 4 && pods.lines().all(|pod| pod.starts_with(&node))
    });
    assert!(longest < Duration::from_secs(15), "no block was final for {longest:?}");
    here.wait_for("testnet/net", "condition=Ready");
}
