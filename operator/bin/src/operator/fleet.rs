//! What the leader has under way: a session for each testnet, a task for each experiment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use netsplit_backend::kubernetes::KubernetesBackend;
use netsplit_spec::crd::{Experiment, Testnet};
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{metrics::Metrics, testnet::Facts};
use crate::session::Session;

/// How soon the end of an object is noticed.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// How long a written verdict may take to come back by the watch.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

pub type Guarded<K> = DeserializeGuard<K>;

/// Namespace and name of a testnet.
pub type Key = (String, String);

/// A testnet that is followed.
#[derive(Clone)]
pub struct Followed {
    pub uid: String,
    pub backend: Arc<KubernetesBackend>,
    pub session: Arc<Session>,
    /// What the reconciler knows, for the status.
    pub facts: Arc<watch::Sender<Facts>>,
    _status: Arc<AbortOnDropHandle<()>>,
}

impl Followed {
    pub fn new(
        uid: String,
        backend: Arc<KubernetesBackend>,
        session: Arc<Session>,
        facts: watch::Sender<Facts>,
        status: AbortOnDropHandle<()>,
    ) -> Self {
        Self { uid, backend, session, facts: Arc::new(facts), _status: Arc::new(status) }
    }
}

/// An experiment that runs, or waits for its turn.
struct Run {
    object: ObjectRef<Guarded<Experiment>>,
    testnet: Key,
    /// Asks it to heal what it did, and to end.
    cancel: CancellationToken,
    task: AbortOnDropHandle<()>,
    /// When its task was first seen to have ended.
    ended: Option<Instant>,
}

#[derive(Default)]
pub struct Fleet {
    inner: Mutex<Inner>,
}

/// Which objects exist, as far as the watches tell.
#[derive(Clone)]
struct Stores {
    testnets: Store<Guarded<Testnet>>,
    experiments: Store<Guarded<Experiment>>,
}

#[derive(Default)]
struct Inner {
    testnets: HashMap<Key, Followed>,
    /// By UID.
    runs: HashMap<String, Run>,
    stores: Option<Stores>,
}

impl Fleet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is one insertion or removal.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to see which objects exist.
    pub fn watch_objects(&self, testnets: Store<Guarded<Testnet>>, experiments: Store<Guarded<Experiment>>) {
        self.inner().stores = Some(Stores { testnets, experiments });
    }

    pub fn testnet(&self, key: &Key) -> Option<Followed> {
        self.inner().testnets.get(key).cloned()
    }

    pub fn put_testnet(&self, key: Key, followed: Followed) {
        self.inner().testnets.insert(key, followed);
    }

    pub fn remove_testnet(&self, key: &Key) {
        self.inner().testnets.remove(key);
    }

    /// Also true for one that has just ended: until its verdict is seen in the object, the object must not begin it again.
    /// Also while one of the same name, deleted since, still heals: their faults have the same names.
    pub fn is_running(&self, object: &ObjectRef<Guarded<Experiment>>) -> bool {
        self.inner().runs.values().any(|run| run.object == *object)
    }

    /// Ends the experiments of a testnet, and waits until they have.
    pub async fn end_runs(&self, testnet: &Key) {
        loop {
            let alive = self
                .inner()
                .runs
                .values()
                .filter(|run| run.testnet == *testnet && !run.task.is_finished())
                .inspect(|run| run.cancel.cancel())
                .count();
            if alive == 0 {
                return;
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    /// Takes an experiment's task in.
    pub fn put_run(
        &self,
        uid: String,
        object: ObjectRef<Guarded<Experiment>>,
        testnet: Key,
        cancel: CancellationToken,
        task: AbortOnDropHandle<()>,
    ) {
        self.inner().runs.insert(uid, Run { object, testnet, cancel, task, ended: None });
    }

    /// Drops everything at once, healing nothing: a successor goes on.
    pub fn abandon(&self) {
        *self.inner() = Inner::default();
    }

    /// Ends what belongs to objects that are gone or going, for as long as this operator leads.
    pub async fn sweep(&self, metrics: &Metrics) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut lost = Vec::new();
            {
                let inner = &mut *self.inner();
                let Some(Stores { testnets, experiments }) = inner.stores.clone() else { continue };
                inner.runs.retain(|uid, run| {
                    let object = experiments.get(&run.object).filter(|object| is(&**object, uid));
                    // At once: the run itself would find out when it next keeps its state.
                    if object.is_none() {
                        run.cancel.cancel();
                    }
                    !run.task.is_finished() || run.is_to_be_told(object.as_deref())
                });
                inner.testnets.retain(|(namespace, name), followed| {
                    let object = testnets.get(&ObjectRef::new(name).within(namespace));
                    let stays = object.is_some_and(|object| is(&*object, &followed.uid));
                    if !stays {
                        lost.push(Arc::clone(&followed.session));
                    }
                    stays
                });
                metrics.testnets.set(inner.testnets.len() as i64);
                metrics.experiments.set(inner.runs.len() as i64);
            }
            // Who runs an experiment on it is told.
            for session in lost {
                session.fail("its object was deleted".to_owned()).await;
            }
        }
    }
}

impl Run {
    /// Its task has ended, and the object does not show it yet. Not for ever: a verdict that could not be written is not
    /// waited for.
    fn is_to_be_told(&mut self, object: Option<&Guarded<Experiment>>) -> bool {
        let ended = *self.ended.get_or_insert_with(Instant::now);
        let is_told = object.is_none_or(|object| {
            let status = object.0.as_ref().ok().and_then(|experiment| experiment.status.as_ref());
            status.is_some_and(|status| status.finished_at.is_some())
        });
        !is_told && ended.elapsed() < TOLD_WITHIN
    }
}

/// Whether this is the object of that UID, and is to stay.
fn is(object: &impl kube::ResourceExt, uid: &str) -> bool {
    object.meta().uid.as_deref() == Some(uid) && object.meta().deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector::store::Writer, watcher::Event};

    use super::*;

    fn experiment(uid: &str) -> Guarded<Experiment> {
        let meta = serde_json::json!({ "name": "e", "namespace": "n", "uid": uid });
        let spec = serde_json::json!({ "testnet": "t", "expect": [{ "agreement": {} }] });
        let object = serde_json::json!({
            "apiVersion": "netsplit.dev/v1alpha1", "kind": "Experiment", "metadata": meta, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_with_its_object_and_not_with_another_of_its_name() {
        let (testnets, mut experiments) = (Writer::default(), Writer::default());
        let fleet = Fleet::default();
        fleet.watch_objects(testnets.as_reader(), experiments.as_reader());
        let metrics = Metrics::new().unwrap();
        let begin = |uid: &str| {
            let cancel = CancellationToken::new();
            let asked = cancel.clone();
            let task = AbortOnDropHandle::new(tokio::spawn(async move { asked.cancelled().await }));
            let object = ObjectRef::from_obj(&experiment(uid));
            fleet.put_run(uid.to_owned(), object, ("n".to_owned(), "t".to_owned()), cancel.clone(), task);
            cancel
        };
        let look = async || {
            tokio::time::timeout(3 * SWEEP_EVERY, fleet.sweep(&metrics)).await.unwrap_err();
        };
        experiments.apply_watcher_event(&Event::Apply(experiment("1")));
        let first = begin("1");
        look().await;
        assert!(!first.is_cancelled());

        experiments.apply_watcher_event(&Event::Apply(experiment("2")));
        let second = begin("2");
        look().await;
        assert_eq!((first.is_cancelled(), second.is_cancelled()), (true, false), "it was made anew");

        experiments.apply_watcher_event(&Event::Delete(experiment("2")));
        look().await;
        assert!(second.is_cancelled());
    }
}
