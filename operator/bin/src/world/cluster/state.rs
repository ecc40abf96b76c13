//! A testnet as `netsplit status` tells of it, from its object, its pods and its nodes themselves.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use futures::{StreamExt as _, stream};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use netsplit_backend::{
    NodeState,
    kubernetes::{pod_restarts, pod_state},
};
use netsplit_plan::{PlannedNode, plan_testnet};
use netsplit_proto::control::{Fault, Node, Testnet as State};
use netsplit_spec::{FaultKind, crd};

use super::{
    api::{Cluster, MADE_BY, pod_name},
    faults::UNTIL_HEALED,
    held::{held, word},
};
use crate::{quality, session::faults::USER};

/// Nodes that are asked at a time, and how long one may take.
const ASKED_AT_ONCE: usize = 16;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node tells of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Metrics {
    height: u64,
    final_height: u64,
    peers: u32,
}

pub async fn look(cluster: &Cluster, object: &crd::Testnet) -> Result<State> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let phase = if object.metadata.deletion_timestamp.is_some() {
        "stopping"
    } else {
        phase_word(status.phase.as_deref())
    };
    let mut state = State {
        protocol: 1,
        name: name.clone(),
        state: phase.to_owned(),
        problem: status.problem.clone().unwrap_or_default(),
        experiment: status.experiment.clone().unwrap_or_default(),
        started_ms: object.metadata.creation_timestamp.as_ref().map_or(0, |time| unix_ms(time.0)),
        ..State::default()
    };
    let Ok(spec) = object.read() else { return Ok(state) };
    let plan = plan_testnet(&spec);
    let ports = netsplit_chains::of(plan.chain).ports();
    let pods: HashMap<String, Pod> = cluster
        .pods_of(&name)
        .await?
        .into_iter()
        .filter_map(|pod| Some((pod.metadata.name.clone()?, pod)))
        .collect();
    let experiments = cluster.list(&cluster.experiments()).await?;
    let held = held(&experiments, &spec);
    // Before it is ready not every node answers, and nobody asks for heights. Who is held would be waited for in vain.
    let is_up = matches!(phase, "running" | "degraded");
    let answers = |node: &PlannedNode| is_up && !held.contains_key(&node.name);
    let asked: Vec<Option<String>> = plan
        .nodes
        .iter()
        .map(|node| Some(pod_name(&name, &node.name)).filter(|pod| answers(node) && pods.contains_key(pod)))
        .collect();
    let ask = |pod: Option<String>| async move { metrics(cluster, &pod?, ports.http).await };
    let told: Vec<Option<Metrics>> = stream::iter(asked).map(ask).buffered(ASKED_AT_ONCE).collect().await;
    // Who may not ask the nodes still knows from the status that each of them holds a final block.
    let floor = if phase == "running" { status.final_height.unsigned_abs() } else { 0 };
    let node_state = |name: &str, pod: Option<&Pod>| match pod.map(pod_state) {
        None => "starting".to_owned(),
        Some(NodeState::Running) if held.contains_key(name) => word(held[name]).to_owned(),
        Some(state) => state.to_string(),
    };
    let node = |(node, told): (&PlannedNode, Option<Metrics>)| {
        let pod = pods.get(&pod_name(&name, &node.name));
        let told = told.unwrap_or(Metrics { height: floor, final_height: floor, peers: 0 });
        let host = format!("{}.{name}.{}.svc", pod_name(&name, &node.name), cluster.namespace);
        Node {
            name: node.name.clone(),
            role: node.role.as_str().to_owned(),
            state: node_state(&node.name, pod),
            // Of a process of another machine.
            pid: 0,
            address: pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone()).unwrap_or_default(),
            height: told.height,
            final_height: told.final_height,
            peers: told.peers,
            restarts: pod.map_or(0, pod_restarts),
            api: format!("{host}:{}", ports.api),
            http: format!("{host}:{}", ports.http),
        }
    };
    state.nodes = plan.nodes.iter().zip(told).map(node).collect();
    state.faults =
        experiments.iter().filter(|object| object.spec.testnet == name).flat_map(faults_of).collect();
    Ok(state)
}

fn phase_word(phase: Option<&str>) -> &'static str {
    match phase {
        Some("Running") => "running",
        Some("Degraded") => "degraded",
        Some("Invalid") => "failed",
        _ => "starting",
    }
}

/// The faults of an experiment that are not over.
pub fn faults_of(object: &crd::Experiment) -> Vec<Fault> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let by_hand =
        object.metadata.labels.as_ref().and_then(|labels| labels.get(MADE_BY)).is_some_and(|by| by == "hand");
    let owner = if by_hand { USER.to_owned() } else { name.clone() };
    let Some(status) = object.status.as_ref().filter(|status| status.finished_at.is_none()) else {
        return Vec::new();
    };
    let spec = object.read().ok();
    let fault = |(place, fault): (usize, &crd::FaultStatus)| {
        let since_ms = fault.applied_at.as_deref().map_or(0, of_rfc3339);
        let asked = spec.as_ref().and_then(|spec| {
            spec.faults.iter().enumerate().find(|(n, asked)| {
                asked.name.as_ref().map_or(fault.id == format!("fault-{n}"), |name| *name == fault.id)
            })
        });
        let lasts = asked.map(|(_, asked)| asked.lasts).filter(|lasts| *lasts < UNTIL_HEALED);
        let words = asked.map(|(_, asked)| super::faults::describe(&asked.kind));
        Fault {
            id: if by_hand && place == 0 { name.clone() } else { format!("{name}/{}", fault.id) },
            description: words.unwrap_or_else(|| fault.id.clone()),
            owner: owner.clone(),
            since_ms,
            until_ms: lasts.map_or(0, |lasts| since_ms + lasts.as_millis() as u64),
            state: fault.state.clone(),
            links: fault.links.unsigned_abs(),
            dropped: fault.dropped.unsigned_abs(),
            evidence: fault.evidence.clone(),
            quality: asked.and_then(|(_, asked)| match &asked.kind {
                FaultKind::Link { link } => Some(quality::to_proto(link.links)),
                _ => None,
            }),
        }
    };
    let active = status.faults.iter().enumerate().filter(|(_, fault)| fault.healed_at.is_none());
    active.map(fault).collect()
}

/// Asks a node through the API server. None, if the caller may not or the node does not answer.
async fn metrics(cluster: &Cluster, pod: &str, port: u16) -> Option<Metrics> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy/metrics", cluster.namespace);
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, cluster.client.request_text(request)).await;
    let text =
        answer.ok()?.inspect_err(|error| tracing::debug!(pod, %error, "a node cannot be asked")).ok()?;
    Some(read_metrics(&text))
}

fn read_metrics(text: &str) -> Metrics {
    let gauge = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    Metrics {
        height: gauge("netsplit_consensus_height"),
        final_height: gauge("netsplit_chain_height"),
        peers: gauge("netsplit_peer_sessions") as u32,
    }
}

/// 0 for a time that the API server would not write.
pub fn of_rfc3339(text: &str) -> u64 {
    text.parse::<Timestamp>().map_or(0, unix_ms)
}

fn unix_ms(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_by_its_metrics() {
        let text = "# HELP netsplit_chain_height Height\nnetsplit_chain_height 41\nnetsplit_chain_height_other 7\n\
                    netsplit_consensus_height 42\nnetsplit_peer_sessions 5\n";
        assert_eq!(read_metrics(text), Metrics { height: 42, final_height: 41, peers: 5 });
        assert_eq!(read_metrics(""), Metrics::default());
    }

    #[test]
    fn faults_that_are_over_are_no_faults() {
        let mut object: crd::Experiment = serde_json::from_value(serde_json::json!({
            "apiVersion": "netsplit.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": { "name": "two" },
            "spec": {
                "testnet": "net",
                "faults": [
                    { "at": "0", "for": "5s", "partition": [["a"], ["b"]] },
                    { "at": "9s", "for": "5s", "cut": { "from": ["a"], "to": ["b"], "oneWay": true } },
                ],
            },
            "status": {
                "faults": [
                    { "id": "fault-0", "state": "open", "links": 2, "dropped": 3, "evidence": "e",
                      "appliedAt": "2026-01-01T00:00:00Z", "healedAt": "2026-01-01T00:00:05Z" },
                    { "id": "fault-1", "state": "proven", "links": 1, "dropped": 4, "evidence": "e",
                      "appliedAt": "2026-01-01T00:00:09.250Z" },
                ],
            },
        }))
        .unwrap();
        let faults = faults_of(&object);
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert_eq!((fault.id.as_str(), fault.owner.as_str()), ("two/fault-1", "two"));
        assert_eq!((fault.description.as_str(), fault.until_ms - fault.since_ms), ("a -> b", 5_000));
        assert_eq!(fault.since_ms % 1_000, 250);
        object.status.as_mut().unwrap().finished_at = Some("2026-01-01T00:00:15Z".to_owned());
        assert!(faults_of(&object).is_empty());
    }
}
