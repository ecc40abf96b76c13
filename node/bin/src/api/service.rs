//! The calls of the node service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use netsplit_core::{Height, PublicKey};
use netsplit_net::NetHandle;
use netsplit_proto::node as wire;
use netsplit_proto::node::node_server::Node;
use netsplit_store::{Chain, Store};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::blocks::{read, store_error};
use super::convert::{bytes_of, final_block, hash_of, peer, submit_result};
use crate::admission::Entrance;
use crate::engine::EngineHandle;
use crate::feed::Feed;
use crate::pool::Pool;

/// Transactions in one call.
const MAX_SUBMIT: usize = 1000;
/// Followers of blocks.
const MAX_FOLLOWERS: usize = 256;
/// How long a submission may wait for its signatures to be verified.
const SUBMIT_TIME: Duration = Duration::from_secs(10);

/// What the service answers from.
pub(crate) struct ApiContext<S> {
    pub chain: Arc<Chain<S>>,
    pub pool: Arc<Pool>,
    pub feed: Arc<Feed>,
    pub entrance: Entrance,
    pub engine: EngineHandle,
    pub net: NetHandle,
    pub started: Instant,
    pub name: String,
    pub roles: Vec<String>,
    pub chain_name: String,
    pub node_key: PublicKey,
    pub validator: Option<PublicKey>,
}

pub(crate) struct NodeService<S> {
    context: Arc<ApiContext<S>>,
    followers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl<S: Store + 'static> NodeService<S> {
    pub(crate) fn new(context: Arc<ApiContext<S>>, stop: CancellationToken) -> Self {
        Self { context, followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)), stop }
    }
}

type BlockStream = Pin<Box<dyn Stream<Item = Result<wire::FinalBlock, Status>> + Send>>;

#[tonic::async_trait]
impl<S: Store + 'static> Node for NodeService<S> {
    type StreamBlocksStream = BlockStream;

    async fn get_status(&self, _: Request<wire::GetStatusRequest>) -> Result<Response<wire::Status>, Status> {
        let context = &self.context;
        let round = context.engine.round_state().await.ok_or_else(|| {
            Status::unavailable("consensus starts, stops or is too busy to answer; try again")
        })?;
        let head = context.chain.head();
        let (count, bytes) = context.pool.size();
        Ok(Response::new(wire::Status {
            name: context.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: context.roles.clone(),
            chain_name: context.chain_name.clone(),
            genesis_hash: bytes_of(&context.chain.chain_id()),
            height: round.height,
            round: round.round.unwrap_or(0),
            step: round.step.to_owned(),
            final_height: head.height,
            final_id: bytes_of(&head.id),
            final_time_ms: head.time_ms,
            state_root: bytes_of(&head.state_root),
            first_height: context.chain.first_block(),
            peers: context.net.peers().into_iter().map(peer).collect(),
            mempool: Some(wire::Mempool { count: count as u64, bytes: bytes as u64 }),
            catching_up: is_behind(head.height, round.best_peer_height),
            uptime_ms: context.started.elapsed().as_millis() as u64,
            validator_address: context.validator.map(|key| key.to_string()).unwrap_or_default(),
            node_key: context.node_key.to_string(),
        }))
    }

    async fn get_block(
        &self,
        request: Request<wire::GetBlockRequest>,
    ) -> Result<Response<wire::GetBlockResponse>, Status> {
        let height = request.into_inner().height;
        if height == 0 {
            return Err(Status::invalid_argument(
                "height 0 is the genesis, which has no block; blocks start at 1",
            ));
        }
        let context = &self.context;
        let block = read(&context.chain, &context.feed, height).await?;
        let stored = context.chain.block(height).map_err(|error| store_error(&error))?;
        let (bytes, _) =
            stored.ok_or_else(|| Status::not_found(format!("block {height} was just pruned")))?;
        Ok(Response::new(wire::GetBlockResponse { block: Some(final_block(&block, true)), bytes }))
    }

    async fn get_transaction(
        &self,
        request: Request<wire::GetTransactionRequest>,
    ) -> Result<Response<wire::GetTransactionResponse>, Status> {
        let id = hash_of("a transaction's id", &request.into_inner().id)?;
        let context = &self.context;
        let missing =
            || Status::not_found(format!("transaction {id} is neither in a kept block nor waiting here"));
        if let Some(transaction) = context.pool.get(&id) {
            let bytes = transaction.to_bytes();
            return Ok(Response::new(wire::GetTransactionResponse {
                id: bytes_of(&id),
                height: 0,
                index: 0,
                bytes,
            }));
        }
        let place = context.chain.transaction(&id).map_err(|error| store_error(&error))?;
        let (height, index) = place.ok_or_else(missing)?;
        let chain = context.chain.clone();
        let block = tokio::task::spawn_blocking(move || chain.block(height))
            .await
            .map_err(|_| Status::internal("reading the block failed"))?
            .map_err(|error| store_error(&error))?;
        let (bytes, _) = block.ok_or_else(missing)?;
        let block = netsplit_core::Block::from_bytes(&bytes).map_err(|error| store_error(&error))?;
        let transaction = block.transactions.get(index as usize).ok_or_else(missing)?;
        let bytes = transaction.to_bytes();
        Ok(Response::new(wire::GetTransactionResponse { id: bytes_of(&id), height, index, bytes }))
    }

    async fn get_account(
        &self,
        request: Request<wire::GetAccountRequest>,
    ) -> Result<Response<wire::Account>, Status> {
        let address = request.into_inner().address;
        let key: PublicKey = address.parse().map_err(|error: netsplit_core::KeyError| {
            Status::invalid_argument(crate::application::chain_of(&error))
        })?;
        // The height first: the account is then as of this height or a later one, never an earlier one.
        let at_height = self.context.chain.height();
        let account = self.context.chain.account(&key).map_err(|error| store_error(&error))?;
        Ok(Response::new(wire::Account {
            address,
            balance: account.balance,
            nonce: account.nonce,
            at_height,
        }))
    }

    async fn submit_transactions(
        &self,
        request: Request<wire::SubmitTransactionsRequest>,
    ) -> Result<Response<wire::SubmitTransactionsResponse>, Status> {
        let transactions = request.into_inner().transactions;
        let count = transactions.len();
        if count > MAX_SUBMIT {
            return Err(Status::invalid_argument(format!(
                "{count} transactions in one call, the most allowed are {MAX_SUBMIT}"
            )));
        }
        let results = tokio::time::timeout(SUBMIT_TIME, self.context.entrance.submit(transactions))
            .await
            .map_err(|_| Status::unavailable("the node is too busy to verify the signatures; try again"))?;
        let results = results.into_iter().map(submit_result).collect();
        Ok(Response::new(wire::SubmitTransactionsResponse { results }))
    }

    async fn stream_blocks(
        &self,
        request: Request<wire::StreamBlocksRequest>,
    ) -> Result<Response<BlockStream>, Status> {
        let wire::StreamBlocksRequest { from_height, include_transactions } = request.into_inner();
        let context = self.context.clone();
        let first = context.chain.first_block();
        let from = if from_height == 0 { context.chain.height() + 1 } else { from_height };
        if from < first {
            return Err(Status::out_of_range(format!(
                "block {from} is pruned here; the first one kept is {first}"
            )));
        }
        let place = self.followers.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MAX_FOLLOWERS} followers are connected, no more are taken"))
        })?;
        let head = context.feed.head();
        let follow = stream::unfold(Some((from, head, place)), move |state| {
            let context = context.clone();
            async move {
                let (height, mut head, place) = state?;
                // An error means that the feed has ended, and with it the node.
                head.wait_for(|head| *head >= height).await.ok()?;
                match read(&context.chain, &context.feed, height).await {
                    Ok(block) => {
                        Some((Ok(final_block(&block, include_transactions)), Some((height + 1, head, place))))
                    }
                    Err(status) if status.code() == tonic::Code::NotFound => {
                        let text =
                            format!("the follower is too slow: block {height} was pruned before it was read");
                        Some((Err(Status::out_of_range(text)), None))
                    }
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        let stop = self.stop.clone();
        let until_stop = follow.take_until(stop.cancelled_owned());
        Ok(Response::new(Box::pin(until_stop)))
    }
}

/// Whether a neighbour has decided more than this node, beyond the block that is just arriving.
pub(crate) fn is_behind(final_height: Height, best_peer_height: Height) -> bool {
    // A peer that decides height h + 2 has h + 1 final; one step apart is the rule, not a lag.
    best_peer_height > final_height + 2
}
