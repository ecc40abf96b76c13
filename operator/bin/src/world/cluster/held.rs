//! Nodes that faults hold, as the objects of the experiments tell: a pod's container runs on, since its first process is
//! the node's keeper.

use std::collections::BTreeMap;

use netsplit_spec::{NodeFault, Testnet, ValidFaultKind, crd, node_names};

/// What is proven to be done to which node of a testnet now.
pub fn held(experiments: &[crd::Experiment], testnet: &Testnet) -> BTreeMap<String, NodeFault> {
    let names = node_names(testnet);
    let mut held = BTreeMap::new();
    for object in experiments {
        let Some(status) = object.status.as_ref().filter(|status| status.finished_at.is_none()) else {
            continue;
        };
        let Ok(spec) = object.read() else { continue };
        if spec.testnet != testnet.name {
            continue;
        }
        let Ok(valid) = netsplit_spec::validate(&spec, testnet) else { continue };
        let is_proven =
            |id: &str| status.faults.iter().any(|fault| fault.id == id && fault.state == "proven");
        for fault in valid.faults.iter().filter(|fault| is_proven(&fault.id)) {
            let ValidFaultKind::Nodes { what, nodes } = &fault.kind else { continue };
            for name in nodes.iter().filter_map(|node| names.get(*node)) {
                // Of several faults the one that leaves least of it counts.
                let strongest = held.entry(name.clone()).or_insert(*what);
                *strongest = (*strongest).max(*what);
            }
        }
    }
    held
}

/// As the state of a node is told on one machine.
pub fn word(what: NodeFault) -> &'static str {
    match what {
        NodeFault::Pause => "paused",
        NodeFault::Restart => "exited",
        NodeFault::Kill => "killed (9)",
    }
}

#[cfg(test)]
mod tests {
    use netsplit_spec::Document;

    use super::*;

    #[test]
    fn only_what_is_proven_and_not_over_holds_a_node() {
        let text = include_str!("../../../../../examples/quickstart.yaml");
        let Document::Testnet(testnet) = netsplit_spec::parse(text, "quickstart.yaml").unwrap().remove(0)
        else {
            panic!("quickstart.yaml starts with its testnet")
        };
        let faults: Vec<_> = ["proven", "proven", "healing"]
            .iter()
            .enumerate()
            .map(|(place, state)| {
                let id = format!("fault-{place}");
                serde_json::json!({ "id": id, "state": state, "links": 0, "dropped": 0, "evidence": "" })
            })
            .collect();
        let mut object: crd::Experiment = serde_json::from_value(serde_json::json!({
            "apiVersion": "netsplit.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": { "name": "held" },
            "spec": {
                "testnet": "quickstart",
                "faults": [
                    { "at": "0", "for": "1h", "pause": ["validator-0", "validator-1"] },
                    { "at": "0", "for": "1h", "kill": ["validator-1"] },
                    { "at": "0", "for": "1h", "restart": ["full"] },
                ],
            },
            "status": { "faults": faults },
        }))
        .unwrap();
        let both = BTreeMap::from([
            ("validator-0".to_owned(), NodeFault::Pause),
            ("validator-1".to_owned(), NodeFault::Kill),
        ]);
        assert_eq!(held(std::slice::from_ref(&object), &testnet), both);
        object.status.as_mut().unwrap().finished_at = Some("2026-01-01T00:00:15Z".to_owned());
        assert!(held(&[object], &testnet).is_empty());
    }
}
