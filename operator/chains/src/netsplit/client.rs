//! A node of ours over its gRPC API.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hyper_util::rt::TokioIo;
use netsplit_proto::node::node_client::NodeClient;
use netsplit_proto::node::{
    GetAccountRequest, GetStatusRequest, StreamBlocksRequest, SubmitTransactionsRequest,
};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::wire;
use crate::client::{
    BlockStream, BlocksQuery, ChainClient, ClientError, Connector, Health, NodeState, StartAt, Submission,
};

/// A connection that takes longer is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// An idle or busy connection that answers no ping for the second after the first is dead.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(2);
/// For one answer, and for a stream to open.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Largest answer: a block's list of ids is far below.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// What the API takes in one call.
const MAX_BATCH: usize = 1_000;

/// Connects when first used, and again after a connection is lost. Calls share one HTTP/2 connection.
pub(super) struct NetsplitClient {
    node: String,
    api: NodeClient<Channel>,
    health: HealthClient<Channel>,
}

impl fmt::Debug for NetsplitClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetsplitClient").field("node", &self.node).finish_non_exhaustive()
    }
}

impl NetsplitClient {
    /// Must be called within a tokio runtime.
    pub fn new(node: &str, connector: Connector) -> Self {
        // The address is not used: the connector alone knows where the node is.
        let endpoint = Endpoint::from_static("http://node")
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector_lazy(service_fn(move |_| {
            let connecting = connector();
            async move {
                match timeout(CONNECT_LIMIT, connecting).await {
                    Ok(connected) => connected.map(TokioIo::new),
                    Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
                }
            }
        }));
        Self {
            node: node.to_owned(),
            api: NodeClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES),
            health: HealthClient::new(channel),
        }
    }

    /// One call with its deadline.
    async fn call<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>> + Send,
    ) -> Result<T, ClientError> {
        match timeout(CALL_LIMIT, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(failed(&self.node, call, status)),
            Err(elapsed) => Err(ClientError::unreachable(&self.node, call, elapsed)),
        }
    }
}

/// Which part of a failure is the network's and which the node's word. tonic reports what it cannot classify,
/// such as a connection that broke, as `Unknown`.
fn failed(node: &str, call: &'static str, status: Status) -> ClientError {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            ClientError::unreachable(node, call, status)
        }
        code => ClientError::Refused {
            node: node.to_owned(),
            call,
            message: format!("{} ({code:?})", status.message()),
        },
    }
}

#[async_trait]
impl ChainClient for NetsplitClient {
    fn node(&self) -> &str {
        &self.node
    }

    async fn status(&self) -> Result<NodeState, ClientError> {
        let mut api = self.api.clone();
        let status = self.call("status", api.get_status(GetStatusRequest {})).await?;
        wire::state(status).map_err(|malformed| malformed.from(&self.node, "status"))
    }

    async fn blocks(&self, query: BlocksQuery) -> Result<BlockStream, ClientError> {
        const CALL: &str = "blocks";
        let from_height = match query.from {
            StartAt::Height(height) => height.max(1),
            StartAt::Next => 0,
        };
        let request = StreamBlocksRequest { from_height, include_transactions: query.transaction_ids };
        let mut api = self.api.clone();
        let answer = match timeout(CALL_LIMIT, api.stream_blocks(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(stream_failed(&self.node, from_height, status)),
            Err(elapsed) => return Err(ClientError::unreachable(&self.node, CALL, elapsed)),
        };
        let node = self.node.clone();
        // Ends with the first error: what follows one would leave a gap.
        let blocks = stream::unfold(Some((answer, from_height)), move |open| {
            let node = node.clone();
            async move {
                let (mut answer, expected) = open?;
                let item = match answer.message().await {
                    Ok(None) => return None,
                    Ok(Some(block)) => {
                        wire::block(&block, expected).map_err(|malformed| malformed.from(&node, CALL))
                    }
                    Err(status) => Err(stream_failed(&node, expected, status)),
                };
                let next = item.as_ref().ok().map(|block| (answer, block.height + 1));
                Some((item, next))
            }
        });
        Ok(blocks.boxed())
    }

    async fn submit(&self, transactions: Vec<Bytes>) -> Result<Vec<Submission>, ClientError> {
        let mut api = self.api.clone();
        let request = SubmitTransactionsRequest { transactions };
        let answer = self.call("submit", api.submit_transactions(request)).await?;
        answer
            .results
            .into_iter()
            .map(|result| wire::submission(result).map_err(|malformed| malformed.from(&self.node, "submit")))
            .collect()
    }

    async fn next_nonce(&self, address: &str) -> Result<u64, ClientError> {
        let mut api = self.api.clone();
        let request = GetAccountRequest { address: address.to_owned() };
        Ok(self.call("account", api.get_account(request)).await?.nonce)
    }

    async fn health(&self) -> Result<Health, ClientError> {
        let mut health = self.health.clone();
        let request = HealthCheckRequest { service: String::new() };
        let answer = self.call("health", health.check(request)).await?;
        Ok(match answer.status() {
            ServingStatus::Serving => Health::Serving,
            _ => Health::NotServing,
        })
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }
}

fn stream_failed(node: &str, height: u64, status: Status) -> ClientError {
    if status.code() == Code::OutOfRange {
        let message = status.message().to_owned();
        return ClientError::Pruned { node: node.to_owned(), height, message };
    }
    failed(node, "blocks", status)
}
