//! Probes from the nodes' own addresses: the ones on the cut port must not arrive, the control ones must.
//!
//! Each node's namespace holds two UDP sockets of ours. A *watch* is a sample of directed links; one round sends a probe and
//! a control probe over each link in turn, at [`PACKETS_PER_SECOND`] at most for all watches together. A packet names its
//! watch and pair, so one that was on its way when a watch ended is not taken for another's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

use crate::model::{Cut, PairEvidence, PeerPorts};

/// The most probes of both kinds that are sent in a second.
pub const PACKETS_PER_SECOND: u32 = 2_000;
/// Pairs sampled of one watch.
pub const PAIRS_PER_WATCH: usize = 256;
/// The shortest time between two probes on one pair.
const ROUND: Duration = Duration::from_millis(50);
/// Packets are sent in small bursts, so that the thread need not wake for each.
const BURST: Duration = Duration::from_millis(20);
/// A probe that has not arrived by now never will: the path has no queue of ours.
const SETTLED: Duration = Duration::from_millis(200);
/// A probe sent this shortly before the end of a lease, or later, is not counted: the clocks differ by less.
const LEASE_MARGIN: Duration = Duration::from_millis(150);
const MAGIC: u32 = 0x6e73_7072;
const PACKET: usize = 28;

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

#[derive(Debug)]
struct Sockets {
    probe: UdpSocket,
    control: UdpSocket,
}

/// Names a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(u32);

#[derive(Debug)]
struct Pair {
    from: Ipv4Addr,
    to: Ipv4Addr,
    probe: Track,
    control: Track,
    send_errors: u64,
}

/// One kind of probe on one pair.
#[derive(Debug, Default)]
struct Track {
    sent: u64,
    received: u64,
    highest: u64,
    /// How many had been sent at which time, of late.
    history: VecDeque<(Instant, u64)>,
    /// Probes from this one on were sent too late to say anything about the lease.
    void_from: Option<u64>,
}

impl Track {
    const HISTORY: usize = 64;

    fn sent(&mut self, at: Instant) {
        self.sent += 1;
        if self.history.len() == Self::HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((at, self.sent));
    }

    fn settled(&self, now: Instant) -> u64 {
        let settled = self.history.iter().rev().find(|(at, _)| now.duration_since(*at) >= SETTLED);
        settled.map_or(0, |(_, sent)| *sent)
    }

    fn received(&mut self, sequence: u64) {
        let counts = sequence > self.highest && self.void_from.is_none_or(|void| sequence < void);
        if counts {
            self.highest = sequence;
            self.received += 1;
        }
    }
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
        let mut random = [0; 4];
        let read = std::fs::File::open("/dev/urandom")
            .and_then(|mut file| io::Read::read_exact(&mut file, &mut random));
        read.map_err(ProbeError::Random)?;
        Ok(Self {
            ports,
            nodes: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 1,
            session: u32::from_ne_bytes(random),
            turn: 0,
        })
    }

    /// Opens probe sockets at a node's address inside its network namespace.
    pub fn add_node(&mut self, address: Ipv4Addr, namespace: OwnedFd) -> Result<(), ProbeError> {
        let ports = self.ports;
        // Sockets belong to the namespace they are opened in, whichever thread uses them later.
        let opened = std::thread::spawn(move || -> io::Result<Sockets> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let open = |port| -> io::Result<UdpSocket> {
                let socket = UdpSocket::bind((address, port))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            Ok(Sockets { probe: open(ports.probe)?, control: open(ports.control)? })
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

    /// Every socket that probes arrive at.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.nodes.values().flat_map(|sockets| [sockets.probe.as_fd(), sockets.control.as_fd()])
    }

    /// Starts probing these pairs; those with an unknown node are left out.
    pub fn watch(&mut self, pairs: Vec<(Ipv4Addr, Ipv4Addr)>, until: Option<Instant>) -> WatchId {
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

    /// Moves the end of a watch, when its lease was renewed.
    pub fn extend(&mut self, id: WatchId, until: Instant) {
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.until = Some(until);
        }
    }

    pub fn end(&mut self, id: WatchId) {
        self.watches.remove(&id);
    }

    /// The counters of a watch's pairs, and how many sends failed.
    pub fn evidence(&self, id: WatchId, now: Instant) -> (Vec<PairEvidence>, u64) {
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
            let packet = encode(self.session, id, index as u32, track.sent + 1);
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
                    let Some((id, index, sequence)) = decode(self.session, &buffer[..length]) else {
                        continue;
                    };
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

fn encode(session: u32, id: WatchId, pair: u32, sequence: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
    packet[4..8].copy_from_slice(&session.to_be_bytes());
    packet[8..12].copy_from_slice(&id.0.to_be_bytes());
    packet[12..16].copy_from_slice(&pair.to_be_bytes());
    packet[16..24].copy_from_slice(&sequence.to_be_bytes());
    packet
}

fn decode(session: u32, packet: &[u8]) -> Option<(WatchId, u32, u64)> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    if packet.len() != PACKET || word(0)? != MAGIC || word(4)? != session {
        return None;
    }
    Some((WatchId(word(8)?), word(12)?, u64::from(word(16)?) << 32 | u64::from(word(20)?)))
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

    #[test]
    fn packets_of_another_session_are_not_read() {
        let packet = encode(7, WatchId(1), 2, 3);
        assert_eq!(decode(7, &packet), Some((WatchId(1), 2, 3)));
        assert_eq!(decode(8, &packet), None);
        assert_eq!(decode(7, &packet[..PACKET - 1]), None);
    }

    #[test]
    fn probes_sent_past_the_lease_do_not_count() {
        let mut track = Track::default();
        track.received(1);
        track.void_from = Some(2);
        track.received(2);
        assert_eq!(track.received, 1);
    }

    #[test]
    fn probes_on_their_way_are_not_counted_as_sent() {
        let mut track = Track::default();
        let start = Instant::now();
        track.sent(start);
        track.sent(start + SETTLED);
        assert_eq!(track.settled(start + SETTLED), 1);
        assert_eq!(track.settled(start + 2 * SETTLED), 2);
    }
}
