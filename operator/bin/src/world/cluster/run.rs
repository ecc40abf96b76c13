//! An Experiment that this command makes and follows.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher::watch_object};
use netsplit_proto::control::ExperimentEvent;
use netsplit_spec::{Testnet, crd};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    api::{Cluster, MADE_BY},
    follow::Follower,
};
use crate::{
    problem::Usage,
    world::{Asked, Told},
};

/// Events that may wait for a slow reader.
const PENDING_EVENTS: usize = 64;
/// An object that no operator has looked at by then is never looked at.
const LOOKED_AT_WITHIN: Duration = Duration::from_mins(1);

/// Makes the object; gives its UID and what happens to it. One of the same name that is over makes way.
pub async fn begin(
    cluster: &Cluster,
    testnet: &Testnet,
    asked: &Asked,
) -> Result<(String, Told<ExperimentEvent>)> {
    let experiment = &asked.experiment;
    // With the file's lines, which the operator does not know.
    netsplit_spec::validate(experiment, testnet).map_err(|problems| Usage(problems.to_string()))?;
    make_way(cluster, &experiment.name).await?;
    let object = object(experiment, "run")?;
    let object = cluster.create(&cluster.experiments(), &object).await?;
    let uid = object.metadata.uid.context("an object of the API server has a UID")?;
    let (sender, receiver) = mpsc::channel(PENDING_EVENTS);
    let (cluster, name, made) = (cluster.clone(), experiment.name.clone(), uid.clone());
    tokio::spawn(async move {
        tokio::select! {
            ended = follow(&cluster, &name, &made, &sender) => if let Err(error) = ended {
                sender.send(Err(error)).await.ok();
            },
            () = sender.closed() => {}
        }
    });
    Ok((uid, ReceiverStream::new(receiver).boxed()))
}

/// The object of an experiment, with a mark that the command line made it.
pub fn object(experiment: &netsplit_spec::Experiment, by: &str) -> Result<crd::Experiment> {
    let mut object = crd::Experiment::of(experiment).map_err(|error| {
        Usage(format!("experiment `{}` cannot be an object of Kubernetes: {error}", experiment.name))
    })?;
    object.metadata.labels = Some(BTreeMap::from([(MADE_BY.to_owned(), by.to_owned())]));
    Ok(object)
}

async fn make_way(cluster: &Cluster, name: &str) -> Result<()> {
    let found = cluster.experiments().get_opt(name).await;
    let Some(found) = found.map_err(|error| cluster.explain(error, "cannot read the experiment"))? else {
        return Ok(());
    };
    let namespace = &cluster.namespace;
    if found.status.is_none_or(|status| status.finished_at.is_none()) {
        bail!(
            "experiment `{name}` is under way: `kubectl -n {namespace} wait --for=condition=Complete experiment/{name}`, or \
             delete it"
        );
    }
    let uid = found.metadata.uid.context("an object of the API server has a UID")?;
    cluster.delete(&cluster.experiments(), name, &uid).await
}

async fn follow(
    cluster: &Cluster,
    name: &str,
    uid: &str,
    sender: &mpsc::Sender<Result<ExperimentEvent>>,
) -> Result<()> {
    let mut follower = Follower::default();
    let mut seen = pin!(watch_object(cluster.experiments(), name).default_backoff());
    let nobody = Instant::now() + LOOKED_AT_WITHIN;
    let mut looked_at = false;
    let mut away = false;
    loop {
        let next = tokio::select! {
            next = seen.next() => next,
            () = sleep_until(nobody), if !looked_at => bail!(cluster.no_operator("Experiment")),
        };
        let object = match next.context("the watch of the experiment ended")? {
            Ok(Some(object)) if object.metadata.uid.as_deref() == Some(uid) => object,
            Ok(_) => bail!("experiment `{name}` was deleted before its verdict"),
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("the cluster does not answer, the experiment goes on there: {error}");
                }
                continue;
            }
        };
        away = false;
        looked_at |= object.status.is_some();
        for event in follower.see(&object)? {
            let is_last = !event.verdict.is_empty();
            if sender.send(Ok(event)).await.is_err() || is_last {
                return Ok(());
            }
        }
    }
}
