//! A CometBFT node over its RPC.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde_json::json;
use tokio::time::sleep;

use super::keys::hex;
use super::rpc::Rpc;
use super::wire::{self, Range};
use crate::client::{
    BlockSeen, BlockStream, BlocksQuery, ChainClient, ClientError, Connector, Health, NodeState, StartAt,
    Submission,
};

/// A node that has told its newest block is asked for the next after this long: so much later a block may be seen than it
/// became final. A node answers in a quarter of a millisecond.
const POLL: Duration = Duration::from_millis(50);
/// How often a node is asked for the state after a block that it has stored, 5 s in all: it is about to execute it.
const EXECUTION: u32 = 100;
/// Most blocks that the node tells of in one answer.
const RANGE: u64 = 20;
/// What the node is configured to take in one request.
pub(super) const MAX_BATCH: usize = 100;

/// Connects when first used, and again after a connection is lost.
pub(super) struct CometbftClient {
    rpc: Arc<Rpc>,
}

impl fmt::Debug for CometbftClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CometbftClient").field("node", &self.rpc.node).finish_non_exhaustive()
    }
}

impl CometbftClient {
    pub fn new(node: &str, connector: Connector) -> Self {
        Self { rpc: Arc::new(Rpc::new(node, connector)) }
    }
}

#[async_trait]
impl ChainClient for CometbftClient {
    fn node(&self) -> &str {
        &self.rpc.node
    }

    /// Only peers that it is connected to: it does not tell of others.
    async fn status(&self) -> Result<NodeState, ClientError> {
        const CALL: &str = "status";
        let calls = ["status", "net_info", "num_unconfirmed_txs"].map(|method| (method, json!({})));
        let [status, net, waiting] = self.rpc.calls(CALL, calls).await?;
        let (status, net) = (self.rpc.read(CALL, status)?, self.rpc.read(CALL, net)?);
        Ok(wire::state(status, net, &self.rpc.read(CALL, waiting)?))
    }

    async fn blocks(&self, query: BlocksQuery) -> Result<BlockStream, ClientError> {
        let status = sync_status(&self.rpc, BLOCKS).await?.sync_info;
        let next = match query.from {
            StartAt::Height(height) => height.max(1),
            StartAt::Next => status.latest_block_height + 1,
        };
        let follower = Follower {
            rpc: Arc::clone(&self.rpc),
            next,
            with_ids: query.transaction_ids,
            with_roots: query.state_roots,
            reached: false,
            unexecuted: 0,
            seen: VecDeque::new(),
        };
        if next < status.earliest_block_height {
            return Err(follower.pruned());
        }
        // Ends with the first error: what follows one would leave a gap.
        let blocks = stream::try_unfold(follower, |mut follower| async move {
            let block = follower.block().await?;
            Ok::<_, ClientError>(Some((block, follower)))
        });
        Ok(blocks.boxed())
    }

    async fn submit(&self, transactions: Vec<Bytes>) -> Result<Vec<Submission>, ClientError> {
        const CALL: &str = "submit";
        let call = |bytes: &Bytes| ("broadcast_tx_sync", json!({ "tx": STANDARD.encode(bytes) }));
        let answers = self.rpc.batch(CALL, transactions.iter().map(call).collect()).await?;
        let submission = |answer| wire::submission(answer).map_err(|what| self.rpc.malformed(CALL, what));
        answers.into_iter().map(submission).collect()
    }

    async fn next_nonce(&self, address: &str) -> Result<u64, ClientError> {
        const CALL: &str = "account";
        let query = self.rpc.call(CALL, ("abci_query", json!({ "data": hex(address.as_bytes()) }))).await?;
        wire::next_nonce(query).map_err(|what| self.rpc.malformed(CALL, what))
    }

    async fn health(&self) -> Result<Health, ClientError> {
        let status = sync_status(&self.rpc, "health").await?;
        Ok(if status.sync_info.catching_up { Health::NotServing } else { Health::Serving })
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }
}

const BLOCKS: &str = "blocks";

async fn sync_status(rpc: &Rpc, name: &'static str) -> Result<wire::Status, ClientError> {
    rpc.call(name, ("status", json!({}))).await
}

/// Asks for blocks again and again.
struct Follower {
    rpc: Arc<Rpc>,
    /// Height of the next block to ask for.
    next: u64,
    with_ids: bool,
    with_roots: bool,
    /// The node holds a block to begin its answer with: it calls an empty range an error.
    reached: bool,
    /// How often the state after block `next` was not there yet.
    unexecuted: u32,
    /// Not handed on yet.
    seen: VecDeque<BlockSeen>,
}

impl Follower {
    /// Waits for the next block.
    async fn block(&mut self) -> Result<BlockSeen, ClientError> {
        loop {
            if let Some(block) = self.seen.pop_front() {
                return Ok(block);
            }
            if !self.ask().await? {
                sleep(POLL).await;
            }
        }
    }

    /// Whether there was anything new.
    async fn ask(&mut self) -> Result<bool, ClientError> {
        // One block that is known already, if there is one, so that the range is never empty.
        let first = self.next.max(2) - 1;
        if !self.reached {
            let status = sync_status(&self.rpc, BLOCKS).await?.sync_info;
            self.reached = status.latest_block_height >= first;
            return Ok(self.reached);
        }
        let range = json!({ "minHeight": first.to_string(), "maxHeight": (first + RANGE - 1).to_string() });
        let headers = self.rpc.call(BLOCKS, ("blockchain", range)).await?;
        let mut blocks = match wire::blocks(headers, self.next) {
            Ok(Range::Blocks(blocks)) => blocks,
            Ok(Range::Pruned) => return Err(self.pruned()),
            Err(what) => return Err(self.rpc.malformed(BLOCKS, what)),
        };
        if self.with_ids {
            for block in blocks.iter_mut().filter(|block| block.transactions > 0) {
                let height = json!({ "height": block.height.to_string() });
                let whole = self.rpc.call(BLOCKS, ("block", height)).await?;
                block.transaction_ids =
                    wire::transaction_ids(whole).map_err(|what| self.rpc.malformed(BLOCKS, what))?;
            }
        }
        if self.with_roots {
            self.add_roots(&mut blocks).await?;
        }
        self.next += blocks.len() as u64;
        self.seen.extend(blocks);
        Ok(!self.seen.is_empty())
    }

    /// A node tells of a block before it has executed it: such a block and those above it are left for later.
    async fn add_roots(&mut self, blocks: &mut Vec<BlockSeen>) -> Result<(), ClientError> {
        for place in 0..blocks.len() {
            // One at a time: each answer tells of every transaction of its block.
            let height = json!({ "height": blocks[place].height.to_string() });
            let [answer] = self.rpc.calls(BLOCKS, [("block_results", height)]).await?;
            match answer {
                Ok(results) => {
                    blocks[place].state_root = wire::state_root(self.rpc.read(BLOCKS, Ok(results))?);
                }
                Err(_) if self.unexecuted < EXECUTION => {
                    self.unexecuted += u32::from(place == 0);
                    blocks.truncate(place);
                    return Ok(());
                }
                // It keeps no results: none is waited for again.
                Err(_) => {
                    self.with_roots = false;
                    return Ok(());
                }
            }
            self.unexecuted = 0;
        }
        Ok(())
    }

    fn pruned(&self) -> ClientError {
        let message = "it keeps later blocks only".to_owned();
        ClientError::Pruned { node: self.rpc.node.clone(), height: self.next, message }
    }
}
