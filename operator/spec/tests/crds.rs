//! Objects of the Kubernetes API mean what the same files mean, and their schema is the committed one.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

use netsplit_spec::{Chain, Document, crd, parse};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/netsplit/crds");

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    for (file, definition) in crd::definitions() {
        let path = format!("{FOLDER}/{file}");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let made = serde_saphyr::to_string(&definition).unwrap();
        assert!(committed == made, "{path} is not what the types say: run `make gen`");
    }
}

/// As the API server would hand it over.
fn object(text: &str) -> serde_json::Value {
    serde_saphyr::from_str(text).unwrap()
}

fn testnet(spec: &str) -> crd::Testnet {
    let head = "{apiVersion: netsplit.dev/v1alpha1, kind: Testnet, metadata: {name: net}, spec: ";
    serde_json::from_value(object(&format!("{head}{spec}}}"))).unwrap()
}

#[test]
fn the_examples_mean_the_same_as_objects_and_as_files() {
    for text in [
        include_str!("../../../examples/quickstart.yaml"),
        include_str!("../../../examples/split-brain.yaml"),
        include_str!("../../../examples/cometbft.yaml"),
        include_str!("../../../examples/far-apart.yaml"),
    ] {
        let documents = parse(text, "example").unwrap();
        let objects: Vec<_> = text.split("\n---\n").map(object).collect();
        assert_eq!(documents.len(), objects.len());
        for (document, object) in documents.into_iter().zip(objects) {
            let read = match document {
                Document::Testnet(_) => {
                    Document::Testnet(serde_json::from_value::<crd::Testnet>(object).unwrap().read().unwrap())
                }
                Document::Experiment(_) => {
                    let object: crd::Experiment = serde_json::from_value(object).unwrap();
                    Document::Experiment(object.read().unwrap())
                }
            };
            assert_eq!(read, document);
        }
    }
}

#[test]
fn numbers_and_switches_are_read_as_in_a_file() {
    let object = testnet(
        "{consensus: {bft: {blockTime: 100ms}}, nodes: [{name: a, role: validator}], load: {transfersPerSecond: 50}, \
         faults: false, storage: 1Gi, seed: 7}",
    );
    let read = object.read().unwrap();
    assert_eq!(read.load.unwrap().transfers_per_second, 50);
    assert_eq!((read.faults, read.storage.as_deref(), read.seed), (false, Some("1Gi"), Some(7)));
    let text = "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {name: net}\nspec: {consensus: {bft: \
                {blockTime: 100ms}}, nodes: [{name: a, role: validator}], load: {transfersPerSecond: 50}, \
                faults: off, storage: 1Gi, seed: 7}\n";
    assert_eq!(parse(text, "net.yaml").unwrap(), [Document::Testnet(read)]);
}

#[test]
fn every_problem_of_an_object_is_told_without_a_line() {
    let object = testnet(
        "{consensus: {bft: {blockTime: 500}}, nodes: [{name: a, role: full, count: 300}], storage: 1GB}",
    );
    let problems = object.read().unwrap_err().to_string();
    let expected = "Testnet/net: spec.consensus.bft.blockTime: `500` has no unit: write `500ms` or `500s`\n\
                    Testnet/net: spec.nodes[0].count: 300 is too large: 200 is the most\n\
                    Testnet/net: spec.nodes: no group has `role: validator`: nobody would make blocks\n\
                    Testnet/net: spec.storage: `1GB` is not a size: write a number and a unit, as in `512Mi` or `1Gi`";
    assert_eq!(problems, expected);
}

#[test]
fn a_testnet_without_faults_takes_no_experiment_that_has_some() {
    let mut net =
        testnet("{consensus: {bft: {blockTime: 100ms}}, nodes: [{name: a, role: validator, count: 2}]}");
    let experiment: crd::Experiment = serde_json::from_value(object(
        "{apiVersion: netsplit.dev/v1alpha1, kind: Experiment, metadata: {name: e}, spec: {testnet: net, faults: [{at: 0, \
         for: 5s, partition: [[a-0], [a-1]]}]}}",
    ))
    .unwrap();
    let experiment = experiment.read().unwrap();
    netsplit_spec::validate(&experiment, &net.read().unwrap()).unwrap();
    net.spec.faults = Some(false);
    let refused = netsplit_spec::validate(&experiment, &net.read().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("faults: off"), "{refused}");
}

#[test]
fn a_chain_is_a_word_or_a_map_with_its_options() {
    for (written, chain) in [("netsplit", Chain::Netsplit), ("{cometbft: {}}", Chain::Cometbft {})] {
        let spec = format!(
            "{{chain: {written}, consensus: {{bft: {{blockTime: 1s}}}}, nodes: [{{name: a, role: validator}}]}}"
        );
        let read = testnet(&spec).read().unwrap();
        assert_eq!(read.chain, chain);
        assert_eq!(crd::Testnet::of(&read).unwrap().read().unwrap(), read);
        let text = format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: net}}\nspec: {spec}\n"
        );
        assert_eq!(parse(&text, "net.yaml").unwrap(), [Document::Testnet(read)]);
    }
}

/// What the command line makes of a file is what `kubectl apply` of the same file makes.
#[test]
fn an_object_made_of_a_document_means_the_document() {
    let full = "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {name: net}\nspec:\n  seed: 7\n  \
                consensus: {bft: {blockTime: 1s500ms, timeouts: {propose: 2s, prevote: 1s, precommit: 500ms}}}\n  nodes:\n    \
                - {name: v, role: validator, count: 4}\n    - {name: f, role: full}\n  topology: ring\n  \
                load: {transfersPerSecond: 60, accounts: 9}\n  retention: {blocks: 500}\n  \
                links: {latency: 20ms, jitter: 2ms, loss: 0.5%, rate: 10mbit, reorder: 1%, corrupt: 0.1%}\n  storage: 1Gi\n---\n\
                apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {name: all}\nspec:\n  testnet: net\n  \
                baseline: 3s\n  settle: 1500ms\n  faults:\n    - {name: a, at: 5s, for: 30s, partition: [[v-0, v-1], [v-2, v-3]], rest: 1}\n    \
                - {at: 9s, for: 2s, partition: [[v-0], [v-1]], rest: bridge}\n    \
                - {at: 15s, for: 2s, cut: {from: [v], to: [f], oneWay: true}}\n    \
                - {at: 20s, for: 2s, link: {from: [v], to: [f], oneWay: true, latency: 80ms, loss: 2%}}\n    \
                - {at: 20s, for: 2s, every: 4s, repeat: 3, kill: [v-0]}\n    - {at: 20s, for: 2s, pause: [v-1]}\n    \
                - {at: 20s, for: 2s, restart: [f]}\n  abort: {silent: 1m}\n  expect:\n    - {stall: {within: 5s, after: a}}\n    \
                - {recover: {within: 5s}}\n    - {progress: {within: 9s}}\n    - {agreement: {}}\n    - {validity: {}}\n    \
                - {latency: {p99: 2s}}\n    - {throughput: {atLeast: 50/s}}\n";
    let off = "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {name: off}\nspec: {consensus: {bft: {blockTime: \
               100ms}}, nodes: [{name: a, role: validator}], faults: off}";
    let regions = "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {name: wan}\nspec: {consensus: {bft: {blockTime: \
                   100ms}}, links: {regions: simblock-2019, loss: 0.1%, rate: 5mbit}, nodes: [{name: a, role: validator, \
                   regions: [japan, europe]}, {name: b, role: full, region: europe}]}";
    let matrix = "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {name: own}\nspec: {consensus: {bft: {blockTime: \
                  100ms}}, links: {matrix: [{from: a, to: b, latency: 1ms, jitter: 0.5ms}, {from: b, to: a, latency: 2ms}]}, \
                  nodes: [{name: a, role: validator, count: 2, regions: [a, b]}]}";
    let examples = [
        include_str!("../../../examples/quickstart.yaml"),
        include_str!("../../../examples/split-brain.yaml"),
        include_str!("../../../examples/cometbft.yaml"),
        include_str!("../../../examples/far-apart.yaml"),
    ];
    for text in [full, off, regions, matrix].into_iter().chain(examples) {
        for document in parse(text, "file").unwrap() {
            let read = match &document {
                Document::Testnet(testnet) => {
                    Document::Testnet(crd::Testnet::of(testnet).unwrap().read().unwrap())
                }
                Document::Experiment(experiment) => {
                    Document::Experiment(crd::Experiment::of(experiment).unwrap().read().unwrap())
                }
            };
            assert_eq!(read, document);
        }
    }
}
