//! Faults made by hand: plain Experiments, deleted to heal them.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use netsplit_plan::plan_testnet;
use netsplit_proto::control::{AddFaultRequest, Fault, HealRequest, Selector, selector::Side};
use netsplit_spec::{Cut, Experiment, FaultKind, LinkChange, NodeFault, Testnet, crd};
use tokio::time::{Instant, sleep, timeout};

use super::{
    api::{Cluster, MADE_BY},
    run::object,
    state::faults_of,
};
use crate::{
    problem::Usage,
    quality, selector,
    session::faults::{Held, Shape},
};

/// A fault without an end of its own lasts for the longest time that a fault can: a day.
pub const UNTIL_HEALED: Duration = Experiment::LONGEST_FAULT;

/// Longest wait for the proof of a fault, or for the word that its links are open.
const PROOF_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

pub async fn add(cluster: &Cluster, testnet: &Testnet, request: AddFaultRequest) -> Result<Fault> {
    let plan = plan_testnet(testnet);
    let shape = selector::shape(testnet, &request.selector.unwrap_or_default()).map_err(Usage)?;
    let shape = match request.quality {
        Some(asked) => selector::changed(shape, quality::from_proto(&asked)).map_err(Usage)?,
        None => shape,
    };
    selector::names_every_node(&plan, &shape).map_err(Usage)?;
    for object in by_hand(cluster, &testnet.name).await? {
        let name = object.metadata.name.clone().unwrap_or_default();
        if is_over(&object) {
            let uid = object.metadata.uid.context("an object of the API server has a UID")?;
            cluster.delete(&cluster.experiments(), &name, &uid).await?;
        } else if shape_of(testnet, &object).as_ref() == Some(&shape) {
            bail!("this fault is active already ({name}): heal it first");
        }
    }
    let lasts = if request.for_ms == 0 { UNTIL_HEALED } else { Duration::from_millis(request.for_ms) };
    let experiment = plain(testnet, shape, lasts);
    netsplit_spec::validate(&experiment, testnet).map_err(|problems| Usage(problems.to_string()))?;
    let made = object(&experiment, "hand")?;
    let made = cluster.create(&cluster.experiments(), &made).await?;
    let name = made.metadata.name.clone().context("an object of the API server has a name")?;
    let uid = made.metadata.uid.clone().context("an object of the API server has a UID")?;
    let proven = timeout(PROOF_DEADLINE, proof(cluster, &name)).await;
    let why = match proven {
        Ok(Ok(fault)) => return Ok(fault),
        Ok(Err(error)) => error,
        Err(_) => last_word(cluster, &name).await,
    };
    cluster.delete(&cluster.experiments(), &name, &uid).await?;
    Err(why.context("the fault could not be proven, so it was healed"))
}

/// Waits for the proof; fails with what contradicts the fault.
async fn proof(cluster: &Cluster, name: &str) -> Result<Fault> {
    let mut seen = pin!(watch_object(cluster.experiments(), name).default_backoff());
    loop {
        let object = match seen.next().await.context("the watch of the fault ended")? {
            Ok(Some(object)) => object,
            Ok(None) => bail!("somebody deleted it"),
            // It is tried again, until the caller's patience ends.
            Err(_) => continue,
        };
        let status = object.status.clone().unwrap_or_default();
        if status.finished_at.is_some() || status.phase.as_deref() == Some("Invalid") {
            bail!(status.reasons.join("\n"));
        }
        if let Some(fault) = faults_of(&object).into_iter().find(|fault| fault.state == "proven") {
            return Ok(fault);
        }
    }
}

/// What is missing to the proof.
async fn last_word(cluster: &Cluster, name: &str) -> anyhow::Error {
    let object = match cluster.experiments().get(name).await {
        Ok(object) => object,
        Err(error) => return cluster.explain(error, "the cluster does not answer"),
    };
    let Some(status) = &object.status else { return anyhow::anyhow!(cluster.no_operator("Experiment")) };
    let evidence = faults_of(&object).into_iter().map(|fault| fault.evidence);
    let words: Vec<String> = status.reasons.iter().cloned().chain(evidence).collect();
    anyhow::anyhow!(words.join("\n"))
}

pub async fn heal(cluster: &Cluster, testnet: &Testnet, request: HealRequest) -> Result<Vec<Fault>> {
    let wanted = match &request.selector {
        Some(selector) => Some(selector::shape(testnet, selector).map_err(Usage)?.sides()),
        None => None,
    };
    let mut healed = Vec::new();
    let mut deleted = Vec::new();
    for object in by_hand(cluster, &testnet.name).await? {
        let sides = shape_of(testnet, &object).map(|shape| shape.sides());
        if is_over(&object) || wanted.as_ref().is_some_and(|wanted| sides.as_ref() != Some(wanted)) {
            continue;
        }
        let name = object.metadata.name.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().context("an object of the API server has a UID")?;
        healed.extend(faults_of(&object));
        cluster.delete(&cluster.experiments(), &name, &uid).await?;
        deleted.push(uid);
    }
    if healed.is_empty() && wanted.is_some() {
        let text = "no fault with these arguments is active: see `netsplit status`";
        return Err(Usage(text.to_owned()).into());
    }
    for uid in deleted {
        until_open(cluster, &uid).await?;
    }
    Ok(healed)
}

/// The operator's last word about a deleted Experiment comes when every agent has confirmed that its rules are gone.
async fn until_open(cluster: &Cluster, uid: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let deadline = Instant::now() + PROOF_DEADLINE;
    loop {
        let told = events.list(&about).await;
        let told = told.map_err(|error| cluster.explain(error, "cannot read the events"))?.items;
        if told.iter().any(|event| event.reason.as_deref() == Some("Aborted")) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the fault was deleted, but no operator has confirmed that its links are open");
        }
        sleep(POLL).await;
    }
}

/// The Experiments that `split`, `cut` and `link` have made on a testnet.
async fn by_hand(cluster: &Cluster, testnet: &str) -> Result<Vec<crd::Experiment>> {
    let ours = ListParams::default().labels(&format!("{MADE_BY}=hand"));
    let found = cluster.experiments().list(&ours).await;
    let mut all = found.map_err(|error| cluster.explain(error, "cannot list the faults"))?.items;
    all.retain(|object| object.spec.testnet == testnet);
    Ok(all)
}

fn is_over(object: &crd::Experiment) -> bool {
    object.status.as_ref().is_some_and(|status| status.finished_at.is_some())
}

/// A fault and nothing else, from now on.
fn plain(testnet: &Testnet, shape: Shape, lasts: Duration) -> Experiment {
    let (word, kind) = match shape {
        Shape::Partition(partition) => ("split", FaultKind::Partition { partition, rest: None }),
        Shape::Cut { from, to, one_way } => ("cut", FaultKind::Cut { cut: Cut { from, to, one_way } }),
        Shape::Link { from, to, one_way, links } => {
            ("link", FaultKind::Link { link: LinkChange { from, to, one_way, links } })
        }
    };
    Experiment {
        name: format!("{word}-{:06x}", rand::random_range(0..1_u32 << 24)),
        testnet: testnet.name.clone(),
        faults: vec![netsplit_spec::Fault {
            name: Some(word.to_owned()),
            at: Duration::ZERO,
            lasts,
            every: None,
            repeat: None,
            ramp: None,
            kind,
        }],
        expect: Vec::new(),
        baseline: None,
        settle: None,
        abort: None,
        origin: netsplit_spec::Origin::default(),
    }
}

/// The shape of a fault that was made by hand.
fn shape_of(testnet: &Testnet, object: &crd::Experiment) -> Option<Shape> {
    let fault = object.read().ok()?.faults.into_iter().next()?;
    let side = |nodes: Vec<String>| Side { nodes };
    let between = |from, to, one_way| Selector {
        from: Some(side(from)),
        to: Some(side(to)),
        one_way,
        ..Selector::default()
    };
    let (selector, links) = match fault.kind {
        FaultKind::Partition { partition, .. } => {
            let partition = partition.into_iter().map(side).collect();
            (Selector { partition, ..Selector::default() }, None)
        }
        FaultKind::Cut { cut } => (between(cut.from, cut.to, cut.one_way), None),
        FaultKind::Link { link } => (between(link.from, link.to, link.one_way), Some(link.links)),
        // Nobody makes these by hand.
        FaultKind::Kill { .. } | FaultKind::Pause { .. } | FaultKind::Restart { .. } => return None,
    };
    let shape = selector::shape(testnet, &selector).ok()?;
    links.map_or(Some(shape.clone()), |links| selector::changed(shape, links).ok())
}

/// What a fault does, in words.
pub fn describe(kind: &FaultKind) -> String {
    let held = |what, nodes| Held { what, nodes }.to_string();
    let shape = match kind.clone() {
        FaultKind::Partition { partition, .. } => Shape::Partition(partition),
        FaultKind::Cut { cut: Cut { from, to, one_way } } => Shape::Cut { from, to, one_way },
        FaultKind::Link { link: LinkChange { from, to, one_way, links } } => {
            Shape::Link { from, to, one_way, links }
        }
        FaultKind::Kill { kill } => return held(NodeFault::Kill, kill),
        FaultKind::Pause { pause } => return held(NodeFault::Pause, pause),
        FaultKind::Restart { restart } => return held(NodeFault::Restart, restart),
    };
    shape.to_string()
}

#[cfg(test)]
mod tests {
    use netsplit_spec::{Document, Links};

    use super::*;

    fn testnet() -> Testnet {
        let text = include_str!("../../../../../examples/quickstart.yaml");
        match netsplit_spec::parse(text, "quickstart.yaml").unwrap().remove(0) {
            Document::Testnet(testnet) => testnet,
            Document::Experiment(_) => panic!("quickstart.yaml starts with its testnet"),
        }
    }

    /// What `heal` compares is what `split`, `cut` and `link` were given.
    #[test]
    fn a_fault_by_hand_is_known_again_by_its_object() {
        let testnet = testnet();
        let names = |names: [&str; 3]| names.map(str::to_owned).to_vec();
        let (one, other) = (
            names(["full-0", "validator-0", "validator-1"]),
            names(["full-1", "validator-2", "validator-3"]),
        );
        let cut = |one_way| Shape::Cut { from: one.clone(), to: other.clone(), one_way };
        let links = Links { latency: Some(Duration::from_millis(80)), ..Links::default() };
        let link = Shape::Link { from: one.clone(), to: other.clone(), one_way: true, links };
        for shape in [Shape::Partition(vec![one.clone(), other.clone()]), cut(true), cut(false), link] {
            let experiment = plain(&testnet, shape.clone(), UNTIL_HEALED);
            netsplit_spec::validate(&experiment, &testnet).unwrap();
            assert_eq!(describe(&experiment.faults[0].kind), shape.to_string());
            let object = object(&experiment, "hand").unwrap();
            assert_eq!(shape_of(&testnet, &object), Some(shape));
        }
    }
}
