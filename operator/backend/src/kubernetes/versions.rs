//! What the API server has of a testnet's objects, and what of it somebody else has changed.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Secret, Service},
    },
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams};
use serde::de::DeserializeOwned;

use super::{apply::api_error, config::MANAGER};
use crate::backend::BackendError;

/// By kind and name.
pub type Versions = BTreeMap<String, Version>;

/// Of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Changes whenever anything but its status does.
    number: String,
    /// Another one for another object of the same name.
    uid: Option<String>,
    /// Who else changed it last.
    by: Option<String>,
}

/// Something that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// Kind and name.
    pub object: String,
    /// What had been done to it: `was changed by kubectl-edit`.
    pub what: String,
}

/// An object's name among the [`Versions`], and its version.
pub(super) fn version_of<K: Resource<DynamicType = ()>>(object: &K) -> (String, Version) {
    let meta = object.meta();
    // Where there is a generation, the other number changes with the status too.
    let number = meta.generation.map(|number| number.to_string()).or_else(|| meta.resource_version.clone());
    let name = format!("{} {}", K::kind(&()), object.name_any());
    (name, Version { number: number.unwrap_or_default(), uid: meta.uid.clone(), by: changed_by(meta) })
}

fn changed_by(meta: &ObjectMeta) -> Option<String> {
    let is_other = |entry: &&ManagedFieldsEntry| {
        entry.subresource.as_deref() != Some("status") && entry.manager.as_deref() != Some(MANAGER)
    };
    // A change of the scale has no time; it goes when the number is put back, so that it is new.
    let newest = |entry: &&ManagedFieldsEntry| (entry.time.is_none(), entry.time.as_ref().map(|time| time.0));
    meta.managed_fields.iter().flatten().filter(is_other).max_by_key(newest)?.manager.clone()
}

/// Of everything that a selector finds.
pub(super) async fn versions(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Versions, BackendError> {
    let (services, config_maps, secrets, sets) = tokio::try_join!(
        found::<Service>(client, namespace, selector),
        found::<ConfigMap>(client, namespace, selector),
        found::<Secret>(client, namespace, selector),
        found::<StatefulSet>(client, namespace, selector),
    )?;
    Ok(services.into_iter().chain(config_maps).chain(secrets).chain(sets).collect())
}

async fn found<K>(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<(String, Version)>, BackendError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let listed = api.list_metadata(&ListParams::default().labels(selector)).await;
    let listed = listed.map_err(|error| api_error(format!("list every {}", K::kind(&())), error))?;
    Ok(listed.items.iter().map(version_of).collect())
}

/// Whether everything that was applied is there as it was.
pub fn is_untouched(applied: &Versions, found: &Versions) -> bool {
    let same =
        |(object, was): (&String, &Version)| found.get(object).is_some_and(|now| now.number == was.number);
    applied.iter().all(same)
}

/// What a second application has put back: `found` was seen just before it, and `after` is what it left. While pods are
/// replaced, sets are applied differently from time to time: `rolling`.
pub fn put_back(applied: &Versions, found: &Versions, after: &Versions, rolling: bool) -> Vec<PutBack> {
    let set = format!("{} ", StatefulSet::kind(&()));
    let one = |(object, was): (&String, &Version)| {
        let after = after.get(object)?;
        let what = match found.get(object) {
            None => "was gone".to_owned(),
            // Nobody changed it, or only what is not ours in it, or somebody changed it back.
            Some(now) if now.number == after.number && now.uid == after.uid => return None,
            Some(now) if now.uid != after.uid => "was gone".to_owned(),
            // To apply the same again changes nothing: it was changed after it was found, and nobody knows by whom.
            Some(now) if now.number == was.number => {
                if rolling && object.starts_with(&set) {
                    return None;
                }
                "was changed".to_owned()
            }
            Some(Version { by: Some(by), .. }) => format!("was changed by {by}"),
            Some(_) => "was changed".to_owned(),
        };
        Some(PutBack { object: object.clone(), what })
    };
    applied.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(all: &[(&str, &str, Option<&str>)]) -> Versions {
        let one = |(name, number, by): &(&str, &str, Option<&str>)| {
            (
                (*name).to_owned(),
                Version { number: (*number).to_owned(), uid: None, by: by.map(str::to_owned) },
            )
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn what_is_changed_after_the_look_is_told_unless_it_may_be_our_own_doing() {
        let applied = versions(&[("ConfigMap c", "1", None), ("StatefulSet s", "1", None)]);
        let mut after = versions(&[("ConfigMap c", "3", None), ("StatefulSet s", "2", None)]);
        let told = |after: &Versions, rolling| -> Vec<(String, String)> {
            let all = put_back(&applied, &applied, after, rolling);
            all.into_iter().map(|back| (back.object, back.what)).collect()
        };
        let one = |object: &str, what: &str| (object.to_owned(), what.to_owned());
        let (map, set) = (one("ConfigMap c", "was changed"), one("StatefulSet s", "was changed"));
        assert_eq!(told(&after, true), std::slice::from_ref(&map));
        assert_eq!(told(&after, false), [map, set]);
        for version in after.values_mut() {
            version.uid = Some("another".to_owned());
        }
        assert_eq!(told(&after, true), [one("ConfigMap c", "was gone"), one("StatefulSet s", "was gone")]);
    }

    #[test]
    fn only_what_was_changed_and_is_ours_was_put_back() {
        let applied =
            versions(&[("A a", "1", None), ("B b", "1", None), ("C c", "1", None), ("D d", "1", None)]);
        let found = versions(&[
            ("A a", "1", None),
            ("B b", "2", Some("me")),
            ("C c", "2", Some("me")),
            ("E e", "1", None),
        ]);
        let after = versions(&[
            ("A a", "1", None),
            ("B b", "3", Some("me")),
            ("C c", "2", Some("me")),
            ("D d", "9", None),
        ]);
        assert!(!is_untouched(&applied, &found) && is_untouched(&applied, &applied));
        let told: Vec<(String, String)> = put_back(&applied, &found, &after, false)
            .into_iter()
            .map(|back| (back.object, back.what))
            .collect();
        let text = |object: &str, what: &str| (object.to_owned(), what.to_owned());
        assert_eq!(told, [text("B b", "was changed by me"), text("D d", "was gone")]);
    }

    #[test]
    fn who_changed_it_is_the_last_other_manager() {
        let set: StatefulSet = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "s", "generation": 4, "resourceVersion": "77", "managedFields": [
                { "manager": "netsplit", "time": "2026-01-01T00:00:09Z" },
                { "manager": "kubectl-edit", "time": "2026-01-01T00:00:02Z" },
                { "manager": "helm", "time": "2026-01-01T00:00:01Z" },
                { "manager": "kube-controller-manager", "subresource": "status", "time": "2026-01-01T00:00:10Z" },
            ] },
        }))
        .unwrap();
        let by = |name: &str| Version { number: "4".to_owned(), uid: None, by: Some(name.to_owned()) };
        assert_eq!(version_of(&set), ("StatefulSet s".to_owned(), by("kubectl-edit")));
        let mut scaled = set.clone();
        scaled.metadata.managed_fields.as_mut().unwrap().push(ManagedFieldsEntry {
            manager: Some("kubectl".to_owned()),
            subresource: Some("scale".to_owned()),
            ..ManagedFieldsEntry::default()
        });
        assert_eq!(version_of(&scaled).1, by("kubectl"));
        let map: ConfigMap = serde_json::from_value(
            serde_json::json!({ "metadata": { "name": "c", "resourceVersion": "78" } }),
        )
        .unwrap();
        assert_eq!(version_of(&map).1, Version { number: "78".to_owned(), uid: None, by: None });
    }
}
