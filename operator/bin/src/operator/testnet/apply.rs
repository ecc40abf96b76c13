//! The third step: the objects are applied, and the testnet is followed from then on.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    runtime::{controller::Action, events::EventType},
};
use netsplit_backend::{
    Backend,
    kubernetes::{KubernetesBackend, PutBack, is_untouched, put_back, tables::AgentStatus, would_take},
};
use netsplit_plan::experiment::State;
use netsplit_spec::crd::Experiment;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    APPLY_AGAIN, Error,
    build::{Built, FAULT_LEASE},
    load,
    status::{self, Facts},
    validate::Valid,
};
use crate::{
    operator::{
        context::Context,
        fleet::{Followed, Guarded},
    },
    session::{Session, experiment::left_by},
};

/// Between two looks at what was applied: while pods start, their sets change often.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// Blocks below the last height told that an observer reads again, so that nothing that became final while nobody
/// looked is missed.
const HEIGHTS_BACK: u64 = 1_000;

/// With the leader's own Lease, well below a fault's.
const FIND_LEADER: Duration = Duration::from_secs(15);

pub async fn apply(context: &Arc<Context>, valid: &Valid, built: &Built) -> Result<Action, Error> {
    if let Some(followed) = context.fleet.testnet(&valid.key).filter(|followed| followed.uid == valid.uid) {
        followed.facts.send_if_modified(|facts| facts.ask(valid));
        if valid.is_paused {
            return Ok(Action::await_change());
        }
        let facts = followed.facts.borrow().clone();
        let is_applied = facts.applied.is_some()
            && facts.generation == valid.generation
            && facts.refused.is_none()
            && facts.unapplied.is_none();
        if is_applied {
            return look_after(context, valid, &followed, &facts, built).await;
        }
        if followed.session.spec == valid.spec {
            return put(context, valid, &followed, built).await;
        }
        // Another spec is another session: who ran an experiment on the old one is told, and heals.
        followed.session.fail("its spec was changed".to_owned()).await;
        context.fleet.end_runs(&valid.key).await;
        context.fleet.remove_testnet(&valid.key);
    }
    let followed = follow(context, valid, built).await?;
    if valid.is_paused {
        return Ok(Action::await_change());
    }
    put(context, valid, &followed, built).await
}

/// Applies the objects, and notes how that went for the status.
async fn put(context: &Context, valid: &Valid, followed: &Followed, built: &Built) -> Result<Action, Error> {
    let links = links_supported(context, built).await;
    let applied = followed.backend.update(built.config.clone(), &built.nodes).await;
    followed.facts.send_modify(|facts| {
        facts.generation = valid.generation;
        facts.refused = None;
        facts.links = links;
        facts.unapplied = applied.as_ref().err().map(ToString::to_string);
        facts.applied = Some(Instant::now());
        facts.looked = facts.applied;
        if let Ok(applied) = &applied {
            facts.versions.clone_from(&applied.versions);
            facts.rolling = applied.rolling;
        }
    });
    Ok(Action::requeue(if applied?.rolling { LOOK_PAUSE } else { APPLY_AGAIN }))
}

/// What was applied is to stay as it is, whoever changes it.
async fn look_after(
    context: &Context,
    valid: &Valid,
    followed: &Followed,
    facts: &Facts,
    built: &Built,
) -> Result<Action, Error> {
    let since = |at: Option<Instant>| at.map(|at| at.elapsed()).unwrap_or_default();
    if since(facts.looked) < LOOK_PAUSE {
        return Ok(Action::requeue(LOOK_PAUSE.saturating_sub(since(facts.looked))));
    }
    let found = followed.backend.versions().await?;
    followed.facts.send_modify(|facts| facts.looked = Some(Instant::now()));
    if !facts.rolling && since(facts.applied) < APPLY_AGAIN && is_untouched(&facts.versions, &found) {
        return Ok(Action::requeue(APPLY_AGAIN.saturating_sub(since(facts.applied))));
    }
    let action = put(context, valid, followed, built).await?;
    let (after, rolls) = {
        let now = followed.facts.borrow();
        (now.versions.clone(), now.rolling)
    };
    for PutBack { object, what } in put_back(&facts.versions, &found, &after, facts.rolling || rolls) {
        tracing::info!(testnet = valid.key.1, object, what, "put back");
        let note = format!(
            "{object} {what}, and is as the testnet says again: change the testnet instead (`kubectl edit testnet {}`)",
            valid.key.1
        );
        context.tell(&valid.reference, EventType::Warning, "PutBack", note).await;
    }
    Ok(action)
}

/// Takes the testnet in: its session, with whatever faults an operator before this one has left in force.
async fn follow(context: &Arc<Context>, valid: &Valid, built: &Built) -> Result<Followed, Error> {
    let backend = KubernetesBackend::new(context.client.clone(), built.config.clone(), &context.hub)?;
    let backend = Arc::new(backend);
    let session = Session::new(
        valid.spec.clone(),
        built.plan.clone(),
        Arc::clone(&built.chain),
        Arc::clone(&backend) as Arc<dyn Backend>,
        FAULT_LEASE,
    )?;
    let seen = u64::try_from(valid.status.final_height).unwrap_or_default();
    session.follow(seen.saturating_sub(HEIGHTS_BACK).max(1))?;
    let (namespace, name) = &valid.key;
    // Asked for anew: the store of their controller may be empty yet, and of two who wait for it to fill, as the controller
    // does, kube wakes one (kube-runtime 5.0, `DelayedInit`).
    let experiments = Api::<Guarded<Experiment>>::namespaced(context.client.clone(), namespace);
    let experiments = experiments.list(&ListParams::default()).await.map_err(Error::Experiments)?;
    let mut left = Vec::new();
    for object in experiments {
        let Ok(experiment) = &object.0 else { continue };
        if experiment.spec.testnet != *name || experiment.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let status = experiment.status.as_ref().filter(|status| status.finished_at.is_none());
        let state = status.and_then(|status| serde_json::from_str::<State>(status.state.as_deref()?).ok());
        if let Some(state) = state {
            let owner = experiment.metadata.name.as_deref().unwrap_or_default();
            left.extend(left_by(owner, &session, &state));
        }
    }
    if !left.is_empty() {
        tracing::info!(testnet = name, faults = left.len(), "going on with what another operator began");
        agents_found(&backend).await;
    }
    if let Err(error) = session.faults.recall(left).await {
        // The experiments ask for them again, and judge.
        tracing::error!(testnet = name, "cannot take over the faults in force: {error:#}");
    }
    session.run().await?;
    let facts = Facts::of(valid);
    let (facts, seen) = watch::channel(facts);
    let (makes_way, by_hand) = watch::channel(None);
    let load = load::keep(Arc::clone(&session), seen.clone(), makes_way);
    let told = status::tell(
        Arc::clone(context),
        status::Subject::of(valid),
        Arc::clone(&session),
        Arc::clone(&backend),
        seen,
        by_hand,
    );
    let told = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::join!(load, told);
    }));
    let followed = Followed::new(valid.uid.clone(), backend, session, facts, told);
    context.fleet.put_testnet(valid.key.clone(), followed.clone());
    Ok(followed)
}

/// Agents that have not found their new leader yet cannot confirm what they hold; waits for them, within a limit.
async fn agents_found(backend: &KubernetesBackend) {
    let found = || {
        let all =
            |agents: &Vec<AgentStatus>| !agents.is_empty() && agents.iter().all(|agent| agent.connected);
        backend.agents().is_ok_and(|agents| all(&agents))
    };
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let all = async {
        while !found() {
            tick.tick().await;
        }
    };
    if tokio::time::timeout(FIND_LEADER, all).await.is_err() {
        tracing::warn!("not every link agent has found this operator in time");
    }
}

/// Why pods with a link agent would be refused here; none if they would not, or if that cannot be told.
async fn links_supported(context: &Context, built: &Built) -> Option<String> {
    let set = built.objects.stateful_sets.first().filter(|_| built.config.faults)?;
    let config = &built.config;
    let pod = format!("{}-0", set.name_any());
    match would_take(&context.client, set, &pod).await {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("PodSecurity") => {
            Some(format!(
                "namespace {0} refuses link agents, which need the capability NET_ADMIN ({1}): set `faults: off` in the \
                 testnet, or allow them with `kubectl label namespace {0} pod-security.kubernetes.io/enforce=privileged \
                 --overwrite`",
                config.namespace, status.message
            ))
        }
        _ => None,
    }
}
