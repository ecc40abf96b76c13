//! The link agent in a pod: it sees one node's traffic, and is told by a table what must not arrive there.
//!
//! Packets are judged where they arrive, so a cut between two pods is made by the agent of the receiving one, and a link is
//! probed by two agents: one counts what it sent, the other what came. So it is with shaped links: the receiving agent holds the
//! packets, and says how long it held the probes. Whoever hands out the tables puts the two ends together.
//! A table is the whole desired state, and older ones than the one in force are refused, so that a table that was on its
//! way from a former leader changes nothing. As on one machine no lease is renewed from here.

mod ends;
mod inward;
mod outward;
mod shaped;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::{Deserialize, Serialize};

use self::{ends::Ends, shaped::Shaped};
pub use self::{
    ends::{Incoming, Outgoing, Received, Sent},
    outward::Probed,
    shaped::{LinkReceived, LinkSent, ShapedLink, ShapedReport, Shaping},
};
use crate::{
    agent::{AgentError, INSPECTION, chain},
    cuts::{Changed, CutTable, Renewal},
    frame,
    guard::Guard,
    model::{Cut, PeerPorts, Rect},
    probe::ProbeError,
    shape::ShapeOptions,
};

/// Orders tables: the term of who made it first, then that one's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    pub term: u64,
    pub sequence: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.sequence)
    }
}

/// Everything that the agent is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub version: Version,
    /// In every probe: those of another session are not counted.
    pub session: u32,
    /// The addresses of all nodes. While there is a cut, peer traffic from any other is dropped.
    pub known: Vec<Ipv4Addr>,
    pub cuts: Vec<Inbound>,
    pub probes: Vec<Outgoing>,
    pub expected: Vec<Incoming>,
    pub shaping: Shaping,
}

/// What may not reach this pod, for as long as the lease is renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Another cut has another number, even when it has the same name.
    pub id: u64,
    /// None while no node that is cut off has an address.
    pub from: Vec<Ipv4Addr>,
    pub lease: Duration,
}

/// What is asked of the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    Apply(Box<Table>),
    Report {
        /// With what is known of shaped links, which costs more to find out.
        shaped: bool,
    },
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    Report(Report),
    /// Nothing was changed; the sentence says why.
    Refused(String),
}

/// All that an agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub applied: Option<Version>,
    pub cuts: Vec<CutReport>,
    pub sent: Vec<Sent>,
    pub received: Vec<Received>,
    /// Absent when nobody asked.
    pub shaped: Option<ShapedReport>,
}

/// What the kernel did for one cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutReport {
    pub id: u64,
    /// Packets dropped since the agent knows the cut.
    pub drops: u64,
    /// Milliseconds until the kernel ends it; 0 when it has.
    pub lease_left_ms: u64,
    /// A rule was seen to be missing at any time.
    pub rule_missing: bool,
    /// The first reason why it was not in force all the time.
    pub interrupted: Option<String>,
}

/// How the agent is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The pod's own.
    pub address: Ipv4Addr,
    pub ports: PeerPorts,
    /// UDP port of the probes that time shaped links; shaped as the peer port is, and never cut.
    pub timed: u16,
    /// Overrides what the kernel was found to do.
    pub renewal: Option<Renewal>,
}

/// One cut of the table in force.
#[derive(Debug)]
struct Held {
    id: u64,
    /// Counted before the cut's addresses changed.
    earlier_drops: u64,
    drops: u64,
    rule_missing: bool,
    interrupted: Option<String>,
    deadline: Instant,
    lapsed: bool,
}

impl Held {
    fn interrupt(&mut self, sentence: String) {
        // The first interruption is the one to explain.
        self.interrupted.get_or_insert(sentence);
    }
}

/// The agent of the network namespace that the calling thread is in.
#[derive(Debug)]
pub struct PodAgent {
    address: Ipv4Addr,
    table: CutTable,
    ends: Ends,
    shaped: Shaped,
    /// Why links cannot be shaped here, as a sentence.
    cannot_shape: Option<String>,
    applied: Option<Version>,
    held: BTreeMap<String, Held>,
}

impl PodAgent {
    /// Finds out what the kernel can do and opens the probes' sockets. Changes no cut.
    pub fn open(options: Options) -> Result<Self, AgentError> {
        let Options { address, ports, timed, renewal } = options;
        let shape = ShapeOptions { ports, timed, ..ShapeOptions::default() };
        Ok(Self {
            address,
            table: CutTable::open(ports, renewal)?,
            ends: Ends::open(address, ports)?,
            shaped: Shaped::open(address, shape).map_err(|source| ProbeError::Open { address, source })?,
            cannot_shape: Shaped::unable(shape),
            applied: None,
            held: BTreeMap::new(),
        })
    }

    /// Why this kernel or container can cut links but not shape them, as a sentence.
    pub fn cannot_shape(&self) -> Option<&str> {
        self.cannot_shape.as_deref()
    }

    /// Serves requests until the other end of `control` is closed.
    pub fn run(mut self, control: &OwnedFd) -> Result<(), AgentError> {
        let mut inspected = Instant::now();
        loop {
            let wakes = [self.ends.wake_after(), self.shaped.wake_after(), Some(INSPECTION)];
            let wait = wakes.into_iter().flatten().min().unwrap_or(INSPECTION);
            let asked = self.wait(control, wait).map_err(AgentError::Socket)?;
            // Before any request: one that waited while this process was stopped must not renew what has ended in between.
            self.ends.receive();
            self.shaped.receive();
            self.expire(Instant::now());
            self.shaped.expire(Instant::now())?;
            if asked {
                let Some(frame) = frame::receive(control).map_err(AgentError::Socket)? else { return Ok(()) };
                let request = frame::decode(&frame.bytes).map_err(AgentError::Request)?;
                let bytes = frame::encode(&self.answer(&request)).map_err(AgentError::Request)?;
                match frame::send(control.as_fd(), &bytes, &[]) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    result => result.map_err(AgentError::Socket)?,
                }
            }
            self.ends.send_due();
            self.shaped.send_due();
            if inspected.elapsed() >= INSPECTION {
                inspected = Instant::now();
                self.inspect();
            }
        }
    }

    /// Waits for a request, a probe or the time; `true` when there is a request.
    fn wait(&self, control: &OwnedFd, wait: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.ends.sockets().map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
            Ok(_) => Ok(fds[0].any().unwrap_or(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn answer(&mut self, request: &Request) -> Response {
        match request {
            Request::Apply(table) => match self.apply(table) {
                Ok(()) => Response::Report(self.report(Instant::now(), true)),
                Err(sentence) => Response::Refused(sentence),
            },
            Request::Report { shaped } => {
                self.inspect();
                Response::Report(self.report(Instant::now(), *shaped))
            }
        }
    }

    /// Makes the table the one in force. Of one that is refused no cut is in force; its links may be.
    fn apply(&mut self, table: &Table) -> Result<(), String> {
        if let Some(applied) = self.applied
            && table.version <= applied
        {
            return Err(format!("table {} is not newer than {applied}, which is in force", table.version));
        }
        // The last look at cuts that are about to end or to change.
        self.inspect();
        let cuts: Vec<Cut> = table.cuts.iter().filter_map(|cut| self.cut(cut)).collect();
        // Also by a cut whose nodes have no address now: the one they come back at is not known yet.
        let guard = table.cuts.iter().map(|cut| cut.lease).max().map(|lease| Guard {
            known: table.known.iter().copied().chain([self.address]).collect(),
            to: vec![self.address],
            lease,
        });
        self.shaped.apply(table.session, &table.shaping).map_err(|error| chain(&error))?;
        let now = Instant::now();
        let changed = self.table.set_guarded(&cuts, guard.as_ref()).map_err(|error| chain(&error))?;
        self.note(table, &changed, now);
        self.ends.update(table);
        // After the kernel: what was held may leave, but nothing new comes to be held.
        self.shaped.cut(&cuts, now).map_err(|error| chain(&error))?;
        self.applied = Some(table.version);
        Ok(())
    }

    /// What a pod sends to itself is no link.
    fn cut(&self, cut: &Inbound) -> Option<Cut> {
        let from: Vec<Ipv4Addr> = cut.from.iter().copied().filter(|from| *from != self.address).collect();
        let rects = vec![Rect { from, to: vec![self.address] }];
        (!rects[0].from.is_empty()).then(|| Cut { id: cut.id.to_string(), rects, lease: cut.lease })
    }

    fn note(&mut self, table: &Table, changed: &Changed, now: Instant) {
        let mut before = std::mem::take(&mut self.held);
        for cut in &table.cuts {
            let id = cut.id.to_string();
            let deadline = now + cut.lease;
            let mut held = before.remove(&id).unwrap_or(Held {
                id: cut.id,
                earlier_drops: 0,
                drops: 0,
                rule_missing: false,
                interrupted: None,
                deadline,
                lapsed: false,
            });
            held.deadline = deadline;
            held.lapsed = false;
            // The same cut over other addresses has new rules, whose counters start again.
            if changed.ended.contains(&id) {
                held.earlier_drops += std::mem::take(&mut held.drops);
            }
            if let Some((_, open_for)) = changed.lapsed.iter().find(|(lapsed, _)| *lapsed == id) {
                held.interrupt(format!("its lease ended {} ms before it was renewed", open_for.as_millis()));
            }
            if changed.rebuilt {
                held.interrupt("its rules were removed from the kernel and made anew".to_owned());
            }
            self.held.insert(id, held);
        }
    }

    /// Notes the cuts whose lease has ended.
    fn expire(&mut self, now: Instant) {
        for held in self.held.values_mut().filter(|held| !held.lapsed && now >= held.deadline) {
            held.lapsed = true;
            held.interrupt("its lease ended before it was renewed".to_owned());
        }
    }

    fn inspect(&mut self) {
        match self.table.observe() {
            Ok(observed) => {
                for found in observed {
                    if let Some(held) = self.held.get_mut(&found.id) {
                        held.drops = found.drops;
                        held.rule_missing |= found.rule_missing;
                    }
                }
            }
            Err(error) => {
                let sentence = chain(&error);
                self.held.values_mut().for_each(|held| held.interrupt(sentence.clone()));
            }
        }
    }

    fn report(&mut self, now: Instant, shaped: bool) -> Report {
        let cut = |held: &Held| CutReport {
            id: held.id,
            drops: held.earlier_drops + held.drops,
            lease_left_ms: if held.lapsed {
                0
            } else {
                held.deadline.saturating_duration_since(now).as_millis() as u64
            },
            rule_missing: held.rule_missing,
            interrupted: held.interrupted.clone(),
        };
        let (sent, received) = self.ends.counts(now);
        Report {
            applied: self.applied,
            cuts: self.held.values().map(cut).collect(),
            sent,
            received,
            shaped: shaped.then(|| self.shaped.report()),
        }
    }
}
