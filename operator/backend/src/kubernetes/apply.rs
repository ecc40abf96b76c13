//! Hands rendered objects to the API server.

use std::{collections::BTreeSet, fmt::Debug};

use futures::future::try_join_all;
use k8s_openapi::api::{
    apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet},
    core::v1::{ConfigMap, Secret, Service},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    config::{GROUP_LABEL, MANAGER, TESTNET_LABEL},
    render::Objects,
    versions::{Version, Versions, version_of},
};
use crate::backend::BackendError;

/// What the API server has after an [`apply`].
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Of every object that was applied.
    pub versions: Versions,
    /// `Kind/name` of objects of groups that are gone.
    pub deleted: Vec<String>,
    /// A group's pods are being replaced, and those of the groups after it wait for that: to be applied again.
    pub rolling: bool,
}

/// Server-side apply, as field manager `netsplit`: fields that others own are taken from them. Safe to repeat; groups that
/// are no longer rendered are deleted.
pub async fn apply(client: &Client, objects: &Objects) -> Result<Applied, BackendError> {
    let Some(namespace) = objects.service.namespace() else {
        return Err(BackendError::Invalid("the objects of a testnet name no namespace".to_owned()));
    };
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);

    // Everything that pods mount is there before the first pod.
    let (service, config_map, secrets_now) = tokio::try_join!(
        put(&services, &objects.service),
        put(&config_maps, &objects.config_map),
        try_join_all(objects.secrets.iter().map(|secret| put(&secrets, secret))),
    )?;
    let mut versions: Vec<(String, Version)> = secrets_now.iter().map(version_of).collect();
    versions.extend([version_of(&service), version_of(&config_map)]);
    // A set replaces its pods one at a time, but knows nothing of other sets: these wait for each other here, so that a
    // network of several groups of validators stays final too.
    let mut rolling = false;
    for set in &objects.stateful_sets {
        let applied = put(&sets, &in_turn(set, rolling)).await?;
        versions.push(version_of(&applied));
        rolling |= !is_settled(&applied);
    }

    let testnet = objects.service.name_any();
    let mut deleted = delete_orphans(&sets, &testnet, &objects.stateful_sets).await?;
    deleted.extend(delete_orphans(&secrets, &testnet, &objects.secrets).await?);
    Ok(Applied { versions: versions.into_iter().collect(), deleted, rolling })
}

/// A set whose pods stay as they are while it waits for others.
fn in_turn(set: &StatefulSet, waits: bool) -> StatefulSet {
    let mut set = set.clone();
    let partition = if waits { set.spec.replicas } else { Some(0) };
    if let Some(strategy) = &mut set.spec.update_strategy {
        strategy.rolling_update = Some(RollingUpdateStatefulSetStrategy {
            partition,
            ..RollingUpdateStatefulSetStrategy::default()
        });
    }
    set
}

/// All its pods are of its newest template, and were ready; or it is just being made.
fn is_settled(set: &StatefulSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let Some(observed) = status.observed_generation else { return true };
    Some(observed) >= set.metadata.generation && status.current_revision == status.update_revision
}

async fn put<K>(api: &Api<K>, object: &K) -> Result<K, BackendError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.name_any();
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .map_err(|error| api_error(format!("apply the {} {name}", K::kind(&())), error))
}

/// Deletes what carries this testnet's and some group's label and is not among the rendered.
async fn delete_orphans<K>(api: &Api<K>, testnet: &str, kept: &[K]) -> Result<Vec<String>, BackendError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kept: BTreeSet<String> = kept.iter().map(kube::ResourceExt::name_any).collect();
    let kind = K::kind(&());
    let ours = ListParams::default().labels(&format!("{TESTNET_LABEL}={testnet},{GROUP_LABEL}"));
    let found =
        api.list_metadata(&ours).await.map_err(|error| api_error(format!("list every {kind}"), error))?;
    let mut deleted = Vec::new();
    for name in found.items.iter().map(kube::ResourceExt::name_any).filter(|name| !kept.contains(name)) {
        delete(api, &name, &DeleteParams::background()).await?;
        deleted.push(format!("{kind}/{name}"));
    }
    Ok(deleted)
}

/// Deletes an object; one that is gone already is fine.
pub(super) async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> Result<(), BackendError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.delete(name, params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => {
            result.map(drop).map_err(|error| api_error(format!("delete the {} {name}", K::kind(&())), error))
        }
    }
}

/// Which of our errors an error of the API server is.
pub(super) fn api_error(what: String, error: kube::Error) -> BackendError {
    match &error {
        kube::Error::Api(status) => {
            let sentence = format!("cannot {what}: {}", status.message);
            match status.code {
                400 | 422 => BackendError::Invalid(sentence),
                401 | 403 => BackendError::Refused(sentence),
                _ => BackendError::Failed(sentence),
            }
        }
        _ => BackendError::Io { what, source: std::io::Error::other(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(generation: i64, status: &serde_json::Value) -> StatefulSet {
        let spec = serde_json::json!({ "replicas": 3, "updateStrategy": { "type": "RollingUpdate" } });
        let meta = serde_json::json!({ "name": "s", "generation": generation });
        serde_json::from_value(serde_json::json!({ "metadata": meta, "spec": spec, "status": status }))
            .unwrap()
    }

    #[test]
    fn a_set_is_settled_when_its_controller_says_so_of_what_was_applied() {
        let status = |observed: i64, current: &str| serde_json::json!({ "observedGeneration": observed, "currentRevision": current, "updateRevision": "b" });
        assert!(is_settled(&set(1, &serde_json::json!({}))), "it has no pods yet");
        assert!(is_settled(&set(2, &status(2, "b"))));
        assert!(!is_settled(&set(2, &status(2, "a"))), "pods of the old template are there");
        assert!(!is_settled(&set(3, &status(2, "b"))), "it has not been looked at");
    }

    #[test]
    fn a_set_that_waits_replaces_no_pod() {
        let partition = |waits| {
            in_turn(&set(1, &serde_json::json!({})), waits).spec.update_strategy?.rolling_update?.partition
        };
        assert_eq!((partition(true), partition(false)), (Some(3), Some(0)));
    }
}
