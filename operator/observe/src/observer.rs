//! The observer of one testnet, and the watches that read from it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netsplit_chains::ChainClient;
use netsplit_plan::experiment::{FaultObserved, FinalBlock, NodeObserved, Observed};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::follower::{follow, poll};
use crate::host::{HostCursor, HostSampler};
use crate::node::{Final, Node, NodeCursor, NodeView};
use crate::ring::{Cursor, Ring};
use crate::timeline::NodeEvent;

/// How to observe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObserverConfig {
    /// The first height wanted of each node, at least 1.
    pub from_height: u64,
    /// Blocks kept for each node, for watches that have not read them yet; some 150 bytes each.
    pub blocks_kept: usize,
    /// Events kept for all nodes together.
    pub events_kept: usize,
    /// Pause between two status calls to one node: height, peers and mempool are this old at most.
    pub status_every: Duration,
    /// Pause after a stream broke off, doubled up to the limit while it cannot be opened.
    pub backoff: Duration,
    pub backoff_limit: Duration,
}

impl Default for ObserverConfig {
    fn default() -> Self {
        Self {
            from_height: 1,
            blocks_kept: 4_096,
            events_kept: 1_024,
            status_every: Duration::from_millis(500),
            backoff: Duration::from_millis(50),
            backoff_limit: Duration::from_millis(500),
        }
    }
}

/// What the backend knows of a node's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    pub node: String,
    pub up: bool,
    /// How often it was started again.
    pub restarts: u32,
}

/// What the tasks that follow nodes share with readers.
pub(crate) struct Shared {
    pub config: ObserverConfig,
    pub nodes: Vec<Arc<Node>>,
    events: Mutex<Ring<NodeEvent>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Shared {
    pub fn event(&self, event: NodeEvent) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.changed();
    }

    pub fn changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Follows all nodes of a testnet until it is dropped.
pub struct Observer {
    shared: Arc<Shared>,
    host: Arc<HostSampler>,
    /// Ends its tasks when dropped.
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("nodes", &self.shared.nodes.len()).finish_non_exhaustive()
    }
}

impl Observer {
    /// Starts to follow all nodes, by name, in the background of the current tokio runtime.
    pub fn start(clients: Vec<(String, Arc<dyn ChainClient>)>) -> Self {
        Self::start_with(ObserverConfig::default(), clients)
    }

    /// As [`start`](Self::start), configured.
    pub fn start_with(config: ObserverConfig, clients: Vec<(String, Arc<dyn ChainClient>)>) -> Self {
        let (changed, _) = watch::channel(0);
        let shared = Arc::new(Shared {
            nodes: clients.iter().map(|(name, _)| Arc::new(Node::new(name, config.blocks_kept))).collect(),
            events: Mutex::new(Ring::new(config.events_kept)),
            changed,
            config,
        });
        let mut tasks = JoinSet::new();
        for ((name, client), node) in clients.into_iter().zip(&shared.nodes) {
            tasks.spawn(follow(Arc::clone(&shared), Arc::clone(node), name, Arc::clone(&client)));
            tasks.spawn(poll(Arc::clone(&shared), Arc::clone(node), client));
        }
        Self { shared, host: Arc::new(HostSampler::start()), _tasks: tasks }
    }

    /// All nodes as of now, in the order given.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.shared.nodes.iter().map(|node| node.view()).collect()
    }

    /// Turns at every change: a block, a status, a connection. To wait for something, check it after each turn.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Waits until that holds for the nodes. The caller sets the deadline.
    pub async fn wait_until(&self, mut holds: impl FnMut(&[NodeView]) -> bool) {
        let mut changes = self.changes();
        while !holds(&self.nodes()) {
            if changes.changed().await.is_err() {
                unreachable!("the sender lives as long as self");
            }
        }
    }

    /// Begins to watch: what becomes final from now on. Any number of watches may be open.
    pub fn watch(&self) -> Watch {
        Watch {
            shared: Arc::clone(&self.shared),
            cursors: self.shared.nodes.iter().map(|node| node.cursor()).collect(),
            host_cursor: self.host.cursor(),
            host: Arc::clone(&self.host),
        }
    }

    /// What happened at the nodes since the observer started, oldest first, and how many older events no longer
    /// fit.
    pub fn events(&self) -> (Vec<NodeEvent>, u64) {
        self.events_since(&mut EventCursor::default())
    }

    /// What happened since that cursor's last use, and how many events it came too late for.
    pub fn events_since(&self, cursor: &mut EventCursor) -> (Vec<NodeEvent>, u64) {
        let events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        let (new, lost) = events.read(&mut cursor.0);
        (new.cloned().collect(), lost)
    }
}

/// How far a reader of events has come; a new one has seen none.
#[derive(Debug, Clone, Copy)]
pub struct EventCursor(Cursor);

impl Default for EventCursor {
    fn default() -> Self {
        Self(Ring::<NodeEvent>::beginning())
    }
}

/// One reader of an observer: each snapshot tells what is new since the last one.
pub struct Watch {
    shared: Arc<Shared>,
    cursors: Vec<NodeCursor>,
    host: Arc<HostSampler>,
    host_cursor: HostCursor,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("nodes", &self.cursors.len()).finish_non_exhaustive()
    }
}

impl Watch {
    /// Everything new since the last snapshot, or since the watch began. What only the backend knows is handed
    /// in: a node that `processes` leaves out counts as not running.
    ///
    /// Blocks that did not fit the observer's buffer between two snapshots are counted in `lost_blocks`.
    pub fn snapshot(&mut self, processes: &[ProcessState], faults: Vec<FaultObserved>) -> Observed {
        let nodes = self.shared.nodes.iter().zip(&mut self.cursors).map(|(node, cursor)| {
            let news = node.news(cursor);
            let process = processes.iter().find(|process| process.node == news.view.name);
            NodeObserved {
                up: process.is_some_and(|process| process.up),
                restarts: process.map_or(0, |process| process.restarts),
                following: news.view.following,
                final_height: news.view.final_height,
                new_blocks: news.blocks.iter().map(final_block).collect(),
                lost_blocks: news.lost,
                peers: news.view.peers,
                name: news.view.name,
            }
        });
        Observed {
            nodes: nodes.collect(),
            faults,
            host: self.host.pressure(&mut self.host_cursor),
            ..Observed::default()
        }
    }
}

fn final_block(block: &Final) -> FinalBlock {
    let state_root = block.state_root.as_deref().map(str::to_owned);
    FinalBlock { height: block.height, id: block.id.to_string(), at_ms: block.at_ms, state_root }
}

/// The clock of all times here: Unix milliseconds. Read anew each time, since the nodes' own times follow the
/// system's clock too, wherever it is set.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
