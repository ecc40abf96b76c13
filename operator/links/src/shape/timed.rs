//! The probe of a link: a UDP packet that says which link it measures, its number, and when it was sent.
//!
//! The shaper knows it and takes its luck from its number, so that whoever checks can compute what it must have met.

use std::net::Ipv4Addr;

const MAGIC: u32 = 0x6e73_6c6b;
/// Bytes of a probe.
pub const LENGTH: usize = 32;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const DO_NOT_FRAGMENT: u16 = 0x4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedProbe {
    /// Tells the probes of one agent from those of an earlier one.
    pub session: u32,
    pub link: u32,
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

    pub fn decode(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; LENGTH] = packet.try_into().ok()?;
        let word =
            |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        (word(0) == MAGIC).then(|| Self { session: word(4), link: word(8), number: long(12), sent: long(20) })
    }
}

/// What the shaper reads of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    /// Where the network layer's header ends.
    pub(super) length: usize,
    /// The number of a probe sent to `port`.
    pub(super) probe: Option<u64>,
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
        .and_then(|udp| TimedProbe::decode(udp.get(UDP_HEADER..)?))
        .map(|probe| probe.number);
    Some(Header { from: address(12), to: address(16), length, probe })
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
        assert_eq!((read.from, read.length, read.probe), (from, 20, Some(3 << 40)));
        assert_eq!(header(&packet(26_600), 26_605).unwrap().probe, None);
        let mut longer = packet(26_605);
        longer.push(0);
        assert_eq!(header(&longer, 26_605).unwrap().probe, None);
        let mut fragment = packet(26_605);
        fragment[6] = 0x20;
        assert_eq!(header(&fragment, 26_605).unwrap().probe, None);
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
