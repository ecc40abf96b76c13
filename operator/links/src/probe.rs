//! Probes from the nodes' own addresses: the ones on the cut port must not arrive, the control ones must.
//!
//! Each node's namespace holds two UDP sockets of ours. A *watch* is a sample of directed links; one round sends a probe and
//! a control probe over each link in turn, at [`PACKETS_PER_SECOND`] at most for all watches together. A packet names its
//! watch and pair, so one that was on its way when a watch ended is not taken for another's.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

use crate::{
    model::{Cut, PairEvidence, PeerPorts},
    track::{LEASE_MARGIN, PACKET, Sockets, Track, decode, encode, random},
};

/// The most probes of both kinds that are sent in a second.
pub const PACKETS_PER_SECOND: u32 = 2_000;
/// Pairs sampled of one watch.
pub const PAIRS_PER_WATCH: usize = 256;
/// The shortest time between two probes on one pair.
pub(crate) const ROUND: Duration = Duration::from_millis(50);
/// Packets are sent in small bursts, so that the thread need not wake for each.
pub(crate) const BURST: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot open probe sockets at {address}")]
    Open {
        address: Ipv4Addr,
        #[source]
        source: io::Error,
    },
    #[error("cannot draw a random number")]
    Random(#[source] io::Error),
}

/// Names a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(pub u32);

/// Whoever can have directed links probed: one process with sockets in every node's namespace, or one that tells the agents
/// in many pods.
pub trait Probes {
    /// Starts probing these pairs, until a time or until the watch ends; those with an unknown node are left out.
    fn watch(&mut self, pairs: Vec<(Ipv4Addr, Ipv4Addr)>, until: Option<Instant>) -> WatchId;

    /// Moves the end of a watch, when its lease was renewed.
    fn extend(&mut self, id: WatchId, until: Instant);

    fn end(&mut self, id: WatchId);

    /// The counters of a watch's pairs, and how many sends failed.
    fn evidence(&self, id: WatchId, now: Instant) -> (Vec<PairEvidence>, u64);
}

#[derive(Debug)]
struct Pair {
    from: Ipv4Addr,
    to: Ipv4Addr,
    probe: Track,
    control: Track,
    send_errors: u64,
}

#[derive(Debug)]
struct Watch {
    pairs: Vec<Pair>,
    /// Probes are sent until then; `None`: until the watch ends.
    until: Option<Instant>,
    next_pair: usize,
    round_started: Option<Instant>,
}

/// The sockets and counters of all probes.
#[derive(Debug)]
pub struct Prober {
    ports: PeerPorts,
    nodes: BTreeMap<Ipv4Addr, Sockets>,
    watches: BTreeMap<WatchId, Watch>,
    next_watch: u32,
    /// Tells this prober's packets from those of one before it.
    session: u32,
    turn: usize,
}

impl Prober {
    pub fn new(ports: PeerPorts) -> Result<Self, ProbeError> {
        Ok(Self {
            ports,
            nodes: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 1,
            session: random().map_err(ProbeError::Random)?,
            turn: 0,
        })
    }

    /// Opens probe sockets at a node's address inside its network namespace.
    pub fn add_node(&mut self, address: Ipv4Addr, namespace: OwnedFd) -> Result<(), ProbeError> {
        let ports = self.ports;
        // Sockets belong to the namespace they are opened in, whichever thread uses them later.
        let opened = std::thread::spawn(move || -> io::Result<Sockets> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Sockets::open(address, ports)
        });
        let sockets = opened
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that opened them panicked")))
            .map_err(|source| ProbeError::Open { address, source })?;
        self.nodes.insert(address, sockets);
        Ok(())
    }

    pub fn knows(&self, address: Ipv4Addr) -> bool {
        self.nodes.contains_key(&address)
    }

    /// When [`Self::send_due`] has something to do again; `None` when nothing is watched.
    pub fn wake_after(&self) -> Option<Duration> {
        self.watches.values().any(|watch| !watch.pairs.is_empty()).then_some(BURST)
    }

    /// Sends the next burst, spread over the watches in turn.
    pub fn send_due(&mut self) {
        let mut budget = PACKETS_PER_SECOND as usize * BURST.as_millis() as usize / 1_000;
        let ids: Vec<WatchId> = self.watches.keys().copied().collect();
        let mut idle = 0;
        while budget >= 2 && idle < ids.len() {
            self.turn = (self.turn + 1) % ids.len();
            if self.send_one(ids[self.turn]) {
                budget -= 2;
                idle = 0;
            } else {
                idle += 1;
            }
        }
    }

    /// Sends both probes of the watch's next pair, unless its round must wait.
    fn send_one(&mut self, id: WatchId) -> bool {
        let now = Instant::now();
        let Some(watch) = self.watches.get_mut(&id) else { return false };
        if watch.pairs.is_empty() || watch.until.is_some_and(|until| now + LEASE_MARGIN >= until) {
            return false;
        }
        if watch.next_pair == 0 {
            if watch.round_started.is_some_and(|started| now.duration_since(started) < ROUND) {
                return false;
            }
            watch.round_started = Some(now);
        }
        let index = watch.next_pair;
        watch.next_pair = (index + 1) % watch.pairs.len();
        let until = watch.until;
        let pair = &mut watch.pairs[index];
        let Some(sockets) = self.nodes.get(&pair.from) else { return false };
        let kinds = [
            (&sockets.probe, self.ports.probe, &mut pair.probe),
            (&sockets.control, self.ports.control, &mut pair.control),
        ];
        for (socket, port, track) in kinds {
            let packet = encode(self.session, pair_number(id, index), track.sent + 1);
            if socket.send_to(&packet, (pair.to, port)).is_err() {
                pair.send_errors += 1;
                continue;
            }
            let after = Instant::now();
            track.sent(after);
            // This thread may have been stopped between looking at the clock and sending.
            if until.is_some_and(|until| after + LEASE_MARGIN / 2 >= until) {
                track.void_from.get_or_insert(track.sent);
            }
        }
        true
    }

    /// Takes everything that has arrived.
    pub fn receive(&mut self) {
        let mut buffer = [0; PACKET + 1];
        for (address, sockets) in &self.nodes {
            for (socket, port, is_probe) in
                [(&sockets.probe, self.ports.probe, true), (&sockets.control, self.ports.control, false)]
            {
                // Bounded, so that a flood from a node cannot hold the thread; the rest is taken next time.
                for _ in 0..1_024 {
                    let Ok((length, source)) = socket.recv_from(&mut buffer) else { break };
                    let Some((number, sequence)) = decode(self.session, &buffer[..length]) else {
                        continue;
                    };
                    let (id, index) = (WatchId((number >> 32) as u32), number as u32);
                    let pair =
                        self.watches.get_mut(&id).and_then(|watch| watch.pairs.get_mut(index as usize));
                    let Some(pair) = pair else { continue };
                    if pair.to != *address || source != SocketAddr::V4(SocketAddrV4::new(pair.from, port)) {
                        continue;
                    }
                    if is_probe { pair.probe.received(sequence) } else { pair.control.received(sequence) }
                }
            }
        }
    }
}

impl Probes for Prober {
    fn watch(&mut self, pairs: Vec<(Ipv4Addr, Ipv4Addr)>, until: Option<Instant>) -> WatchId {
        let id = WatchId(self.next_watch);
        self.next_watch += 1;
        let pairs = pairs
            .into_iter()
            .filter(|(from, to)| self.knows(*from) && self.knows(*to))
            .take(PAIRS_PER_WATCH)
            .map(|(from, to)| Pair {
                from,
                to,
                probe: Track::default(),
                control: Track::default(),
                send_errors: 0,
            })
            .collect();
        self.watches.insert(id, Watch { pairs, until, next_pair: 0, round_started: None });
        id
    }

    fn extend(&mut self, id: WatchId, until: Instant) {
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.until = Some(until);
        }
    }

    fn end(&mut self, id: WatchId) {
        self.watches.remove(&id);
    }

    fn evidence(&self, id: WatchId, now: Instant) -> (Vec<PairEvidence>, u64) {
        let Some(watch) = self.watches.get(&id) else { return (Vec::new(), 0) };
        let pairs = watch
            .pairs
            .iter()
            .map(|pair| PairEvidence {
                from: pair.from,
                to: pair.to,
                probes_sent: pair.probe.settled(now).max(pair.probe.received),
                probes_received: pair.probe.received,
                controls_sent: pair.control.settled(now).max(pair.control.received),
                controls_received: pair.control.received,
            })
            .collect();
        (pairs, watch.pairs.iter().map(|pair| pair.send_errors).sum())
    }
}

fn pair_number(watch: WatchId, index: usize) -> u64 {
    u64::from(watch.0) << 32 | index as u64
}

/// A sample of the cut's links in which every address of the cut occurs on each side it has, at most `limit` links.
pub fn sample(cut: &Cut, limit: usize) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let mut pairs = Vec::new();
    let mut seen = BTreeSet::new();
    let longest = cut.rects.iter().map(|rect| rect.from.len().max(rect.to.len())).max().unwrap_or(0);
    // Diagonal after diagonal: the first ones already touch every address.
    for shift in 0..longest {
        for rect in &cut.rects {
            for step in 0..rect.from.len().max(rect.to.len()) {
                let from = rect.from[step % rect.from.len()];
                let to = rect.to[(step + shift) % rect.to.len()];
                if pairs.len() == limit {
                    return pairs;
                }
                if from != to && seen.insert((from, to)) {
                    pairs.push((from, to));
                }
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rect;

    fn addresses(range: std::ops::Range<u8>) -> Vec<Ipv4Addr> {
        range.map(|host| Ipv4Addr::new(10, 0, 0, host)).collect()
    }

    #[test]
    fn a_sample_touches_every_address_and_keeps_its_limit() {
        let halves = [addresses(0..50), addresses(50..100)];
        let cut = Cut {
            id: "half".into(),
            rects: vec![
                Rect { from: halves[0].clone(), to: halves[1].clone() },
                Rect { from: halves[1].clone(), to: halves[0].clone() },
            ],
            lease: Duration::from_secs(15),
        };
        let pairs = sample(&cut, 120);
        assert_eq!(pairs.len(), 120);
        assert!(pairs.iter().all(|(from, to)| cut.covers(*from, *to)));
        let from: BTreeSet<_> = pairs.iter().map(|(from, _)| from).collect();
        let to: BTreeSet<_> = pairs.iter().map(|(_, to)| to).collect();
        assert_eq!((from.len(), to.len()), (100, 100));
    }

    #[test]
    fn a_small_cut_is_probed_whole() {
        let rect = Rect { from: addresses(0..3), to: addresses(2..5) };
        let cut = Cut { id: "c".into(), rects: vec![rect], lease: Duration::from_secs(15) };
        assert_eq!(sample(&cut, PAIRS_PER_WATCH).len(), 8);
    }
}
