//! This pod's end of each probed link.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Table;
use crate::{
    model::PeerPorts,
    probe::{BURST, PACKETS_PER_SECOND, ProbeError, ROUND},
    track::{LEASE_MARGIN, PACKET, Sockets, Track, decode, encode},
};

/// A packet may have passed the rules before they changed and arrive after: arrivals this soon after a pair is new are not
/// held against its cut.
const QUIET: Duration = Duration::from_millis(20);
/// Packets taken from one socket at a time, so that a flood cannot hold the thread; the rest is taken next time.
const TAKEN_AT_ONCE: usize = 1_024;

/// A link to probe from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The same number at both ends, and another one whenever one of the ends is another agent.
    pub pair: u64,
    pub to: Ipv4Addr,
    /// Probes are sent for so long from now on; `None`: until the next table.
    pub lasts: Option<Duration>,
}

/// A link whose probes arrive here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    pub pair: u64,
    pub from: Ipv4Addr,
    /// Probes are counted for so long from now on; `None`: until the next table.
    pub lasts: Option<Duration>,
}

/// Probes that left over one link, without those that may still be on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub pair: u64,
    pub probes: u64,
    pub controls: u64,
    pub errors: u64,
}

/// Probes that arrived over one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub pair: u64,
    pub probes: u64,
    pub controls: u64,
}

#[derive(Debug)]
struct Out {
    pair: u64,
    to: Ipv4Addr,
    until: Option<Instant>,
    probe: Track,
    control: Track,
    errors: u64,
}

#[derive(Debug)]
struct In {
    from: Ipv4Addr,
    until: Option<Instant>,
    counted_from: Instant,
    probe: Track,
    control: Track,
}

#[derive(Debug)]
pub(super) struct Ends {
    ports: PeerPorts,
    sockets: Sockets,
    session: u32,
    outgoing: Vec<Out>,
    incoming: BTreeMap<u64, In>,
    next: usize,
    round_started: Option<Instant>,
}

impl Ends {
    pub(super) fn open(address: Ipv4Addr, ports: PeerPorts) -> Result<Self, ProbeError> {
        let sockets = Sockets::open(address, ports).map_err(|source| ProbeError::Open { address, source })?;
        Ok(Self {
            ports,
            sockets,
            session: 0,
            outgoing: Vec::new(),
            incoming: BTreeMap::new(),
            next: 0,
            round_started: None,
        })
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.sockets.probe.as_fd(), self.sockets.control.as_fd()].into_iter()
    }

    /// Probes what a table names, which is in force already. Pairs that stay keep their counters.
    pub(super) fn update(&mut self, table: &Table) {
        // What came in before belongs to the old table.
        self.receive();
        if self.session != table.session {
            self.session = table.session;
            self.outgoing.clear();
            self.incoming.clear();
        }
        let now = Instant::now();
        let end = |lasts: Option<Duration>| lasts.map(|lasts| now + lasts);
        let mut before: BTreeMap<u64, Out> = self.outgoing.drain(..).map(|out| (out.pair, out)).collect();
        self.outgoing = table
            .probes
            .iter()
            .map(|wanted| {
                let new = || Out {
                    pair: wanted.pair,
                    to: wanted.to,
                    until: None,
                    probe: Track::default(),
                    control: Track::default(),
                    errors: 0,
                };
                Out { until: end(wanted.lasts), ..before.remove(&wanted.pair).unwrap_or_else(new) }
            })
            .collect();
        let mut before = std::mem::take(&mut self.incoming);
        for wanted in &table.expected {
            let new = || In {
                from: wanted.from,
                until: None,
                counted_from: now + QUIET,
                probe: Track::default(),
                control: Track::default(),
            };
            let end = In { until: end(wanted.lasts), ..before.remove(&wanted.pair).unwrap_or_else(new) };
            self.incoming.insert(wanted.pair, end);
        }
        self.next = 0;
    }

    /// When [`Self::send_due`] has something to do again; `None` when nothing is probed.
    pub(super) fn wake_after(&self) -> Option<Duration> {
        (!self.outgoing.is_empty()).then_some(BURST)
    }

    /// Sends the next burst.
    pub(super) fn send_due(&mut self) {
        let mut budget = PACKETS_PER_SECOND as usize * BURST.as_millis() as usize / 1_000;
        while budget >= 2 {
            if self.next == 0 {
                let now = Instant::now();
                if self.round_started.is_some_and(|started| now.duration_since(started) < ROUND) {
                    return;
                }
                self.round_started = Some(now);
            }
            let pairs = self.outgoing.len();
            let Some(out) = self.outgoing.get_mut(self.next) else { return };
            self.next = (self.next + 1) % pairs;
            budget -= 2;
            Self::send(out, &self.sockets, self.ports, self.session);
        }
    }

    fn send(out: &mut Out, sockets: &Sockets, ports: PeerPorts, session: u32) {
        if out.until.is_some_and(|until| Instant::now() + LEASE_MARGIN >= until) {
            return;
        }
        let kinds = [
            (&sockets.probe, ports.probe, &mut out.probe),
            (&sockets.control, ports.control, &mut out.control),
        ];
        for (socket, port, track) in kinds {
            let packet = encode(session, out.pair, track.sent + 1);
            if socket.send_to(&packet, (out.to, port)).is_ok() {
                track.sent(Instant::now());
            } else {
                out.errors += 1;
            }
        }
    }

    /// Takes everything that has arrived.
    pub(super) fn receive(&mut self) {
        let mut buffer = [0; PACKET + 1];
        for (socket, port, is_probe) in [
            (&self.sockets.probe, self.ports.probe, true),
            (&self.sockets.control, self.ports.control, false),
        ] {
            for _ in 0..TAKEN_AT_ONCE {
                let Ok((length, source)) = socket.recv_from(&mut buffer) else { break };
                let Some((pair, sequence)) = decode(self.session, &buffer[..length]) else { continue };
                let Some(end) = self.incoming.get_mut(&pair) else { continue };
                if source != SocketAddr::V4(SocketAddrV4::new(end.from, port)) {
                    continue;
                }
                // The clock is read after the packet, and this agent's lease ends no later than the kernel's: what came
                // through an ended lease is never counted.
                let now = Instant::now();
                if now < end.counted_from || end.until.is_some_and(|until| now >= until) {
                    continue;
                }
                if is_probe { end.probe.received(sequence) } else { end.control.received(sequence) }
            }
        }
    }

    pub(super) fn counts(&self, now: Instant) -> (Vec<Sent>, Vec<Received>) {
        let sent = self.outgoing.iter().map(|out| Sent {
            pair: out.pair,
            probes: out.probe.settled(now),
            controls: out.control.settled(now),
            errors: out.errors,
        });
        let received = self.incoming.iter().map(|(pair, end)| Received {
            pair: *pair,
            probes: end.probe.received,
            controls: end.control.received,
        });
        (sent.collect(), received.collect())
    }
}
