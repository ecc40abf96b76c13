//! The addresses of one testnet.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Bounds descriptors and set-up time.
pub const MAX_NODES: usize = 1_000;

/// All testnets live here. A private range that few people use.
const RANGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);

/// One testnet's block of 1,024 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network(u8);

impl Network {
    pub(super) const PREFIX: u8 = 22;

    /// The one used where nothing outside sees the addresses, so that all testnets may share it.
    pub(super) const PRIVATE: Self = Self(0);

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..1 << (Self::PREFIX - 16)).map(Self)
    }

    /// Its place among all of them.
    pub(super) fn number(self) -> u8 {
        self.0
    }

    pub(super) fn base(self) -> Ipv4Addr {
        self.at(0)
    }

    /// Nodes count from zero, up to [`MAX_NODES`].
    pub(super) fn node(self, index: usize) -> Ipv4Addr {
        self.at(1 + index as u32)
    }

    /// This machine, as the nodes see it.
    pub(super) fn host(self) -> Ipv4Addr {
        self.at(0x3fd)
    }

    /// Where connections from the hub come from.
    pub(super) fn hub(self) -> Ipv4Addr {
        self.at(0x3fe)
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(RANGE) + (u32::from(self.0) << (32 - Self::PREFIX)) + offset)
    }

    /// Whether a block of addresses (`prefix` bits of `base`) shares an address with it.
    pub(super) fn overlaps(self, base: Ipv4Addr, prefix: u8) -> bool {
        let shorter = prefix.min(Self::PREFIX).min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(shorter)).unwrap_or(0);
        u32::from(self.base()) & mask == u32::from(base) & mask
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_node_of_every_testnet_has_an_address_of_its_own() {
        let mut seen = BTreeSet::new();
        for network in Network::all() {
            let own = (0..MAX_NODES).map(|index| network.node(index));
            for address in own.chain([network.host(), network.hub()]) {
                assert!(seen.insert(address), "{address} was given twice");
                assert!(network.overlaps(address, 32), "{address} is outside of its block");
            }
        }
        assert_eq!(seen.len(), 64 * (MAX_NODES + 2));
    }

    #[test]
    fn a_block_overlaps_what_contains_it_and_what_it_contains() {
        let second = Network::all().nth(1).unwrap();
        assert_eq!(second.base(), Ipv4Addr::new(10, 77, 4, 0));
        assert!(second.overlaps(Ipv4Addr::new(10, 0, 0, 0), 8));
        assert!(second.overlaps(Ipv4Addr::new(10, 77, 5, 7), 32));
        assert!(second.overlaps(Ipv4Addr::UNSPECIFIED, 0));
        assert!(!second.overlaps(Ipv4Addr::new(10, 77, 0, 0), 22));
        assert!(!second.overlaps(Ipv4Addr::new(10, 77, 8, 1), 32));
    }
}
