//! A stand-in for a node at the wire: the real API over in-memory connections, a chain that is a list, and
//! switches for everything that can go wrong between a client and a node.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "only in tests, though in no test function")]

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, SinkExt};
use netsplit_chains::{Connector, Io};
use netsplit_core::{Address, SignedTransaction};
use netsplit_proto::node::node_server::{Node, NodeServer};
use netsplit_proto::node::submit_result::Outcome;
use netsplit_proto::node::{
    Account, FinalBlock, GetAccountRequest, GetBlockRequest, GetBlockResponse, GetStatusRequest,
    GetTransactionRequest, GetTransactionResponse, Mempool, Peer, RefusalCode, Refused, Status as NodeStatus,
    StreamBlocksRequest, SubmitResult, SubmitTransactionsRequest, SubmitTransactionsResponse,
};
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Blocks and a mempool, shared by the nodes that are to agree.
pub struct Chain {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// `blocks[i]` has height `i + 1`.
    blocks: Vec<Block>,
    first_height: u64,
    waiting: Vec<Waiting>,
    /// Ids in blocks and in the mempool.
    known: HashSet<Bytes>,
    /// How many transactions of a signer are in blocks, which is its next nonce.
    nonces: HashMap<Address, u64>,
    capacity: Option<usize>,
    final_at_ms: u64,
    executed_root: Bytes,
}

struct Waiting {
    signer: Address,
    nonce: u64,
    id: Bytes,
}

struct Block {
    id: [u8; 32],
    transactions: Vec<Bytes>,
}

impl Chain {
    pub fn new() -> Arc<Self> {
        let inner = Inner { first_height: 1, ..Inner::default() };
        Arc::new(Self { inner: Mutex::new(inner), changed: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn change<T>(&self, with: impl FnOnce(&mut Inner) -> T) -> T {
        let result = with(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Adds a block with all that waits and follows its signer's last one; its id is `salt` and its height.
    pub fn make_block(&self, salt: u8) -> u64 {
        self.change(|inner| {
            let height = inner.blocks.len() as u64 + 1;
            let mut id = [salt; 32];
            id[..8].copy_from_slice(&height.to_be_bytes());
            let mut waiting = std::mem::take(&mut inner.waiting);
            waiting.sort_by_key(|transaction| transaction.nonce);
            let mut transactions = Vec::new();
            for transaction in waiting {
                let next = inner.nonces.entry(transaction.signer).or_default();
                if transaction.nonce == *next {
                    *next += 1;
                    transactions.push(transaction.id);
                } else {
                    inner.waiting.push(transaction);
                }
            }
            inner.blocks.push(Block { id, transactions });
            height
        })
    }

    /// Makes blocks for ever.
    pub fn produce(self: &Arc<Self>, every: Duration) -> tokio::task::JoinHandle<()> {
        let chain = Arc::clone(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                ticks.tick().await;
                chain.make_block(0);
            }
        })
    }

    /// Drops all blocks below that height.
    pub fn prune(&self, first_height: u64) {
        self.change(|inner| inner.first_height = first_height);
    }

    /// Most transactions that may wait.
    pub fn set_capacity(&self, capacity: Option<usize>) {
        self.change(|inner| inner.capacity = capacity);
    }

    /// As a node that restarts: what waited is gone.
    pub fn lose_mempool(&self) -> usize {
        self.change(|inner| {
            let lost = std::mem::take(&mut inner.waiting);
            for transaction in &lost {
                inner.known.remove(&transaction.id);
            }
            lost.len()
        })
    }

    pub fn set_final_at_ms(&self, at_ms: u64) {
        self.change(|inner| inner.final_at_ms = at_ms);
    }

    /// What its nodes tell of the state after each block.
    pub fn set_executed_root(&self, root: [u8; 32]) {
        self.change(|inner| inner.executed_root = Bytes::copy_from_slice(&root));
    }

    pub fn committed(&self) -> u64 {
        self.lock().nonces.values().sum()
    }

    pub fn height(&self) -> u64 {
        self.lock().blocks.len() as u64
    }
}

impl Inner {
    fn submit(&mut self, bytes: &[u8]) -> Outcome {
        let refuse = |code: RefusalCode| {
            Outcome::Refused(Refused { code: code.into(), message: format!("test: {code:?}") })
        };
        let Ok(transaction) = SignedTransaction::from_bytes(bytes) else {
            return refuse(RefusalCode::Malformed);
        };
        if !transaction.verify() {
            return refuse(RefusalCode::BadSignature);
        }
        let id = Bytes::copy_from_slice(transaction.id().as_bytes());
        if self.known.contains(&id) {
            return refuse(RefusalCode::Duplicate);
        }
        let nonce = transaction.decode_body().unwrap().nonce;
        if nonce < self.nonces.get(&transaction.signer).copied().unwrap_or_default() {
            return refuse(RefusalCode::StaleNonce);
        }
        if self.capacity.is_some_and(|capacity| self.waiting.len() >= capacity) {
            return refuse(RefusalCode::MempoolFull);
        }
        // A gap waits until it is filled.
        self.known.insert(id.clone());
        self.waiting.push(Waiting { signer: transaction.signer, nonce, id: id.clone() });
        Outcome::Accepted(id)
    }
}

/// How the connections of a node behave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Up,
    /// Refuses connections and breaks those that are there.
    Down,
    /// Takes connections and carries nothing, in either direction.
    Silent,
}

/// One node over a chain. Its server ends with the runtime.
pub struct FakeNode {
    name: String,
    link: watch::Sender<Link>,
    incoming: mpsc::Sender<io::Result<DuplexStream>>,
    refused: AtomicUsize,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    chain: Arc<Chain>,
    /// Streams break after so many blocks; 0 for never.
    stream_limit: AtomicU64,
    streams: AtomicUsize,
    calls: AtomicUsize,
}

impl FakeNode {
    pub fn start(name: &str, chain: &Arc<Chain>) -> Arc<Self> {
        let (incoming, connections) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            chain: Arc::clone(chain),
            stream_limit: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        });
        let api = NodeServer::new(Api(Arc::clone(&shared)));
        tokio::spawn(async move {
            let (reporter, health) = tonic_health::server::health_reporter();
            reporter.set_serving::<NodeServer<Api>>().await;
            let server = Server::builder().add_service(api).add_service(health);
            server.serve_with_incoming(connections).await.unwrap();
        });
        Arc::new(Self {
            name: name.to_owned(),
            link: watch::Sender::new(Link::Up),
            incoming,
            refused: AtomicUsize::new(0),
            shared,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn set_link(&self, link: Link) {
        self.link.send_replace(link);
    }

    pub fn break_streams_after(&self, blocks: u64) {
        self.shared.stream_limit.store(blocks, Ordering::Relaxed);
    }

    /// How many block streams were opened.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// How many batches were submitted.
    pub fn submits(&self) -> usize {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// How many connections were refused.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn connector(self: &Arc<Self>) -> Connector {
        let node = Arc::clone(self);
        Arc::new(move || Arc::clone(&node).connect().boxed())
    }

    async fn connect(self: Arc<Self>) -> io::Result<Box<dyn Io>> {
        if *self.link.borrow() == Link::Down {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, mut near) = duplex(64 * 1024);
        let (mut far, theirs) = duplex(64 * 1024);
        let mut link = self.link.subscribe();
        tokio::spawn(async move {
            while *link.borrow_and_update() == Link::Up {
                tokio::select! {
                    result = copy_bidirectional(&mut near, &mut far) => {
                        result.ok();
                        return;
                    }
                    changed = link.changed() => changed.unwrap(),
                }
            }
            // A silent link stays so for this connection: what it swallowed is not sent again.
            link.wait_for(|link| *link == Link::Down).await.unwrap();
        });
        let mut incoming = self.incoming.clone();
        incoming.send(Ok(theirs)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(ours))
    }
}

struct Api(Arc<Shared>);

#[tonic::async_trait]
impl Node for Api {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<NodeStatus>, Status> {
        let inner = self.0.chain.lock();
        let height = inner.blocks.len() as u64;
        Ok(Response::new(NodeStatus {
            name: self.0.name.clone(),
            version: "test".to_owned(),
            height: height + 1,
            final_height: height,
            final_id: inner.blocks.last().map_or_else(Bytes::new, |b| Bytes::copy_from_slice(&b.id)),
            first_height: inner.first_height,
            peers: vec![
                Peer { name: "a".to_owned(), classes: vec!["consensus".to_owned()], ..Peer::default() },
                Peer { name: "b".to_owned(), last_error: "refused".to_owned(), ..Peer::default() },
            ],
            mempool: Some(Mempool { count: inner.waiting.len() as u64, bytes: 0 }),
            ..NodeStatus::default()
        }))
    }

    async fn get_block(&self, _: Request<GetBlockRequest>) -> Result<Response<GetBlockResponse>, Status> {
        Err(Status::unimplemented("test"))
    }

    async fn get_transaction(
        &self,
        _: Request<GetTransactionRequest>,
    ) -> Result<Response<GetTransactionResponse>, Status> {
        Err(Status::unimplemented("test"))
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<Account>, Status> {
        let address = request.into_inner().address;
        let key: Address =
            address.parse().map_err(|_| Status::invalid_argument(format!("{address} is no address")))?;
        let inner = self.0.chain.lock();
        let nonce = inner.nonces.get(&key).copied().unwrap_or_default();
        Ok(Response::new(Account { address, balance: 1, nonce, at_height: inner.blocks.len() as u64 }))
    }

    async fn submit_transactions(
        &self,
        request: Request<SubmitTransactionsRequest>,
    ) -> Result<Response<SubmitTransactionsResponse>, Status> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.0.chain.lock();
        let submit = |bytes: &Bytes| SubmitResult { outcome: Some(inner.submit(bytes)) };
        let results = request.into_inner().transactions.iter().map(submit).collect();
        Ok(Response::new(SubmitTransactionsResponse { results }))
    }

    type StreamBlocksStream = BoxStream<'static, Result<FinalBlock, Status>>;

    async fn stream_blocks(
        &self,
        request: Request<StreamBlocksRequest>,
    ) -> Result<Response<Self::StreamBlocksStream>, Status> {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        let StreamBlocksRequest { from_height, include_transactions } = request.into_inner();
        let shared = Arc::clone(&self.0);
        let first = match from_height {
            0 => shared.chain.height() + 1,
            height => height,
        };
        let kept = shared.chain.lock().first_height;
        if first < kept {
            return Err(Status::out_of_range(format!("block {first} is pruned, the first kept is {kept}")));
        }
        let changes = shared.chain.changed.subscribe();
        let blocks =
            stream::unfold((shared, changes, first), move |(shared, mut changes, height)| async move {
                let limit = shared.stream_limit.load(Ordering::Relaxed);
                if limit != 0 && height >= first + limit {
                    return Some((
                        Err(Status::unavailable("test: the stream breaks")),
                        (shared, changes, height),
                    ));
                }
                loop {
                    changes.mark_unchanged();
                    if let Some(block) = shared.chain.lock().block(height, include_transactions) {
                        return Some((Ok(block), (Arc::clone(&shared), changes, height + 1)));
                    }
                    changes.changed().await.ok()?;
                }
            });
        Ok(Response::new(blocks.boxed()))
    }
}

impl Inner {
    fn block(&self, height: u64, include_transactions: bool) -> Option<FinalBlock> {
        let block = self.blocks.get(height as usize - 1)?;
        Some(FinalBlock {
            height,
            id: Bytes::copy_from_slice(&block.id),
            time_ms: height,
            transaction_count: block.transactions.len() as u32,
            transaction_ids: if include_transactions { block.transactions.clone() } else { Vec::new() },
            final_at_ms: self.final_at_ms,
            executed_root: self.executed_root.clone(),
            ..FinalBlock::default()
        })
    }
}
