//! What is asked of the API server, and what its refusals mean to a person.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Service},
};
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, ListParams, LogParams, PostParams, Preconditions},
};
use netsplit_backend::{
    NodeState,
    kubernetes::{NODE_CONTAINER, TESTNET_LABEL, pod_state},
};
use netsplit_proto::control::RestartRequest;
use netsplit_spec::{Testnet, crd};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep};

use super::held::held;
use crate::{nearest, pipe::Output, problem::Usage, world::Logs};

/// Says that the command line made an object, and what for: `run` or `hand`.
pub const MADE_BY: &str = "netsplit.dev/made-by";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the end of what was deleted: pods have their time to end in order.
const GONE_DEADLINE: Duration = Duration::from_mins(2);
/// And for a pod that was started again.
const BACK_DEADLINE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(200);

/// One namespace. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
}

/// The pod of a node.
pub fn pod_name(testnet: &str, node: &str) -> String {
    format!("{testnet}-{node}")
}

impl Cluster {
    pub async fn connect(namespace: Option<String>) -> Result<Self> {
        let mut config = Config::infer()
            .await
            .map_err(|error| Usage(format!("no cluster is known: {error} (set KUBECONFIG)")))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("cannot speak to the cluster")?;
        Ok(Self { client, namespace })
    }

    pub fn testnets(&self) -> Api<crd::Testnet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn experiments(&self) -> Api<crd::Experiment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An error of the API server as a sentence that says what to do.
    pub fn explain(&self, error: kube::Error, what: &str) -> anyhow::Error {
        match &error {
            // No such kind: an object that is missing was asked for by `get_opt`.
            kube::Error::Api(status)
                if status.code == 404
                    && status.details.as_ref().is_none_or(|details| details.name.is_empty()) =>
            {
                anyhow::anyhow!(
                    "netsplit is not installed in this cluster: `helm install netsplit charts/netsplit --namespace {}`",
                    self.namespace
                )
            }
            // The object itself is at fault.
            kube::Error::Api(status) if matches!(status.code, 400 | 422) => {
                Usage(status.message.clone()).into()
            }
            kube::Error::Api(status) => anyhow::anyhow!("{what}: {}", status.message),
            _ => anyhow::Error::new(error).context(what.to_owned()),
        }
    }

    pub async fn list<K>(&self, api: &Api<K>) -> Result<Vec<K>>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let found = api.list(&ListParams::default()).await;
        Ok(found.map_err(|error| self.explain(error, "cannot list the objects"))?.items)
    }

    pub async fn create<K>(&self, api: &Api<K>, object: &K) -> Result<K>
    where
        K: Resource + Clone + Serialize + DeserializeOwned + Debug,
    {
        let made = api.create(&PostParams::default(), object).await;
        made.map_err(|error| self.explain(error, "cannot make the object"))
    }

    /// Deletes that very object, and waits until it is gone.
    pub async fn delete<K>(&self, api: &Api<K>, name: &str, uid: &str) -> Result<()>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(name, &params).await {
            Ok(_) => {}
            // Gone, or another one by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
            Err(error) => return Err(self.explain(error, "cannot delete the object")),
        }
        let deadline = Instant::now() + GONE_DEADLINE;
        while api.get_opt(name).await?.is_some_and(|found| found.meta().uid.as_deref() == Some(uid)) {
            if Instant::now() >= deadline {
                bail!("{name} was deleted, and is still there: somebody's finalizer keeps it");
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Deletes a testnet with all that it is made of, and what this command line made on it.
    pub async fn take_down(&self, name: &str) -> Result<()> {
        for experiment in self.list(&self.experiments()).await? {
            let labels = experiment.metadata.labels.as_ref();
            let is_ours = labels.is_some_and(|labels| labels.contains_key(MADE_BY));
            if let (true, Some(experiment), Some(uid)) = (
                is_ours && experiment.spec.testnet == name,
                experiment.metadata.name.as_deref(),
                experiment.metadata.uid.as_deref(),
            ) {
                self.delete(&self.experiments(), experiment, uid).await?;
            }
        }
        if let Some(found) = self.testnets().get_opt(name).await?
            && let Some(uid) = &found.metadata.uid
        {
            self.delete(&self.testnets(), name, uid).await?;
        }
        // A testnet of the same name must not find them.
        let deadline = Instant::now() + GONE_DEADLINE;
        while self.has_parts(name).await? {
            if Instant::now() >= deadline {
                bail!(
                    "testnet `{name}` was deleted, but not all of it is gone: `kubectl -n {} get pods`",
                    self.namespace
                );
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether anything is left of a testnet, of what others can see.
    async fn has_parts(&self, testnet: &str) -> Result<bool> {
        let ours = ListParams::default().labels(&format!("{TESTNET_LABEL}={testnet}"));
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(!sets.list_metadata(&ours).await?.items.is_empty()
            || !services.list_metadata(&ours).await?.items.is_empty()
            || !self.pods().list_metadata(&ours).await?.items.is_empty())
    }

    pub async fn pods_of(&self, testnet: &str) -> Result<Vec<Pod>> {
        let ours = ListParams::default().labels(&format!("{TESTNET_LABEL}={testnet}"));
        let found = self.pods().list(&ours).await;
        Ok(found.map_err(|error| self.explain(error, "cannot list the pods"))?.items)
    }

    /// Why a testnet does not come up, as far as its status tells.
    pub async fn diagnosis(&self, testnet: &str) -> String {
        let object = match self.testnets().get_opt(testnet).await {
            Ok(Some(object)) => object,
            Ok(None) => return format!("testnet `{testnet}` is not there any more"),
            Err(error) => return format!("the cluster does not answer: {error}"),
        };
        let Some(status) = object.status else { return self.no_operator("Testnet") };
        let conditions = status.conditions.iter();
        let wrong = conditions.filter(|condition| condition.status != crd::ConditionStatus::True);
        wrong.map(|condition| condition.message.clone()).collect::<Vec<_>>().join("\n")
    }

    /// Nobody has looked at an object.
    pub fn no_operator(&self, kind: &str) -> String {
        format!(
            "no operator has looked at the {kind} in namespace {}: see `kubectl get deployments --all-namespaces \
             --selector=app.kubernetes.io/name=netsplit`, and whether its `scope` covers this namespace",
            self.namespace
        )
    }

    pub async fn logs(&self, testnet: &str, wanted: &Logs) -> Result<()> {
        let pod = pod_name(testnet, &wanted.node);
        let params = LogParams {
            container: Some(NODE_CONTAINER.to_owned()),
            follow: wanted.follow,
            tail_lines: wanted.lines.map(|lines| i64::try_from(lines).unwrap_or(i64::MAX)),
            ..LogParams::default()
        };
        let log = match self.pods().log_stream(&pod, &params).await {
            Ok(log) => log,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let prefix = pod_name(testnet, "");
                let pods = self.pods_of(testnet).await?;
                let names = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()?.strip_prefix(&prefix));
                let names: Vec<String> = names.map(str::to_owned).collect();
                let hint = nearest::hint(&wanted.node, &names);
                bail!("testnet `{testnet}` has no node `{}`{hint}", wanted.node)
            }
            Err(error) => return Err(self.explain(error, "cannot read the log")),
        };
        let mut lines = log.lines();
        loop {
            let line = tokio::select! {
                line = lines.try_next() => line.context("the log broke off")?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let Some(line) = line else { return Ok(()) };
            let mut out = Output::lock();
            std::io::Write::write_all(&mut out, format!("{line}\n").as_bytes())?;
            std::io::Write::flush(&mut out)?;
        }
    }

    /// Deletes a node's pod, and waits until its successor runs with the same data.
    pub async fn restart(&self, testnet: &str, spec: &Testnet, request: &RestartRequest) -> Result<()> {
        let names = netsplit_spec::node_names(spec);
        if !names.contains(&request.node) {
            let hint = nearest::hint(&request.node, &names);
            return Err(Usage(format!("no node is called `{}`{hint}", request.node)).into());
        }
        if held(&self.list(&self.experiments()).await?, spec).contains_key(&request.node) {
            bail!("a fault holds {}: heal it first", request.node);
        }
        if spec.storage.is_none() {
            let why = "the node's data would go with its pod: give the testnet `storage: 1Gi`";
            return Err(Usage(why.to_owned()).into());
        }
        let name = pod_name(testnet, &request.node);
        let mut params = DeleteParams::default();
        if request.kill {
            params = params.grace_period(0);
        }
        let before =
            self.pods().get(&name).await.map_err(|error| self.explain(error, "cannot read the pod"))?;
        let deleted = self.pods().delete(&name, &params).await;
        deleted.map_err(|error| self.explain(error, "cannot delete the pod"))?;
        let deadline = Instant::now() + BACK_DEADLINE;
        loop {
            let now = self.pods().get_opt(&name).await?;
            let is_new = |pod: &Pod| pod.metadata.uid != before.metadata.uid;
            if now.is_some_and(|pod| is_new(&pod) && pod_state(&pod) == NodeState::Running) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} does not come back: `kubectl -n {} describe pod {name}`",
                    request.node,
                    self.namespace
                );
            }
            sleep(POLL).await;
        }
    }
}
