//! The table server: every link agent of every testnet follows it, and what they report is put together here.
//!
//! Only the leading operator serves. One that stops leading closes its streams; agents keep their tables, whose cuts end
//! with their leases, and follow the next leader, whose tables carry a later term. Nobody is told anything of a testnet
//! before all is known ([`TestnetLinks::set_cuts`], [`TestnetLinks::set_links`] and [`TestnetLinks::set_nodes`] were called,
//! if only with none): a new leader must not heal what it has not heard of yet.

mod pairs;
mod review;
mod serve;
mod testnet;
pub(crate) mod wire;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use netsplit_proto::agent::tables_server::TablesServer;
use tokio::time::timeout;

use self::testnet::{Awaited, TestnetState};
pub use self::{
    review::{ApiReviewer, PodIdentity, ReviewError, TokenReviewer},
    serve::TablesService,
    testnet::{AgentStatus, Member, NodeWord},
};
use crate::backend::{BackendError, CutEvidence, CutRequest, LinksEvidence, LinksRequest, NodeHold};

/// Agents that do not confirm a new cut within this time do not have it.
/// After a change of leaders they first have to find the new one.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Namespace and name of a testnet.
type Key = (String, String);

/// All link agents of all testnets.
#[derive(Debug)]
pub struct TableHub {
    reviewer: Arc<dyn TokenReviewer>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The leader's term while this is the leader.
    term: Option<u64>,
    testnets: BTreeMap<Key, Entry>,
    registrations: u64,
}

#[derive(Debug)]
struct Entry {
    /// Tells a testnet's handle from an earlier one's.
    registration: u64,
    testnet: TestnetState,
}

impl TableHub {
    pub fn new(reviewer: Arc<dyn TokenReviewer>) -> Arc<Self> {
        Arc::new(Self { reviewer, state: Mutex::default() })
    }

    /// The gRPC service. It has to be served over TLS: agents send tokens.
    pub fn service(self: &Arc<Self>) -> TablesServer<TablesService> {
        TablesServer::new(TablesService::new(Arc::clone(self)))
    }

    /// Begins to serve as the leader of this term, which is higher than that of every leader before.
    pub fn lead(&self, term: u64) {
        let mut state = self.state();
        state.term = Some(term);
        state.testnets.clear();
    }

    /// Stops serving and closes all streams. Handles of testnets are of no use any more.
    pub fn resign(&self) {
        let mut state = self.state();
        state.term = None;
        state.testnets.clear();
    }

    /// Takes a testnet in; an earlier handle of it is of no use any more. Refused when this is not the leader.
    pub fn testnet(self: &Arc<Self>, namespace: &str, testnet: &str) -> Result<TestnetLinks, BackendError> {
        let key = (namespace.to_owned(), testnet.to_owned());
        let mut state = self.state();
        let term = state.term.ok_or_else(not_the_leader)?;
        state.registrations += 1;
        let registration = state.registrations;
        let testnet = TestnetState::new(term, rand::random());
        state.testnets.insert(key.clone(), Entry { registration, testnet });
        drop(state);
        Ok(TestnetLinks { hub: Arc::clone(self), key, registration, changing: tokio::sync::Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with it held changed one testnet, whose next change composes its tables anew.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_the_leader() -> BackendError {
    BackendError::Gone("this operator is not the leader any more".to_owned())
}

fn unconfirmed(what: &str, missing: &[(String, Option<String>)]) -> BackendError {
    let (name, why) = missing.first().cloned().unwrap_or_default();
    let others = match missing.len() {
        0 | 1 => String::new(),
        count => format!(" and {} others", count - 1),
    };
    let why = why.unwrap_or_else(|| format!("no answer within {} s", CONFIRM_TIMEOUT.as_secs()));
    BackendError::Failed(format!("the link agent of {name}{others} did not {what}: {why}"))
}

/// The links of one testnet. Dropping it closes its agents' streams; their cuts end with their leases.
#[derive(Debug)]
pub struct TestnetLinks {
    hub: Arc<TableHub>,
    key: Key,
    registration: u64,
    /// Held while a change is made and confirmed: taking one back must not undo another.
    changing: tokio::sync::Mutex<()>,
}

/// What was wanted before, unless this is the first to be known, and who must confirm the change.
type Changed<T> = Result<(Option<T>, Awaited), BackendError>;

impl TestnetLinks {
    fn with<T>(&self, work: impl FnOnce(&mut TestnetState) -> T) -> Result<T, BackendError> {
        let mut state = self.hub.state();
        let entry = state.testnets.get_mut(&self.key).filter(|entry| entry.registration == self.registration);
        entry.map(|entry| work(&mut entry.testnet)).ok_or_else(not_the_leader)
    }

    /// Follows the pods: one entry for each node of the testnet.
    pub fn set_members(&self, members: Vec<Member>) -> Result<(), BackendError> {
        self.with(|testnet| testnet.set_members(members, Instant::now()))
    }

    /// Makes exactly these cuts the desired ones. Returns once the agents of all running pods that a new cut ends at have it
    /// in their kernels; a new cut that one of them did not confirm in time is taken back from all. The first call takes
    /// nothing back: it names what a leader before this one left in force, and evidence tells whether it still is.
    pub async fn set_cuts(&self, cuts: Vec<CutRequest>) -> Result<(), BackendError> {
        self.change(cuts, TestnetState::set_cuts, "cut its links").await
    }

    /// Makes exactly these links shaped, as [`Self::set_cuts`] does for cuts.
    pub async fn set_links(&self, links: LinksRequest) -> Result<(), BackendError> {
        self.change(links, TestnetState::set_links, "shape its links").await
    }

    /// Holds exactly these nodes. Returns once the keeper of each that is newly held has done so, but for an orderly end; what
    /// one of them did not do in time is taken back from all, as [`Self::set_cuts`] does it.
    pub async fn set_nodes(&self, holds: Vec<NodeHold>, lease: Duration) -> Result<(), BackendError> {
        self.change((holds, lease), TestnetState::set_nodes, "hold its node").await
    }

    /// One change at a time. `what` it is, as an agent does it.
    async fn change<T>(
        &self,
        wanted: T,
        set: fn(&mut TestnetState, T, Instant) -> Changed<T>,
        what: &str,
    ) -> Result<(), BackendError> {
        let _changing = self.changing.lock().await;
        let (before, awaited) = self.with(|testnet| set(testnet, wanted, Instant::now()))??;
        let Err(missing) = self.confirmed(&awaited).await else { return Ok(()) };
        let Some(before) = before else {
            let silent: Vec<&String> = missing.iter().map(|(name, _)| name).collect();
            tracing::warn!(?silent, "link agents have not confirmed at first: {what}");
            return Ok(());
        };
        self.with(|testnet| set(testnet, before, Instant::now()))??;
        Err(unconfirmed(what, &missing))
    }

    /// Waits until everybody has the newest table; gives who has not, each with why, as far as that is known.
    async fn confirmed(&self, awaited: &Awaited) -> Result<(), Vec<(String, Option<String>)>> {
        let gone =
            |_| vec![("everybody".to_owned(), Some("this operator is not the leader any more".to_owned()))];
        let mut heard = self.with(|testnet| testnet.heard.subscribe()).map_err(gone)?;
        let all = async {
            loop {
                let check = |testnet: &mut TestnetState| {
                    (testnet.unconfirmed(awaited, Instant::now()), testnet.hopeless(awaited))
                };
                let (missing, hopeless) = self.with(check).map_err(gone)?;
                if missing.is_empty() {
                    return Ok(());
                }
                if hopeless || heard.changed().await.is_err() {
                    return Err(missing);
                }
            }
        };
        match timeout(CONFIRM_TIMEOUT, all).await {
            Ok(result) => result,
            Err(_) => Err(self.with(|testnet| testnet.unconfirmed(awaited, Instant::now())).map_err(gone)?),
        }
    }

    /// Renews the leases of all cuts, of the faulted links and of held nodes; fails with the names of those that had ended.
    pub fn renew(&self) -> Result<(), BackendError> {
        let ended = self.with(|testnet| testnet.renew(Instant::now()))?;
        if ended.is_empty() {
            return Ok(());
        }
        Err(BackendError::Failed(format!("not renewed, the lease had ended: {}", ended.join(", "))))
    }

    /// One entry per cut, and per cut that ended recently.
    pub fn evidence(&self) -> Result<Vec<CutEvidence>, BackendError> {
        self.with(|testnet| testnet.evidence(Instant::now()))
    }

    /// What is known of the shaped links.
    pub fn links(&self) -> Result<LinksEvidence, BackendError> {
        self.with(|testnet| testnet.links(Instant::now()))?
    }

    /// What is known of every node beside its pod.
    pub fn nodes(&self) -> Result<BTreeMap<String, NodeWord>, BackendError> {
        self.with(|testnet| testnet.node_words(Instant::now()))
    }

    /// Every node's agent.
    pub fn agents(&self) -> Result<Vec<AgentStatus>, BackendError> {
        self.with(|testnet| testnet.agents())
    }
}

impl Drop for TestnetLinks {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        if state.testnets.get(&self.key).is_some_and(|entry| entry.registration == self.registration) {
            state.testnets.remove(&self.key);
        }
    }
}
