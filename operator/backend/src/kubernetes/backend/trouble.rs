//! Why a node does not run, in words for a person: what stands in the way, and what to do about it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt as _;

use crate::kubernetes::config::NODE_CONTAINER;

/// What keeps a pod from running its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence: the pod, what stands in the way, what to do.
    pub message: String,
}

/// What passes sooner is no trouble: a volume that is just being made, a pod that is just being placed.
const LASTS: Duration = Duration::from_secs(2);

/// Since when there is trouble of one kind.
#[derive(Debug, Default)]
pub(super) struct Lasting(Option<(&'static str, Instant)>);

impl Lasting {
    /// The trouble, if there has been one of its kind for long enough.
    pub(super) fn see(&mut self, trouble: Option<Trouble>, now: Instant) -> Option<Trouble> {
        let reason = trouble.as_ref().map(|trouble| trouble.reason);
        if self.0.map(|(reason, _)| reason) != reason {
            self.0 = reason.map(|reason| (reason, now));
        }
        let (_, since) = self.0?;
        trouble.filter(|_| now.saturating_duration_since(since) >= LASTS)
    }
}

impl Trouble {
    fn new(reason: &'static str, pod: &str, what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { reason, message: format!("pod {pod} {what}: {advice}") }
    }

    /// Of a pod that the API server would not take, by its own words.
    pub(super) fn refused(pod: &str, why: &str) -> Self {
        if why.contains("exceeded quota") {
            let advice = "raise the namespace's ResourceQuota, or ask for fewer nodes";
            return Self::new("QuotaExceeded", pod, format_args!("is refused ({why})"), advice);
        }
        let advice = "change what refuses it, or put the testnet into another namespace";
        Self::new("PodRefused", pod, format_args!("is refused ({why})"), advice)
    }

    /// Of a pod that the API server would take, and that is not made all the same.
    pub(super) fn not_made(pod: &str, set: &str) -> Self {
        let advice = format!("`kubectl describe statefulset {set}` says why");
        Self::new("PodMissing", pod, "has not been made", advice)
    }

    /// Of a pod that is there; none if nothing but time stands in the way.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let name = pod.name_any();
        containers(pod).find_map(|status| waiting(&name, status)).or_else(|| unscheduled(&name, pod))
    }
}

/// The agent's first: the node waits for it.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let agents = status.and_then(|status| status.init_container_statuses.as_ref());
    let nodes = status.and_then(|status| status.container_statuses.as_ref());
    agents.into_iter().chain(nodes).flatten()
}

fn waiting(pod: &str, status: &ContainerStatus) -> Option<Trouble> {
    let ContainerState { waiting: Some(waiting), .. } = status.state.as_ref()? else { return None };
    let said = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            // Kubelet's own words differ from one attempt to the next.
            let what = format!("cannot get the image {}", status.image);
            let advice = "push it there, load it into the cluster's nodes, or name another one \
                          (`helm upgrade --set image.registry=..., image.tag=...`)";
            Some(Trouble::new("ImageMissing", pod, what, advice))
        }
        "CrashLoopBackOff" => {
            let what = format!("ends again and again ({})", ended(status));
            let container = &status.name;
            let advice = format!("`kubectl logs {pod} -c {container} --previous` says why");
            let reason = if container == NODE_CONTAINER { "NodeCrashes" } else { "AgentCrashes" };
            Some(Trouble::new(reason, pod, what, advice))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let what = format!("cannot be started ({said})");
            Some(Trouble::new("NotStarted", pod, what, format_args!("see `kubectl describe pod {pod}`")))
        }
        _ => None,
    }
}

fn ended(status: &ContainerStatus) -> String {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    match last {
        Some(last) => format!("the last time with exit code {}", last.exit_code),
        None => "it is not known how".to_owned(),
    }
}

fn unscheduled(name: &str, pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let said = found.message.as_deref().unwrap_or_default();
    let waits = said.to_lowercase();
    if waits.contains("persistentvolumeclaim") || waits.contains("persistent volume") {
        let advice = "make a default StorageClass or a PersistentVolume that fits, or leave `storage` out of the testnet";
        return Some(Trouble::new(
            "VolumePending",
            name,
            format_args!("waits for its volume ({said})"),
            advice,
        ));
    }
    let advice = "give the cluster more room, or ask for fewer nodes";
    Some(Trouble::new("Unschedulable", name, format_args!("finds no place ({said})"), advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(status: &serde_json::Value) -> Option<Trouble> {
        let pod = serde_json::json!({ "metadata": { "name": "net-full-0" }, "status": status });
        Trouble::of(&serde_json::from_value(pod).unwrap())
    }

    fn waits(name: &str, reason: &str, message: &str) -> serde_json::Value {
        serde_json::json!({
            "name": name, "image": "here/it:1", "imageID": "", "ready": false, "restartCount": 3,
            "state": { "waiting": { "reason": reason, "message": message } },
            "lastState": { "terminated": { "exitCode": 2 } },
        })
    }

    fn node(reason: &str) -> serde_json::Value {
        serde_json::json!({ "containerStatuses": [waits("node", reason, "because")] })
    }

    fn unplaced(message: &str) -> serde_json::Value {
        let no = serde_json::json!({ "type": "PodScheduled", "status": "False", "message": message });
        serde_json::json!({ "conditions": [no] })
    }

    #[test]
    fn every_trouble_names_the_pod_and_what_to_do() {
        let crashed = "(the last time with exit code 2): `kubectl logs net-full-0 -c node";
        let cases = [
            (node("ErrImagePull"), "ImageMissing", "cannot get the image here/it:1: push it there"),
            (node("ImagePullBackOff"), "ImageMissing", "cannot get the image here/it:1: push it there"),
            (node("CrashLoopBackOff"), "NodeCrashes", crashed),
            (node("CreateContainerError"), "NotStarted", "(because): see `kubectl describe pod net-full-0`"),
            (unplaced("unbound immediate PersistentVolumeClaims"), "VolumePending", "default StorageClass"),
            (unplaced("no available persistent volumes"), "VolumePending", "default StorageClass"),
            (unplaced("1 Insufficient cpu."), "Unschedulable", "give the cluster more room"),
        ];
        for (status, reason, text) in cases {
            let trouble = trouble(&status).unwrap();
            assert_eq!(trouble.reason, reason);
            assert!(trouble.message.starts_with("pod net-full-0 "), "{trouble:?}");
            assert!(trouble.message.contains(text), "{trouble:?}");
        }
    }

    #[test]
    fn the_agent_comes_first_and_waiting_alone_is_no_trouble() {
        let both = serde_json::json!({
            "initContainerStatuses": [waits("agent", "CrashLoopBackOff", "")],
            "containerStatuses": [waits("node", "PodInitializing", "")],
        });
        assert_eq!(trouble(&both).unwrap().reason, "AgentCrashes");
        assert_eq!(trouble(&node("ContainerCreating")), None);
        assert_eq!(trouble(&serde_json::json!({})), None);
    }

    #[test]
    fn what_passes_soon_is_not_told() {
        let trouble = |reason, text: &str| Some(Trouble { reason, message: text.to_owned() });
        let start = Instant::now();
        let mut seen = Lasting::default();
        let mut at = |ms: u64, trouble| seen.see(trouble, start + Duration::from_millis(ms));
        assert_eq!(at(0, trouble("VolumePending", "a")), None);
        assert_eq!(at(1_999, trouble("VolumePending", "a")), None);
        assert_eq!(
            at(2_000, trouble("VolumePending", "b")),
            trouble("VolumePending", "b"),
            "whatever its words"
        );
        assert_eq!(at(2_100, trouble("ImageMissing", "c")), None, "another kind");
        assert_eq!(at(2_200, None), None);
        assert_eq!(at(4_200, trouble("ImageMissing", "c")), None, "it was gone in between");
        assert_eq!(at(6_200, trouble("ImageMissing", "c")), trouble("ImageMissing", "c"));
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let quota = Trouble::refused("p", "pods \"p\" is forbidden: exceeded quota: small, limited: pods=3");
        assert_eq!(quota.reason, "QuotaExceeded");
        assert!(quota.message.contains("limited: pods=3): raise"), "{quota:?}");
        assert_eq!(Trouble::refused("p", "admission webhook denied the request").reason, "PodRefused");
    }
}
