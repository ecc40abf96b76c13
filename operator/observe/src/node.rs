//! What is known about one node.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netsplit_chains::{BlockSeen, Id, NodeState};
use serde::Serialize;

use crate::ring::{Cursor, Ring};

/// A node as of now, for people and scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    pub name: String,
    /// Its block stream is open.
    pub following: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// By what its peers know it; empty until it has answered.
    #[serde(skip)]
    pub identity: String,
    /// Version of its software; empty until it has answered.
    pub version: String,
    /// The height that its consensus works on, by its last status.
    pub height: u64,
    /// Its newest final block.
    pub final_height: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_id: Option<String>,
    /// When that became final, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_final_at_ms: Option<u64>,
    /// Neighbours that it is connected to, by its last status.
    pub peers: u32,
    /// Neighbours that it should be connected to.
    pub peers_wanted: u32,
    pub catching_up: bool,
    /// Transactions that wait at it.
    pub mempool: u64,
    /// When it was asked for its status last, and when the last question was put that it has answered; Unix milliseconds.
    #[serde(skip)]
    pub asked_at_ms: Option<u64>,
    #[serde(skip)]
    pub answered_at_ms: Option<u64>,
}

/// A final block of one node, as kept for readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Final {
    pub height: u64,
    pub id: Id,
    pub at_ms: u64,
    pub state_root: Option<Arc<str>>,
}

struct Inner {
    view: NodeView,
    blocks: Ring<Final>,
    /// Blocks that the node had pruned before they could be read; a running total.
    skipped: u64,
}

/// Shared by the tasks that follow the node and by readers; locked for moments, never across a wait.
pub(crate) struct Node {
    inner: Mutex<Inner>,
}

/// How far one reader has come with one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeCursor {
    blocks: Cursor,
    skipped: u64,
}

/// What is new about a node for one reader.
pub(crate) struct News {
    pub view: NodeView,
    pub blocks: Vec<Final>,
    pub lost: u64,
}

impl Node {
    pub fn new(name: &str, capacity: usize) -> Self {
        let view = NodeView { name: name.to_owned(), ..NodeView::default() };
        Self { inner: Mutex::new(Inner { view, blocks: Ring::new(capacity), skipped: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before the lock is let go.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn view(&self) -> NodeView {
        self.lock().view.clone()
    }

    /// For a reader that starts now.
    pub fn cursor(&self) -> NodeCursor {
        let inner = self.lock();
        NodeCursor { blocks: inner.blocks.end(), skipped: inner.skipped }
    }

    pub fn news(&self, cursor: &mut NodeCursor) -> News {
        let inner = self.lock();
        let (blocks, overflown) = inner.blocks.read(&mut cursor.blocks);
        let news = News {
            blocks: blocks.cloned().collect(),
            lost: overflown + (inner.skipped - cursor.skipped),
            view: inner.view.clone(),
        };
        cursor.skipped = inner.skipped;
        news
    }

    pub fn connected(&self) {
        let view = &mut self.lock().view;
        view.following = true;
        view.error = None;
    }

    pub fn disconnected(&self, reason: &str) {
        let view = &mut self.lock().view;
        view.following = false;
        view.error = Some(reason.to_owned());
    }

    pub fn asked(&self, at_ms: u64) {
        self.lock().view.asked_at_ms = Some(at_ms);
    }

    /// The answer to the question of that moment.
    pub fn status(&self, state: NodeState, asked_at_ms: u64) {
        let inner = &mut *self.lock();
        let view = &mut inner.view;
        view.answered_at_ms = Some(asked_at_ms);
        view.identity = state.identity;
        view.version = state.version;
        view.height = state.height;
        view.peers = state.peers.iter().filter(|peer| peer.connected).count() as u32;
        view.peers_wanted = state.peers.len() as u32;
        view.catching_up = state.catching_up;
        view.mempool = state.mempool;
    }

    /// `now_ms` stands in where the node does not know when the block became final, and bounds what it claims.
    pub fn block(&self, block: &BlockSeen, now_ms: u64) {
        let at_ms = block.final_at_ms.map_or(now_ms, |claimed| claimed.min(now_ms));
        let inner = &mut *self.lock();
        let state_root = block.state_root.clone();
        inner.blocks.push(Final { height: block.height, id: block.id, at_ms, state_root });
        let view = &mut inner.view;
        // The status lags behind by its period.
        view.height = view.height.max(block.height + 1);
        view.final_height = block.height;
        view.final_id = Some(block.id.to_string());
        view.last_final_at_ms = Some(at_ms);
    }

    pub fn skipped(&self, blocks: u64) {
        self.lock().skipped += blocks;
    }
}
