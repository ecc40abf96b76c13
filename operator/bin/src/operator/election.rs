//! Which of several operators leads: the holder of a Lease. Only the leader writes, drives experiments and serves tables.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{sleep, timeout};

use super::tenure::Tenure;
use crate::session::unix_ms;

const NAME: &str = "netsplit-operator";
/// A leader that has not renewed for so long leads no more: well below the lease of a fault, so that a successor renews
/// the faults in time.
const LEASE: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// The leader gives up so long after its last renewal: before others may take over.
const GIVE_UP: Duration = Duration::from_millis(4_500);
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Remembers the term: it rises even if the Lease itself is deleted, or its holder keeps its name.
const TERM: &str = "netsplit.dev/term";

pub struct Election {
    api: Api<Lease>,
    identity: String,
    /// As it was last seen, and when that was new.
    seen: Option<(Lease, Instant)>,
    /// Of the last election that was won.
    tenure: Tenure,
}

impl Election {
    /// `identity` differs between any two processes.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        let tenure = Tenure::until(Instant::now());
        Self { api: Api::namespaced(client, namespace), identity, seen: None, tenure }
    }

    /// Waits until this process leads; gives the term, which is higher than all before, and how long it lasts.
    pub async fn win(&mut self) -> (u64, Tenure) {
        loop {
            let began = Instant::now();
            match timeout(GIVE_UP, self.try_win()).await {
                Ok(Ok(Some(term))) => {
                    // What is left of an earlier tenure must not write in this one.
                    self.tenure = Tenure::until(began + GIVE_UP);
                    return (term, self.tenure.clone());
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!("cannot stand for election: {error:#}"),
                Err(_) => tracing::warn!("cannot stand for election: the API server does not answer"),
            }
            sleep(TRY_EVERY).await;
        }
    }

    async fn try_win(&mut self) -> Result<Option<u64>> {
        let Some(found) = self.api.get_opt(NAME).await.context("cannot read the Lease")? else {
            let term = unix_ms();
            let lease =
                self.lease(ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, term, 1);
            return Ok(self.write(self.api.create(&PostParams::default(), &lease).await)?.then_some(term));
        };
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let fresh = match &self.seen {
            Some((seen, since)) if version(seen) == version(&found) => since.elapsed() < LEASE,
            _ => true,
        };
        let spec = found.spec.clone().unwrap_or_default();
        let is_held = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
        if is_held && fresh {
            if self.seen.as_ref().is_none_or(|(seen, _)| version(seen) != version(&found)) {
                self.seen = Some((found, Instant::now()));
            }
            return Ok(None);
        }
        let before = found.metadata.annotations.as_ref().and_then(|all| all.get(TERM)?.parse::<u64>().ok());
        let term = unix_ms().max(before.unwrap_or(0) + 1);
        let lease = self.lease(found.metadata, term, spec.lease_transitions.unwrap_or(0) + 1);
        Ok(self.write(self.api.replace(NAME, &PostParams::default(), &lease).await)?.then_some(term))
    }

    /// Renews until that is not possible any more; gives the reason. This process must then act no more.
    pub async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            sleep(RENEW_EVERY.min(GIVE_UP.saturating_sub(renewed.elapsed()))).await;
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            match timeout(left.min(RENEW_EVERY), self.renew()).await {
                Ok(Ok(true)) => {
                    renewed = began;
                    self.tenure.extend(began + GIVE_UP);
                }
                Ok(Ok(false)) => return "another operator leads".to_owned(),
                Ok(Err(error)) => tracing::warn!("cannot renew the leader's Lease: {error:#}"),
                Err(_) => tracing::warn!("cannot renew the leader's Lease: no answer"),
            }
            if renewed.elapsed() >= GIVE_UP {
                return format!("the Lease could not be renewed for {} s", renewed.elapsed().as_secs());
            }
            // An API server that refuses at once must not be asked without a pause.
            if renewed != began {
                sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn renew(&mut self) -> Result<bool> {
        let Some((mut lease, _)) = self.seen.clone() else { return Ok(false) };
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        self.write(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Lets a successor take over at once.
    pub async fn resign(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else { return };
        lease.spec.get_or_insert_default().holder_identity = None;
        let params = PostParams::default();
        let failed = match timeout(RENEW_EVERY, self.api.replace(NAME, &params, &lease)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server does not answer".to_owned(),
        };
        tracing::warn!(failed, "cannot release the leader's Lease: a successor waits for its end");
    }

    fn lease(&self, metadata: ObjectMeta, term: u64, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut metadata = ObjectMeta { managed_fields: None, ..metadata };
        metadata.annotations.get_or_insert_default().insert(TERM.to_owned(), term.to_string());
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Whether the Lease was written; not, if somebody else was faster.
    fn write(&mut self, written: kube::Result<Lease>) -> Result<bool> {
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).context("cannot write the Lease"),
        }
    }
}
