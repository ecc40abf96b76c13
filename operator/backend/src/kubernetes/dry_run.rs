//! Asks the API server whether it would take a pod, without making one.

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};

/// An error is the server's refusal, or that it could not be asked.
pub async fn would_take(client: &Client, set: &StatefulSet, pod: &str) -> kube::Result<()> {
    let template = set.spec.template.clone();
    let namespace = set.metadata.namespace.clone();
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(pod.to_owned()),
            namespace: namespace.clone(),
            ..template.metadata.unwrap_or_default()
        },
        spec: template.spec,
        status: None,
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace.unwrap_or_default());
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match pods.create(&params, &pod).await {
        // It took this very one.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        answer => answer.map(drop),
    }
}
