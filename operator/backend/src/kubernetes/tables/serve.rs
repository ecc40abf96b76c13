//! The gRPC side: who may follow, and the stream of one agent.

use std::{
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _, future};
use netsplit_proto::agent::{AgentReport, Hello, LinkTable, tables_server::Tables};
use tokio::time::timeout;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    Key, PodIdentity, ReviewError, TableHub,
    testnet::{JoinError, Newcomer},
    wire::{PROTOCOL, read_version},
};

/// An agent says hello at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves [`TableHub`].
#[derive(Debug, Clone)]
pub struct TablesService {
    hub: Arc<TableHub>,
}

impl TablesService {
    pub(super) fn new(hub: Arc<TableHub>) -> Self {
        Self { hub }
    }
}

#[tonic::async_trait]
impl Tables for TablesService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<LinkTable, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<AgentReport>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.hub.leading()?;
        let token = bearer(request.metadata())?;
        let identity = self.hub.reviewer.review(&token).await.map_err(|error| match error {
            ReviewError::Refused(_) => Status::unauthenticated(error.to_string()),
            ReviewError::Unavailable(_) => Status::unavailable(error.to_string()),
        })?;
        let mut reports = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, reports.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the first report did not come"))??;
        let first =
            first.ok_or_else(|| Status::invalid_argument("the stream ended before its first report"))?;
        let newcomer = newcomer(&identity, &first)?;
        let member = self.hub.join(&identity, newcomer)?;
        let hub = Arc::clone(&self.hub);
        let Seat { key, registration, node, stream, tables } = member;
        tokio::spawn(async move {
            // An agent that is gone shows by the end of its stream, by keepalive at the latest.
            while let Ok(Some(report)) = reports.message().await {
                if !hub
                    .hear(&key, registration, |testnet| testnet.report(&node, stream, report, Instant::now()))
                {
                    return;
                }
            }
            hub.hear(&key, registration, |testnet| testnet.leave(&node, stream));
        });
        // Ends when the testnet or the agent is forgotten: with resigning, and when the pod is replaced.
        let tables = WatchStream::new(tables).filter_map(|table| future::ready(table.map(Ok)));
        Ok(Response::new(Box::pin(tables)))
    }
}

/// An agent's place in the hub.
struct Seat {
    key: Key,
    registration: u64,
    node: String,
    stream: u64,
    tables: tokio::sync::watch::Receiver<Option<LinkTable>>,
}

impl TableHub {
    fn leading(&self) -> Result<(), Status> {
        self.state().term.map(drop).ok_or_else(|| Status::unavailable("not the leader"))
    }

    fn join(&self, identity: &PodIdentity, newcomer: Newcomer) -> Result<Seat, Status> {
        let mut state = self.state();
        let of_pod = state.testnets.iter_mut().filter(|((namespace, _), _)| *namespace == identity.namespace);
        let mut found = None;
        for (key, entry) in of_pod {
            if let Some(node) = entry.testnet.node_of(&identity.pod) {
                found = Some((key.clone(), entry, node));
                break;
            }
        }
        let Some((key, entry, node)) = found else {
            // A leader that has just begun gets to know its testnets one after the other.
            return Err(Status::unavailable(format!("pod {} is of no known testnet", identity.pod)));
        };
        let registration = entry.registration;
        let (stream, tables) =
            entry.testnet.join(&node, newcomer, Instant::now()).map_err(|error| match error {
                JoinError::LaterLeader(_) => Status::failed_precondition(error.to_string()),
                JoinError::OtherPod(_) | JoinError::AddressTaken { .. } => {
                    Status::unavailable(error.to_string())
                }
            })?;
        Ok(Seat { key, registration, node, stream, tables })
    }

    /// Hands something to a testnet that is still the same one; `false` when it is not.
    fn hear(&self, key: &Key, registration: u64, work: impl FnOnce(&mut super::TestnetState)) -> bool {
        let mut state = self.state();
        let Some(entry) = state.testnets.get_mut(key).filter(|entry| entry.registration == registration)
        else {
            return false;
        };
        work(&mut entry.testnet);
        true
    }
}

fn bearer(metadata: &MetadataMap) -> Result<String, Status> {
    metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned)
        .ok_or_else(|| Status::unauthenticated("no bearer token"))
}

/// What an agent says of itself, as far as the token bears it out.
fn newcomer(identity: &PodIdentity, first: &AgentReport) -> Result<Newcomer, Status> {
    let Hello { protocol, pod, uid, addresses, boot, unable, cannot_shape } =
        first.hello.clone().ok_or_else(|| Status::invalid_argument("the first report says no hello"))?;
    if protocol != PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "the agent speaks protocol {protocol}, this operator {PROTOCOL}: give both the same version"
        )));
    }
    if pod != identity.pod || uid != identity.uid {
        return Err(Status::permission_denied(format!(
            "the token is of pod {} ({}), not of {pod} ({uid})",
            identity.pod, identity.uid
        )));
    }
    let address = addresses.iter().find_map(|address| address.parse::<Ipv4Addr>().ok());
    let address = address
        .filter(|address| !address.is_loopback() && !address.is_unspecified() && !address.is_multicast())
        .ok_or_else(|| Status::invalid_argument("the agent reports no IPv4 address of its pod"))?;
    Ok(Newcomer {
        pod,
        uid,
        boot,
        address,
        unable: Some(unable).filter(|why| !why.is_empty()),
        cannot_shape: Some(cannot_shape).filter(|why| !why.is_empty()),
        applied: first.applied.as_ref().map(read_version),
    })
}
