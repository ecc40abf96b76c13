//! The link agent: one process, one thread, one loop.
//!
//! It is started in the hub namespace with a [`crate::frame`] socket to whoever supervises it, and does only what it is asked
//! there: answers come in the order of the requests. It renews no lease by itself, so that a cut ends with the last of
//! those who want it, and it ends with its socket. A new agent is told the nodes and the desired cuts again; its first
//! transaction replaces what an earlier one left in the kernel.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::{Deserialize, Serialize};

use crate::{
    cuts::{CutError, CutTable, Renewal},
    emulator::{Emulator, LinksEvidence},
    frame::{self, Frame},
    model::{Cut, CutEvidence, PeerPorts},
    probe::{ProbeError, Prober},
    shape::{LinkUpdate, ShapeError, ShapeOptions},
    track::random,
    tracker::Tracker,
};

/// What the supervisor asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// The nodes to probe from; their network namespaces come as descriptors, in this order.
    AddNodes {
        addresses: Vec<Ipv4Addr>,
    },
    /// The whole desired state. Named cuts are renewed.
    SetCuts {
        cuts: Vec<Cut>,
    },
    /// The desired state of shaped links.
    SetLinks {
        update: LinkUpdate,
    },
    /// Keeps the faulted links for so long from now on.
    RenewLinks {
        lease: Duration,
    },
    Evidence,
    Links,
}

/// What the agent answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    Done,
    Evidence(Vec<CutEvidence>),
    Links(LinksEvidence),
    /// Nothing was changed; the sentence says why.
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the link agent lost its supervisor's socket")]
    Socket(#[source] io::Error),
    #[error("the supervisor's request is not understood")]
    Request(#[source] io::Error),
    #[error(transparent)]
    Cut(#[from] CutError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// How the agent is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub ports: PeerPorts,
    /// Overrides what the kernel was found to do.
    pub renewal: Option<Renewal>,
}

/// How often the rules are looked at when nobody asks.
pub(crate) const INSPECTION: Duration = Duration::from_millis(500);

/// Serves requests until the other end of `control` is closed.
pub fn run(control: &OwnedFd, options: Options) -> Result<(), AgentError> {
    let mut agent = Agent {
        table: CutTable::open(options.ports, options.renewal)?,
        prober: Prober::new(options.ports)?,
        tracker: Tracker::default(),
        emulator: Emulator::new(
            ShapeOptions { ports: options.ports, ..ShapeOptions::default() },
            random().map_err(ProbeError::Random)?,
        ),
    };
    let mut inspected = Instant::now();
    loop {
        let wakes = [agent.prober.wake_after(), agent.emulator.wake_after(), Some(INSPECTION)];
        let wait = wakes.into_iter().flatten().min().unwrap_or(INSPECTION);
        let asked = Agent::wait(control, wait).map_err(AgentError::Socket)?;
        agent.prober.receive();
        agent.emulator.receive();
        // Before any request: one that waited while this process was stopped must not renew what has ended in between.
        agent.tracker.expire(&mut agent.prober, Instant::now());
        agent.emulator.expire(Instant::now())?;
        if asked {
            let Some(frame) = frame::receive(control).map_err(AgentError::Socket)? else { return Ok(()) };
            let response = agent.answer(frame)?;
            let bytes = frame::encode(&response).map_err(AgentError::Request)?;
            match frame::send(control.as_fd(), &bytes, &[]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result.map_err(AgentError::Socket)?,
            }
        }
        agent.prober.send_due();
        agent.emulator.send_due();
        if inspected.elapsed() >= INSPECTION {
            inspected = Instant::now();
            agent.inspect();
        }
    }
}

struct Agent {
    table: CutTable,
    prober: Prober,
    tracker: Tracker,
    emulator: Emulator,
}

impl Agent {
    /// Waits for a request or the time; `true` when there is a request. Probes are not waited for: they are counted, or have
    /// the kernel's word on when they came, so that they can be taken in together.
    fn wait(control: &OwnedFd, wait: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds[0].any().unwrap_or(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn answer(&mut self, frame: Frame) -> Result<Response, AgentError> {
        let request = frame::decode(&frame.bytes).map_err(AgentError::Request)?;
        let done = match request {
            Request::AddNodes { addresses } => self.add_nodes(&addresses, frame.fds),
            Request::SetCuts { cuts } => self.set_cuts(&cuts),
            Request::SetLinks { update } => self.emulator.update(update).map_err(|error| chain(&error)),
            Request::RenewLinks { lease } => self.emulator.renew(lease).map_err(|error| chain(&error)),
            Request::Evidence => {
                self.inspect();
                return Ok(Response::Evidence(self.tracker.evidence(&self.prober, Instant::now())));
            }
            Request::Links => {
                let evidence = self.emulator.evidence();
                return Ok(evidence.map_or_else(|error| Response::Failed(chain(&error)), Response::Links));
            }
        };
        Ok(done.map_or_else(Response::Failed, |()| Response::Done))
    }

    fn add_nodes(&mut self, addresses: &[Ipv4Addr], namespaces: Vec<OwnedFd>) -> Result<(), String> {
        if addresses.len() != namespaces.len() {
            return Err(format!("{} addresses came with {} namespaces", addresses.len(), namespaces.len()));
        }
        for (address, namespace) in addresses.iter().zip(namespaces) {
            let own = namespace.try_clone().map_err(|error| format!("cannot share a namespace: {error}"))?;
            self.prober.add_node(*address, namespace).map_err(|error| chain(&error))?;
            self.emulator
                .add_node(*address, own)
                .map_err(|error| format!("cannot open a timed probe's socket at {address}: {error}"))?;
        }
        Ok(())
    }

    fn set_cuts(&mut self, cuts: &[Cut]) -> Result<(), String> {
        // The last look at cuts that are about to end.
        self.inspect();
        let changed = self.table.set(cuts).map_err(|error| chain(&error))?;
        self.tracker.changed(&mut self.prober, cuts, &changed, Instant::now());
        // After the kernel: what was held may leave, but nothing new comes to be held.
        self.emulator.cut(cuts, Instant::now()).map_err(|error| chain(&error))
    }

    fn inspect(&mut self) {
        match self.table.observe() {
            Ok(observed) => self.tracker.observed(&mut self.prober, &observed, Instant::now()),
            Err(error) => self.tracker.unobserved(&chain(&error)),
        }
    }
}

/// An error and its causes in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
