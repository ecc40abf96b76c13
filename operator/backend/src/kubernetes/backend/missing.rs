//! Pods that their StatefulSet does not make: whether they would be taken now, and a word to its controller when they would.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};

use super::{KubernetesBackend, trouble::Trouble};
use crate::kubernetes::{config::MANAGER, dry_run::would_take};

/// A pod that is replaced is missing for a moment.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);
/// How often it is asked while one is missing.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// A pod that would be taken, and is not made for so long, is missing for a reason that only its set's events tell.
const MADE_WITHIN: Duration = Duration::from_secs(20);
/// A change that the set's controller sees, and that changes nothing else.
const REMINDED: &str = "netsplit.dev/reminded";

/// What was seen of missing pods so far.
#[derive(Debug, Default)]
pub(super) struct Missing {
    since: Option<Instant>,
    asked: Option<Instant>,
    trouble: Option<Trouble>,
}

impl KubernetesBackend {
    /// Why pods are missing, if any are for longer than it takes to replace one. To be called again and again.
    pub(super) async fn missing(&self, seen: &mut Missing) -> Option<Trouble> {
        let config = self.config();
        let Some(node) = self.pods.borrow().missing(&config) else {
            *seen = Missing::default();
            return None;
        };
        let since = *seen.since.get_or_insert_with(Instant::now);
        let is_time = seen.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
        if since.elapsed() < REPLACED_WITHIN || !is_time {
            return seen.trouble.clone();
        }
        seen.asked = Some(Instant::now());
        let pod = config.pod_name(&node);
        let of_node = |set: &&StatefulSet| {
            let ordinal = pod.strip_prefix(&set.name_any()).and_then(|rest| rest.strip_prefix('-'));
            ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok())
        };
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Nothing was applied yet: what stands in the way of that is told elsewhere.
        let set = sets.iter().find(of_node)?;
        seen.trouble = match would_take(&self.client, set, &pod).await {
            Ok(()) => {
                self.remind(set).await;
                (since.elapsed() >= MADE_WITHIN).then(|| Trouble::not_made(&pod, &set.name_any()))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                Some(Trouble::refused(&pod, &status.message))
            }
            Err(error) => {
                tracing::debug!(%error, pod, "cannot ask whether it would be taken");
                seen.trouble.take()
            }
        };
        seen.trouble.clone()
    }

    /// The controller of StatefulSets tries again after pauses that double up to a quarter of an hour; a changed set it
    /// looks at at once.
    async fn remind(&self, set: &StatefulSet) {
        let name = set.name_any();
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.config().namespace);
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let patch = serde_json::json!({ "metadata": { "annotations": { REMINDED: now } } });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        if let Err(error) = api.patch_metadata(&name, &params, &Patch::Merge(patch)).await {
            tracing::debug!(%error, set = name, "cannot remind its controller");
        }
    }
}
