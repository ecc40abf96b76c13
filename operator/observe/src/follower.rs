//! The two tasks of each node: one follows its blocks, one asks for its status.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use netsplit_chains::{BlocksQuery, ChainClient, ClientError, StartAt};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::node::Node;
use crate::observer::{Shared, now_ms};
use crate::timeline::{NodeEvent, NodeEventKind};

/// Follows one node's blocks for ever: resumes after every break at the height after the last one seen.
pub(crate) async fn follow(shared: Arc<Shared>, node: Arc<Node>, name: String, client: Arc<dyn ChainClient>) {
    let mut follower = Follower {
        next_height: shared.config.from_height.max(1),
        backoff: shared.config.backoff,
        connected: true,
        shared,
        node,
        name,
    };
    loop {
        let ended = follower.follow_once(client.as_ref()).await;
        follower.pause(client.as_ref(), ended).await;
    }
}

struct Follower {
    shared: Arc<Shared>,
    node: Arc<Node>,
    name: String,
    next_height: u64,
    backoff: Duration,
    /// Whether the last event said so; true at first, so that a first failure is told.
    connected: bool,
}

impl Follower {
    async fn follow_once(&mut self, client: &dyn ChainClient) -> Result<(), ClientError> {
        let from = StartAt::Height(self.next_height);
        let query = BlocksQuery { from, transaction_ids: false, state_roots: true };
        let mut blocks = client.blocks(query).await?;
        self.connected = true;
        self.node.connected();
        self.event(NodeEventKind::Connected { from: self.next_height });
        while let Some(block) = blocks.next().await {
            let block = block?;
            self.node.block(&block, now_ms());
            self.next_height = block.height + 1;
            self.backoff = self.shared.config.backoff;
            self.shared.changed();
        }
        Ok(())
    }

    /// After a stream ended or did not open: says so once, skips what is gone, waits.
    async fn pause(&mut self, client: &dyn ChainClient, ended: Result<(), ClientError>) {
        let reason = match &ended {
            Ok(()) => "the node ended the stream of blocks".to_owned(),
            Err(error) => chain_of(error),
        };
        self.node.disconnected(&reason);
        if self.connected {
            self.connected = false;
            self.event(NodeEventKind::Disconnected { reason });
        }
        if matches!(ended, Err(ClientError::Pruned { .. })) {
            self.skip(client).await;
        }
        self.shared.changed();
        sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(self.shared.config.backoff_limit);
    }

    /// The next block is pruned: goes on at the node's newest, and counts what lies between as lost. The first
    /// block that is kept would not do: it may be pruned as well before the stream opens.
    async fn skip(&mut self, client: &dyn ChainClient) {
        match client.status().await {
            Ok(state) if state.final_height > self.next_height => {
                let (from, to) = (self.next_height, state.final_height - 1);
                self.node.skipped(state.final_height - self.next_height);
                self.next_height = state.final_height;
                self.event(NodeEventKind::Skipped { from, to });
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(node = %self.name, %error, "no status to skip pruned blocks by"),
        }
    }

    fn event(&self, kind: NodeEventKind) {
        self.shared.event(NodeEvent { at_ms: now_ms(), node: self.name.clone(), kind });
    }
}

/// The error with its causes, as one line.
fn chain_of(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Asks one node for its status for ever. A failed call changes nothing: whether the node is there is told by
/// its stream.
pub(crate) async fn poll(shared: Arc<Shared>, node: Arc<Node>, client: Arc<dyn ChainClient>) {
    let mut ticks = interval(shared.config.status_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked_at_ms = now_ms();
        node.asked(asked_at_ms);
        match client.status().await {
            Ok(state) => {
                node.status(state, asked_at_ms);
                shared.changed();
            }
            Err(error) => tracing::trace!(node = client.node(), %error, "no status"),
        }
    }
}
