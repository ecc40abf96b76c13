//! The shaping thread and the handle to it.
//!
//! One thread owns queues, rules and links: it admits what comes, releases what is due, renews the gate. Whoever holds
//! the [`Shaper`] tells it the whole desired state; the thread goes back to the base by itself when a fault's lease ends.

use std::{
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    sync::mpsc::{self, Receiver, SyncSender},
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    hold::Inlet, link::Counters, queue::QueueError, state::LinkState, table::LinkTable, worker::Worker,
};
use crate::{
    model::{PeerPorts, Rect},
    netlink::NetlinkError,
};

/// How long packets are still queued after the thread last did its work.
pub const DEFAULT_GATE: Duration = Duration::from_secs(2);
/// A thread that is silent for so long hangs.
const ANSWER: Duration = Duration::from_secs(5);
const COMMANDS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("cannot {what}")]
    Rules {
        what: &'static str,
        #[source]
        source: NetlinkError,
    },
    #[error("cannot start the shaping thread")]
    Thread(#[source] std::io::Error),
    #[error("the link from {from} to {to} {problem}")]
    Link { from: Ipv4Addr, to: Ipv4Addr, problem: &'static str },
    #[error("the shaping thread {0}")]
    Gone(String),
}

#[derive(Debug, Clone, Copy)]
pub struct ShapeOptions {
    pub ports: PeerPorts,
    /// UDP port that timed probes are sent to.
    pub timed: u16,
    /// How long packets are queued after the thread's last sign of life. At least 100 ms.
    pub gate: Duration,
    /// The queues of this network namespace that are used: 64 from here.
    pub first_queue: u16,
}

impl Default for ShapeOptions {
    fn default() -> Self {
        Self { ports: PeerPorts::default(), timed: 26_605, gate: DEFAULT_GATE, first_queue: 100 }
    }
}

/// What happened on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub number: u32,
    pub state: LinkState,
    pub counters: Counters,
}

/// What happened to all, and what went wrong with the emulation itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShapeReport {
    pub links: Vec<LinkReport>,
    /// Packets held now.
    pub held: usize,
    /// Packets that a full queue lost.
    pub queue_losses: u64,
    /// Packets that a full receive buffer lost.
    pub buffer_losses: u64,
    /// Verdicts that the kernel did not take, and copies that could not be sent.
    pub failures: u64,
    /// How often the thread came too late to keep the gate: packets then passed unshaped.
    pub lapses: u64,
    /// Probes that came and were not counted.
    pub missed: u64,
    /// For how long at most, in milliseconds.
    pub longest_lapse_ms: u64,
    /// Whether the faults' lease has ended: the links are at their base.
    pub lease_ended: bool,
    /// Whether all rules are in the kernel.
    pub rules_intact: bool,
    /// Whether the thread runs before ordinary ones.
    pub in_time: bool,
    /// Further sentences.
    pub problems: Vec<String>,
}

impl ShapeReport {
    /// What the emulation itself did wrong, as sentences.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.problems.clone();
        let mut count = |count: u64, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        count(self.queue_losses, "packets were lost by a full packet queue of the link agent");
        count(self.buffer_losses, "packets were lost by a full receive buffer of the link agent");
        count(self.failures, "verdicts or copies of the link agent failed");
        count(self.missed, "probes came faster than the link agent counts them");
        if self.lapses > 0 {
            faults.push(format!(
                "the link agent stood still {} times: packets passed unshaped for up to {} ms",
                self.lapses, self.longest_lapse_ms
            ));
        }
        if !self.rules_intact {
            faults.push("rules of the link agent are missing in the kernel".to_owned());
        }
        faults
    }
}

#[derive(Debug)]
pub(super) enum Command {
    Set(LinkTable),
    Renew(Duration),
    Cut(Vec<Rect>),
    Report,
}

#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Report(Box<ShapeReport>),
}

pub(super) type Order = (Command, SyncSender<Result<Answer, ShapeError>>);

/// Shapes the links of the network namespace it is started in. Ends with its value, and its rules with it.
#[derive(Debug)]
pub struct Shaper {
    orders: Option<SyncSender<Order>>,
    wake: UnixStream,
    thread: Option<JoinHandle<Result<(), ShapeError>>>,
}

impl Shaper {
    pub fn start(options: ShapeOptions) -> Result<Self, ShapeError> {
        Self::start_with(options, None)
    }

    /// With an inlet, the thread takes in the probes that come out of it, and tells how long each was held.
    pub fn start_with(options: ShapeOptions, inlet: Option<Inlet>) -> Result<Self, ShapeError> {
        let (wake, woken) = UnixStream::pair().map_err(ShapeError::Thread)?;
        wake.set_nonblocking(true).map_err(ShapeError::Thread)?;
        woken.set_nonblocking(true).map_err(ShapeError::Thread)?;
        let (orders, queue) = mpsc::sync_channel(COMMANDS);
        let (ready, opened) = mpsc::sync_channel(1);
        let work = move || match Worker::open(options, inlet) {
            Ok(mut worker) => {
                // Nobody is left to be told when this fails, which the first order finds out.
                ready.send(Ok(())).ok();
                worker.run(&Inbox { queue, woken })
            }
            Err(error) => {
                ready.send(Err(error)).ok();
                Ok(())
            }
        };
        let builder = std::thread::Builder::new().name("shaper".to_owned());
        let thread = builder.spawn(work).map_err(ShapeError::Thread)?;
        opened.recv().map_err(|_| ShapeError::Gone("has ended".to_owned()))??;
        Ok(Self { orders: Some(orders), wake, thread: Some(thread) })
    }

    /// Makes exactly these links shaped. A link keeps its counters and its place in its random sequence.
    pub fn set(&self, table: LinkTable) -> Result<(), ShapeError> {
        self.ask(Command::Set(table)).map(drop)
    }

    /// Keeps the faults for `lease` from now on; one that has ended stays so.
    pub fn renew(&self, lease: Duration) -> Result<(), ShapeError> {
        self.ask(Command::Renew(lease)).map(drop)
    }

    /// Follows the cuts, so that held packets of a link that is cut are dropped. The kernel cuts by itself; tell it first.
    pub fn cut(&self, rects: Vec<Rect>) -> Result<(), ShapeError> {
        self.ask(Command::Cut(rects)).map(drop)
    }

    pub fn report(&self) -> Result<ShapeReport, ShapeError> {
        match self.ask(Command::Report)? {
            Answer::Report(report) => Ok(*report),
            Answer::Done => Err(ShapeError::Gone("answered another question".to_owned())),
        }
    }

    fn ask(&self, command: Command) -> Result<Answer, ShapeError> {
        let gone = || ShapeError::Gone("has ended".to_owned());
        let (reply, answer) = mpsc::sync_channel(1);
        self.orders.as_ref().ok_or_else(gone)?.try_send((command, reply)).map_err(|_| gone())?;
        self.awake();
        match answer.recv_timeout(ANSWER) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(ShapeError::Gone(format!("did not answer within {} s", ANSWER.as_secs())))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    fn awake(&self) {
        // Full: it will wake anyway. Closed: it has ended, which the answer tells.
        (&self.wake).write_all(&[0]).ok();
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.orders = None;
        self.awake();
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            tracing::error!(%error, "the shaping thread ended");
        }
    }
}

/// The thread's end of the handle.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Receiver<Order>,
    pub(super) woken: UnixStream,
}

impl Inbox {
    /// The next order; an error when the handle is gone.
    pub(super) fn next(&self) -> Result<Option<Order>, mpsc::TryRecvError> {
        match self.queue.try_recv() {
            Ok(order) => Ok(Some(order)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn calm(&self) {
        let mut bytes = [0; 64];
        while (&self.woken).read(&mut bytes).is_ok_and(|length| length == bytes.len()) {}
    }
}
