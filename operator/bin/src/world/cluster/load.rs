//! Transfers by hand. They are sent from here, each over a connection that the API server forwards to its node's port, as `kubectl
//! port-forward` does.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use netsplit_chains::{Connector, Io};
use netsplit_plan::plan_testnet;
use netsplit_proto::control::{LoadProgress, RunLoadRequest};
use netsplit_spec::{Testnet, crd};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;

use super::api::{Cluster, pod_name};
use crate::{
    by_hand::{LEASE, LOAD_MADE_WAY, MARK, Mark},
    problem::Usage,
    progress::to_progress,
    session::{self, LoadSlot},
    world::Told,
};

/// Reports that may wait for a slow reader.
const PENDING: usize = 64;
/// Longest wait until the testnet's own load has ended: what it has sent has its time to become final.
const MADE_WAY_WITHIN: Duration = Duration::from_secs(20);
/// Others write the object, too: longest wait for a moment in which nobody else does.
const MARKED_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// Returns when the transfers may begin. They end when what is told is dropped.
pub async fn begin(
    cluster: &Cluster,
    testnet: &Testnet,
    request: RunLoadRequest,
) -> Result<Told<LoadProgress>> {
    let rate = u32::try_from(request.rate).map_err(|_| Usage("the rate is too high".to_owned()))?;
    if request.for_ms == 0 {
        return Err(Usage("a load needs a duration above zero".to_owned()).into());
    }
    let plan = plan_testnet(testnet);
    let chain = netsplit_chains::of(plan.chain);
    let port = chain.ports().api;
    let pods: Vec<(&str, String)> =
        plan.nodes.iter().map(|node| (node.name.as_str(), pod_name(&testnet.name, &node.name))).collect();
    may_forward(cluster, pods.first().map_or("", |(_, pod)| pod.as_str()), port).await?;
    let client = |(node, pod): (&str, String)| chain.client(node, forwarded(cluster.pods(), pod, port));
    let slot = LoadSlot::new(chain.wallet(&plan)?, pods.into_iter().map(client).collect());
    let turn = Turn { cluster: cluster.clone(), testnet: testnet.name.clone(), by: sender_here() };
    turn.take().await?;
    if testnet.load.is_some()
        && let Err(error) = turn.until_made_way().await
    {
        turn.give_back().await?;
        return Err(error);
    }
    let lasts = Duration::from_millis(request.for_ms);
    let (out, told) = mpsc::channel(PENDING);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = send(&slot, rate, lasts, &out) => ended,
            lost = turn.keep() => Err(lost),
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        };
        if let Err(error) = ended.and(turn.give_back().await) {
            out.send(Err(error)).await.ok();
        }
    });
    Ok(ReceiverStream::new(told).boxed())
}

/// Sends, and reports until nobody reads.
async fn send(
    slot: &LoadSlot,
    rate: u32,
    lasts: Duration,
    out: &mpsc::Sender<Result<LoadProgress>>,
) -> Result<()> {
    let (reports, mut reported) = mpsc::channel::<session::LoadProgress>(PENDING);
    let relay = async {
        while let Some(progress) = reported.recv().await {
            if out.send(Ok(to_progress(&progress.report, progress.done))).await.is_err() {
                break;
            }
        }
        drop(reported);
    };
    let (ended, ()) = tokio::join!(slot.run(rate, lasts, reports), relay);
    ended
}

/// Fails as every connection would, in words: later on it would only be seen that nothing is accepted. A pod that is away is
/// another matter, since the others take transfers.
async fn may_forward(cluster: &Cluster, pod: &str, port: u16) -> Result<()> {
    match cluster.pods().portforward(pod, &[port]).await {
        Ok(forwarder) => {
            forwarder.abort();
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code != 403 => Ok(()),
        Err(error) => Err(cluster.explain(error, &format!("cannot reach port {port} of pod {pod}"))),
    }
}

/// Connections to a port of a pod, through the API server.
fn forwarded(pods: Api<Pod>, pod: String, port: u16) -> Connector {
    Arc::new(move || {
        let (pods, pod) = (pods.clone(), pod.clone());
        Box::pin(async move {
            let mut forwarder = pods.portforward(&pod, &[port]).await.map_err(io::Error::other)?;
            let stream = forwarder.take_stream(port).ok_or(io::ErrorKind::NotConnected)?;
            // What forwards goes on without its handle, until one of the two ends closes; an error closes the stream.
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// Who sends, in the words of a mark.
fn sender_here() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "somewhere".to_owned());
    format!("{user}@{host} ({:06x})", rand::random_range(0..1_u32 << 24))
}

/// The right to send a testnet's transfers: the mark on its object.
struct Turn {
    cluster: Cluster,
    testnet: String,
    by: String,
}

impl Turn {
    /// Refused while somebody else sends, and before the testnet runs.
    async fn take(&self) -> Result<()> {
        self.write(true, |object| {
            let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
            if !matches!(phase, Some("Running" | "Degraded")) {
                bail!("testnet `{}` is not running yet", self.testnet);
            }
            match mark_of(object) {
                Some(mark) if mark.by != self.by && !mark.is_over(Timestamp::now()) => {
                    bail!("a load runs already, sent by {}: wait for its end", mark.by)
                }
                _ => Ok(true),
            }
        })
        .await
    }

    /// Renews the mark; returns when it is lost, with the reason.
    async fn keep(&self) -> anyhow::Error {
        let mut tick = interval(LEASE / 3);
        tick.tick().await;
        let mut renewed = Instant::now();
        loop {
            tick.tick().await;
            let mine = |object: &crd::Testnet| match mark_of(object) {
                Some(mark) if mark.by == self.by => Ok(true),
                Some(mark) => bail!("{} has begun a load of its own", mark.by),
                None => bail!("the annotation {MARK} was removed"),
            };
            match self.write(true, mine).await {
                Ok(()) => renewed = Instant::now(),
                // Not the API server's word: one that is away for a moment is asked again.
                Err(error) if error.is::<kube::Error>() && renewed.elapsed() < LEASE => {}
                Err(error) => return error.context("the load was ended, since others may send transfers"),
            }
        }
    }

    /// Removes the mark, if it is still ours.
    async fn give_back(&self) -> Result<()> {
        self.write(false, |object| Ok(mark_of(object).is_some_and(|mark| mark.by == self.by))).await
    }

    /// Waits until the operator says that the testnet's own load has ended.
    async fn until_made_way(&self) -> Result<()> {
        let deadline = Instant::now() + MADE_WAY_WITHIN;
        loop {
            let object = self.object().await?;
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let for_us = conditions.iter().any(|condition| {
                condition.type_ == LOAD_MADE_WAY
                    && condition.status == crd::ConditionStatus::True
                    && condition.message.ends_with(&self.by)
            });
            if for_us {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "no operator has ended the testnet's own load (`spec.load`), whose transfers would be in the way; {}",
                    self.cluster.no_operator("Testnet")
                );
            }
            sleep(POLL).await;
        }
    }

    /// Sets the mark anew, or removes it, if `may` says so of the object as it is then. Nobody else's change is overwritten.
    async fn write(&self, set: bool, may: impl Fn(&crd::Testnet) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + MARKED_WITHIN;
        loop {
            let object = match self.object().await {
                Err(error) if !set && error.is::<Deleted>() => return Ok(()),
                object => object?,
            };
            if !may(&object)? {
                return Ok(());
            }
            let mark = set.then(|| Mark { renewed: Timestamp::now(), by: self.by.clone() }.to_string());
            // With its version the object is changed only if it is what was seen.
            let patch = serde_json::json!({ "metadata": {
                "resourceVersion": object.metadata.resource_version,
                "annotations": { MARK: mark },
            } });
            let api = self.cluster.testnets();
            match api.patch_metadata(&self.testnet, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 && Instant::now() < deadline => {}
                Err(error) => return Err(self.unmarked(error)),
            }
        }
    }

    async fn object(&self) -> Result<crd::Testnet> {
        let found = self.cluster.testnets().get_opt(&self.testnet).await;
        found.map_err(|error| self.unmarked(error))?.ok_or_else(|| Deleted(self.testnet.clone()).into())
    }

    fn unmarked(&self, error: kube::Error) -> anyhow::Error {
        self.cluster.explain(error, "cannot mark the testnet")
    }
}

/// The testnet is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("testnet `{0}` was deleted")]
struct Deleted(String);

fn mark_of(object: &crd::Testnet) -> Option<Mark> {
    object.metadata.annotations.as_ref()?.get(MARK).map(|text| Mark::read(text))
}
