//! Whether a namespace of a cluster can run testnets, and this user with it.

use std::time::Duration;

use k8s_openapi::{
    api::{
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        coordination::v1::Lease,
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use netsplit_backend::local::{Check, CheckStatus};

use super::api::Cluster;

/// Sidecars that start before the node and end after it are there from this minor version of Kubernetes 1 on.
const OLDEST_MINOR: u32 = 29;
/// The Lease that operators stand for election by.
const LEADER_LEASE: &str = "netsplit-operator";
/// An operator that has not renewed its Lease for so long leads no more.
const FRESH: Duration = Duration::from_secs(15);

/// Group, resource, subresource, verb, and what does not work without.
const RIGHTS: [(&str, &str, &str, &str, &str); 12] = [
    ("netsplit.dev", "testnets", "", "create", "`up`"),
    ("netsplit.dev", "testnets", "", "delete", "`down`"),
    ("netsplit.dev", "experiments", "", "create", "`run`, `split` and `cut`"),
    ("netsplit.dev", "experiments", "", "delete", "`heal`"),
    ("", "pods", "", "list", "`status`"),
    ("", "pods", "log", "get", "`logs`"),
    ("", "pods", "proxy", "get", "each node's height in `status`"),
    ("netsplit.dev", "testnets", "", "patch", "`load`"),
    // A connection that carries more than one answer is asked for by GET; API servers from 1.35 on want `create` for it, too.
    ("", "pods", "portforward", "get", "`load`"),
    ("", "pods", "portforward", "create", "`load`"),
    ("", "pods", "exec", "get", "`exec`"),
    ("", "pods", "exec", "create", "`exec`"),
];

pub async fn examine(cluster: &Cluster) -> Vec<Check> {
    let version = version(cluster).await;
    if version.status == CheckStatus::Fail {
        return vec![version];
    }
    vec![version, kinds(cluster).await, operator(cluster).await, rights(cluster).await]
}

fn check(name: &str, status: CheckStatus, detail: String, fix: String) -> Check {
    Check { name: name.to_owned(), status, detail, fix }
}

async fn version(cluster: &Cluster) -> Check {
    let name = "API server";
    match cluster.client.apiserver_version().await {
        Err(error) => {
            let fix = "set KUBECONFIG, or choose a context: `kubectl config use-context NAME`".to_owned();
            check(name, CheckStatus::Fail, format!("it does not answer: {error}"), fix)
        }
        Ok(info) => {
            let minor: String = info.minor.chars().take_while(char::is_ascii_digit).collect();
            let is_old = minor.parse::<u32>().is_ok_and(|minor| minor < OLDEST_MINOR);
            let status = if is_old { CheckStatus::Fail } else { CheckStatus::Ok };
            let fix =
                if is_old { format!("1.{OLDEST_MINOR} is the oldest that works") } else { String::new() };
            check(name, status, format!("Kubernetes {}", info.git_version), fix)
        }
    }
}

async fn kinds(cluster: &Cluster) -> Check {
    let name = "netsplit";
    match cluster.testnets().list(&ListParams::default().limit(1)).await {
        Ok(_) => check(name, CheckStatus::Ok, "its kinds are known".to_owned(), String::new()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let fix = format!("helm install netsplit charts/netsplit --namespace {}", cluster.namespace);
            check(name, CheckStatus::Fail, "it is not installed".to_owned(), fix)
        }
        Err(error) => check(name, CheckStatus::Fail, error.to_string(), "ask for the role `edit`".to_owned()),
    }
}

async fn operator(cluster: &Cluster) -> Check {
    let name = "operator";
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let elsewhere = "one with `scope: cluster` in another namespace would do".to_owned();
    let warn = |detail: String| check(name, CheckStatus::Warn, detail, elsewhere.clone());
    match leases.get_opt(LEADER_LEASE).await {
        Err(error) => warn(format!("whether one leads here cannot be told: {error}")),
        Ok(None) => warn(format!("none is in namespace {}", cluster.namespace)),
        Ok(Some(lease)) => {
            let spec = lease.spec.unwrap_or_default();
            let holder = spec.holder_identity.unwrap_or_default();
            let age = spec.renew_time.map(|time| Timestamp::now().duration_since(time.0).unsigned_abs());
            match age {
                Some(age) if age < FRESH && !holder.is_empty() => {
                    check(name, CheckStatus::Ok, format!("{holder} leads"), String::new())
                }
                _ => warn(format!("none leads in namespace {}", cluster.namespace)),
            }
        }
    }
}

async fn rights(cluster: &Cluster) -> Check {
    let name = "your rights";
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let mut lacking = Vec::new();
    for (group, resource, subresource, verb, without) in RIGHTS {
        let asked = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()).filter(|name| !name.is_empty()),
            verb: Some(verb.to_owned()),
            namespace: Some(cluster.namespace.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(asked),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) if lacking.contains(&without) => {}
            Ok(_) => lacking.push(without),
            Err(error) => {
                let detail = format!("they cannot be told: {error}");
                return check(name, CheckStatus::Warn, detail, String::new());
            }
        }
    }
    if lacking.is_empty() {
        return check(name, CheckStatus::Ok, "every command works".to_owned(), String::new());
    }
    let fix = format!("ask for the role `edit` in namespace {}", cluster.namespace);
    check(name, CheckStatus::Fail, format!("they do not allow {}", lacking.join(", ")), fix)
}
