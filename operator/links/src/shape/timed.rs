//! The probe of a link: a UDP packet that says which link it measures, its number, and when it was sent.
//!
//! The shaper knows it and takes its luck from its number, so that whoever checks can compute what it must have met. Packets of a
//! train ([`super::train`]) are longer ones, whose numbers say which train and which place; they wait for the link's rate.

use std::net::Ipv4Addr;

use super::link::Arrival;

const MAGIC: u32 = 0x6e73_6c6b;
/// Bytes of a probe, and the least of a packet of a train.
pub const LENGTH: usize = 32;
/// In the number of a packet of a train.
const OF_TRAIN: u64 = 1 << 63;
/// Of the network and the transport layer.
const HEADERS: usize = IPV4_HEADER + UDP_HEADER;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const DO_NOT_FRAGMENT: u16 = 0x4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedProbe {
    /// Tells the probes of one agent from those of an earlier one.
    pub session: u32,
    pub link: u32,
    /// Below 2^63.
    pub number: u64,
    /// Nanoseconds of the clock that the receiver reads, too.
    pub sent: u64,
}

impl TimedProbe {
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
        packet[4..8].copy_from_slice(&self.session.to_be_bytes());
        packet[8..12].copy_from_slice(&self.link.to_be_bytes());
        packet[12..20].copy_from_slice(&self.number.to_be_bytes());
        packet[20..28].copy_from_slice(&self.sent.to_be_bytes());
        packet
    }

    /// A packet of a train of so many bytes, headers included.
    pub(crate) fn of_train(session: u32, link: u32, (train, place): (u32, u8), length: usize) -> Vec<u8> {
        let number = OF_TRAIN | u64::from(train) << 8 | u64::from(place);
        let mut packet = Self { session, link, number, sent: 0 }.encode().to_vec();
        packet.resize(length.saturating_sub(HEADERS).max(LENGTH), 0);
        packet
    }

    /// Which train it is of, and its place there.
    pub(crate) fn train(&self) -> Option<(u32, u8)> {
        (self.number & OF_TRAIN != 0).then_some(((self.number >> 8) as u32, self.number as u8))
    }

    /// Only packets of trains are longer than a probe.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let is_exact = packet.len() == LENGTH;
        let packet: &[u8; LENGTH] = packet.get(..LENGTH)?.try_into().ok()?;
        let word =
            |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let probe = (word(0) == MAGIC).then(|| Self {
            session: word(4),
            link: word(8),
            number: long(12),
            sent: long(20),
        });
        probe.filter(|probe| is_exact || probe.train().is_some())
    }
}

/// What the shaper reads of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    /// Where the network layer's header ends.
    pub(super) length: usize,
    /// A probe is one that was sent to `port`.
    pub(super) arrival: Arrival,
}

/// Reads an IPv4 packet; `None`: it is none. A fragment has no port of its own and is no probe.
pub(super) fn header(packet: &[u8], port: u16) -> Option<Header> {
    let fixed = packet.get(..IPV4_HEADER)?;
    if fixed[0] >> 4 != 4 {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
    let length = usize::from(fixed[0] & 0xf) * 4;
    let whole = u16::from_be_bytes([fixed[6], fixed[7]]) & !DO_NOT_FRAGMENT == 0;
    let udp = (whole && fixed[9] == UDP).then(|| packet.get(length..)).flatten();
    let probe = udp
        .filter(|udp| udp.get(2..4) == Some(&port.to_be_bytes()))
        .and_then(|udp| TimedProbe::decode(udp.get(UDP_HEADER..)?));
    let arrival = match probe {
        Some(probe) if probe.train().is_some() => Arrival::Train,
        Some(probe) => Arrival::Probe(probe.number),
        None => Arrival::Traffic,
    };
    Some(Header { from: address(12), to: address(16), length, arrival })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: TimedProbe = TimedProbe { session: 1, link: 2, number: 3 << 40, sent: 5 };

    fn packet(port: u16) -> Vec<u8> {
        let mut packet = vec![0; IPV4_HEADER + UDP_HEADER];
        packet[0] = 0x45;
        packet[9] = UDP;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet.extend(PROBE.encode());
        packet
    }

    #[test]
    fn a_probe_is_known_by_its_port_and_content() {
        let from = Ipv4Addr::new(10, 0, 0, 1);
        let read = header(&packet(26_605), 26_605).unwrap();
        assert_eq!((read.from, read.length, read.arrival), (from, 20, Arrival::Probe(3 << 40)));
        assert_eq!(header(&packet(26_600), 26_605).unwrap().arrival, Arrival::Traffic);
        let mut longer = packet(26_605);
        longer.push(0);
        assert_eq!(header(&longer, 26_605).unwrap().arrival, Arrival::Traffic);
        let mut fragment = packet(26_605);
        fragment[6] = 0x20;
        assert_eq!(header(&fragment, 26_605).unwrap().arrival, Arrival::Traffic);
    }

    #[test]
    fn a_packet_of_a_train_is_as_long_as_asked_and_says_its_place() {
        let train = TimedProbe::of_train(1, 2, (u32::MAX, 63), 1_400);
        assert_eq!(train.len() + HEADERS, 1_400);
        assert_eq!(TimedProbe::decode(&train).unwrap().train(), Some((u32::MAX, 63)));
        let mut sent = packet(26_605);
        sent.truncate(HEADERS);
        sent.extend(train);
        assert_eq!(header(&sent, 26_605).unwrap().arrival, Arrival::Train);
        assert_eq!(TimedProbe::of_train(1, 2, (0, 0), 40).len(), LENGTH);
    }

    #[test]
    fn pieces_of_packets_are_read_without_harm() {
        let whole = packet(26_605);
        for length in 0..whole.len() {
            assert_eq!(header(&whole[..length], 26_605).is_some(), length >= IPV4_HEADER);
        }
        assert_eq!(TimedProbe::decode(&PROBE.encode()), Some(PROBE));
    }
}
