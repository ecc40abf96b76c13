//! Follows the final blocks of every node over its API, through every restart.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use netsplit_proto::node::{GetStatusRequest, Status, StreamBlocksRequest, node_client::NodeClient};
use tokio::{runtime::Runtime, time::timeout};
use tonic::transport::{Channel, Endpoint};

use crate::agreement::Agreement;

const CALL_LIMIT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(2);
/// A node that is away is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// Follows until it is dropped.
#[derive(Debug)]
pub struct Followers {
    agreement: Arc<Mutex<Agreement>>,
    apis: Vec<(String, String)>,
    runtime: Runtime,
}

impl Followers {
    /// Nodes by name and API address.
    pub fn start(apis: Vec<(String, String)>) -> Result<Self> {
        let names = apis.iter().map(|(name, _)| name.clone()).collect();
        let agreement = Arc::new(Mutex::new(Agreement::new(names)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        for (node, (_, api)) in apis.iter().enumerate() {
            runtime.spawn(follow(Arc::clone(&agreement), node, api.clone()));
        }
        Ok(Self { agreement, apis, runtime })
    }

    pub fn agreement(&self) -> MutexGuard<'_, Agreement> {
        lock(&self.agreement)
    }

    /// What a node says of itself now.
    pub fn status(&self, name: &str) -> Result<Status> {
        let (_, api) = self.apis.iter().find(|(known, _)| known == name).context("no such node")?;
        self.runtime.block_on(async { status(&mut connect(api).await?).await })
    }
}

fn lock(agreement: &Mutex<Agreement>) -> MutexGuard<'_, Agreement> {
    // Every change is whole before the lock is let go.
    agreement.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(agreement: Arc<Mutex<Agreement>>, node: usize, api: String) {
    loop {
        // A node that is killed breaks off its stream: that it comes back is what the deadlines are for.
        follow_once(&agreement, node, &api).await.ok();
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow_once(agreement: &Mutex<Agreement>, node: usize, api: &str) -> Result<()> {
    let mut client = connect(api).await?;
    let first = status(&mut client).await?.first_height;
    let from_height = lock(agreement).resume(node, first);
    let request = StreamBlocksRequest { from_height, include_transactions: false };
    let mut blocks = timeout(CALL_LIMIT, client.stream_blocks(request)).await??.into_inner();
    while let Some(block) = blocks.message().await? {
        lock(agreement).tell(node, block.height, &block.id);
    }
    Ok(())
}

async fn connect(api: &str) -> Result<NodeClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{api}"))?
        .connect_timeout(CALL_LIMIT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    Ok(NodeClient::new(endpoint.connect().await?))
}

async fn status(client: &mut NodeClient<Channel>) -> Result<Status> {
    Ok(timeout(CALL_LIMIT, client.get_status(GetStatusRequest {})).await??.into_inner())
}
