//! The testnet's pods, followed by a watch.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::Arc,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::watch;

use super::trouble::Trouble;
use crate::{
    backend::{NodeState, NodeStatus},
    kubernetes::{
        config::{KubernetesConfig, NODE_CONTAINER},
        tables::{Member, TestnetLinks},
    },
};

/// Reasons to wait that do not go away by waiting.
const FAILURES: [&str; 7] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// All pods, by name.
#[derive(Debug, Clone, Default)]
pub struct Pods {
    /// Whether all that were there at first are known.
    pub listed: bool,
    by_name: BTreeMap<String, Arc<Pod>>,
    /// How often a pod was seen to be replaced.
    replaced: BTreeMap<String, u32>,
}

impl Pods {
    fn put(&mut self, pod: Pod) {
        let name = pod.name_any();
        let new = pod.uid();
        if let Some(old) = self.by_name.insert(name.clone(), Arc::new(pod))
            && old.uid() != new
        {
            *self.replaced.entry(name).or_default() += 1;
        }
    }

    /// A pod that is gone stays known by its name until the next one comes: that is how a replacement shows.
    fn remove(&mut self, pod: &Pod) {
        let name = pod.name_any();
        if self.by_name.get(&name).is_some_and(|known| known.uid() == pod.uid()) {
            self.by_name.remove(&name);
            *self.replaced.entry(name).or_default() += 1;
        }
    }

    /// These are all that there are now.
    fn put_all(&mut self, listing: BTreeMap<String, Pod>) {
        let known = self.by_name.iter().filter(|(name, _)| !listing.contains_key(*name));
        let gone: Vec<Arc<Pod>> = known.map(|(_, pod)| Arc::clone(pod)).collect();
        for pod in gone {
            self.remove(&pod);
        }
        for pod in listing.into_values() {
            self.put(pod);
        }
        self.listed = true;
    }

    /// Where a pod's ports are reached.
    pub fn address(&self, pod: &str) -> Option<IpAddr> {
        self.by_name.get(pod)?.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
    }

    /// Every node as its pod shows it.
    pub fn statuses(&self, config: &KubernetesConfig) -> Vec<NodeStatus> {
        config
            .node_names()
            .map(|node| {
                let name = config.pod_name(&node);
                let pod = self.by_name.get(&name);
                let crashed = pod.map_or(0, |pod| restarts(pod));
                NodeStatus {
                    state: pod.map_or(NodeState::Starting, |pod| state(pod)),
                    pid: None,
                    address: self.address(&name).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                    restarts: crashed + self.replaced.get(&name).copied().unwrap_or(0),
                    paused: false,
                    held: None,
                    name: node,
                }
            })
            .collect()
    }

    /// The first one that something keeps from running its node.
    pub(super) fn trouble(&self, config: &KubernetesConfig) -> Option<Trouble> {
        config.node_names().find_map(|node| Trouble::of(self.by_name.get(&config.pod_name(&node))?))
    }

    /// The first node that has no pod.
    pub(super) fn missing(&self, config: &KubernetesConfig) -> Option<String> {
        let has_none = |node: &String| !self.by_name.contains_key(&config.pod_name(node));
        config.node_names().filter(|_| self.listed).find(has_none)
    }

    pub(super) fn members(&self, config: &KubernetesConfig) -> Vec<Member> {
        config
            .node_names()
            .map(|node| {
                let name = config.pod_name(&node);
                let pod = self.by_name.get(&name);
                let address = self.address(&name).and_then(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                });
                Member {
                    node,
                    uid: pod.and_then(|pod| pod.uid()),
                    address,
                    running: pod.is_some_and(|pod| state(pod) == NodeState::Running),
                    pod: name,
                }
            })
            .collect()
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == NODE_CONTAINER)
}

/// How often the node's process was started again in its pod.
pub fn restarts(pod: &Pod) -> u32 {
    container(pod).map_or(0, |status| status.restart_count.unsigned_abs())
}

/// What is known of the node's process.
pub fn state(pod: &Pod) -> NodeState {
    let status = pod.status.as_ref();
    let all = |statuses: Option<&Vec<ContainerStatus>>| statuses.cloned().unwrap_or_default();
    let agents = all(status.and_then(|status| status.init_container_statuses.as_ref()));
    let node = container(pod).and_then(|status| status.state.clone()).unwrap_or_default();
    if node.running.is_some() {
        return NodeState::Running;
    }
    if let Some(ended) = &node.terminated {
        return NodeState::Exited {
            code: ended.signal.is_none_or(|signal| signal == 0).then_some(ended.exit_code),
            signal: ended.signal.filter(|signal| *signal != 0),
        };
    }
    if let Some(reason) =
        agents.iter().filter_map(|status| status.state.as_ref()).chain([&node]).find_map(failure)
    {
        return NodeState::Failed { reason };
    }
    if let Some(last) = container(pod).and_then(|status| status.last_state.as_ref()?.terminated.as_ref()) {
        return NodeState::Exited {
            code: last.signal.is_none_or(|signal| signal == 0).then_some(last.exit_code),
            signal: last.signal.filter(|signal| *signal != 0),
        };
    }
    let unscheduled = status.and_then(|status| {
        let conditions = status.conditions.as_ref()?;
        let found = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        Some(format!("{}: {}", found.reason.as_deref()?, found.message.as_deref().unwrap_or_default()))
    });
    unscheduled.map_or(NodeState::Starting, |reason| NodeState::Failed { reason })
}

fn failure(state: &ContainerState) -> Option<String> {
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| FAILURES.contains(reason))?;
    Some(match &waiting.message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    })
}

/// Follows the pods for as long as somebody looks, and tells the hub.
pub(super) async fn follow(
    client: Client,
    mut configs: watch::Receiver<KubernetesConfig>,
    links: Option<Arc<TestnetLinks>>,
    seen: watch::Sender<Pods>,
) {
    let (namespace, selector) = {
        let config = configs.borrow();
        (config.namespace.clone(), config.selector())
    };
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let events = watcher(api, watcher::Config::default().labels(&selector)).default_backoff();
    let mut events = pin!(events);
    let mut listing = BTreeMap::new();
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Err(error)) => tracing::warn!(%error, "the pods cannot be watched"),
                Some(Ok(event)) => seen.send_modify(|pods| match event {
                    Event::Init => listing.clear(),
                    Event::InitApply(pod) => drop(listing.insert(pod.name_any(), pod)),
                    Event::InitDone => pods.put_all(std::mem::take(&mut listing)),
                    Event::Apply(pod) => pods.put(pod),
                    Event::Delete(pod) => pods.remove(&pod),
                }),
            },
            changed = configs.changed() => if changed.is_err() { return },
        }
        if let Some(links) = &links
            && seen.borrow().listed
        {
            let members = seen.borrow().members(&configs.borrow_and_update());
            if links.set_members(members).is_err() {
                // Another leader's now.
                return;
            }
        }
    }
}
