//! One end of a probed link: its sockets, its packets, its counters.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use crate::model::PeerPorts;

/// A probe that has not arrived by now never will: the path has no queue of ours.
const SETTLED: Duration = Duration::from_millis(200);
/// A probe sent this shortly before the end of a lease, or later, is not counted: the clocks differ by less.
pub(crate) const LEASE_MARGIN: Duration = Duration::from_millis(150);
const MAGIC: u32 = 0x6e73_7072;
pub(crate) const PACKET: usize = 24;

/// Where probes of a node leave and arrive.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) probe: UdpSocket,
    pub(crate) control: UdpSocket,
}

impl Sockets {
    /// In the network namespace of the calling thread.
    pub(crate) fn open(address: Ipv4Addr, ports: PeerPorts) -> io::Result<Self> {
        let open = |port| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((address, port))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self { probe: open(ports.probe)?, control: open(ports.control)? })
    }
}

/// One kind of probe on one pair.
#[derive(Debug, Default)]
pub(crate) struct Track {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    highest: u64,
    /// How many had been sent at which time, of late.
    history: VecDeque<(Instant, u64)>,
    /// Probes from this one on were sent too late to say anything about the lease.
    pub(crate) void_from: Option<u64>,
}

impl Track {
    const HISTORY: usize = 64;

    pub(crate) fn sent(&mut self, at: Instant) {
        self.sent += 1;
        if self.history.len() == Self::HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((at, self.sent));
    }

    /// Those that were sent and are not on their way any more.
    pub(crate) fn settled(&self, now: Instant) -> u64 {
        let settled = self.history.iter().rev().find(|(at, _)| now.duration_since(*at) >= SETTLED);
        settled.map_or(0, |(_, sent)| *sent)
    }

    pub(crate) fn received(&mut self, sequence: u64) {
        let counts = sequence > self.highest && self.void_from.is_none_or(|void| sequence < void);
        if counts {
            self.highest = sequence;
            self.received += 1;
        }
    }
}

/// A number that nobody else draws.
pub(crate) fn random() -> io::Result<u32> {
    let mut random = [0; 4];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    Ok(u32::from_ne_bytes(random))
}

pub(crate) fn encode(session: u32, pair: u64, sequence: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
    packet[4..8].copy_from_slice(&session.to_be_bytes());
    packet[8..16].copy_from_slice(&pair.to_be_bytes());
    packet[16..24].copy_from_slice(&sequence.to_be_bytes());
    packet
}

/// Pair and sequence number of a packet of this session.
pub(crate) fn decode(session: u32, packet: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_be_bytes(packet.get(at..at + 8)?.try_into().ok()?));
    if packet.len() != PACKET || word(0)? != MAGIC || word(4)? != session {
        return None;
    }
    Some((long(8)?, long(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_another_session_are_not_read() {
        let packet = encode(7, 1 << 32 | 2, 3);
        assert_eq!(decode(7, &packet), Some((1 << 32 | 2, 3)));
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
