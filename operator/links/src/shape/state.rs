//! The state of a directed link.

use std::{fmt, net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};

/// A share of all packets, in millionths: exact, so that equal states compare equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(1_000_000);

    /// More than all counts as all.
    pub fn millionths(share: u32) -> Self {
        Self(share.min(Self::ALL.0))
    }

    pub fn as_millionths(self) -> u32 {
        self.0
    }

    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.as_fraction() * 100.0)
    }
}

/// Probes that tell a link's latency, and those that tell shares of its packets too.
const ENOUGH: usize = 30;
const ENOUGH_FOR_SHARES: usize = 70;

/// What a packet meets on a link that is not cut. The default changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkState {
    /// One way.
    pub latency: Duration,
    /// Largest deviation from `latency`, both ways, uniform.
    pub jitter: Duration,
    pub loss: Share,
    /// Bits a second, headers of the network layer included; `None`: no limit.
    pub rate: Option<u64>,
    pub duplicate: Share,
    /// Packets that skip the latency and so overtake others.
    pub reorder: Share,
    /// Packets in which one bit is flipped.
    pub corrupt: Share,
}

impl LinkState {
    /// Whether packets need not be looked at.
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every packet must be seen by itself: one decision over a whole burst of TCP segments would lose, repeat or
    /// overtake 64 KiB at once.
    pub fn is_exact(&self) -> bool {
        [self.loss, self.duplicate, self.reorder, self.corrupt].iter().any(|share| *share != Share::NONE)
    }

    /// How many probes say whether a link is so.
    pub fn probes_wanted(&self) -> usize {
        if self.is_exact() { ENOUGH_FOR_SHARES } else { ENOUGH }
    }

    /// Whether a probe that took so long has not waited for the latency and its jitter; in nanoseconds. Which it is shows
    /// where these are longer than a packet takes anyhow.
    pub(crate) fn is_overtaking(&self, took: i64, jitter: i64) -> bool {
        took < i64::midpoint(self.latency.as_nanos() as i64, jitter)
    }
}

/// One shaped link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEntry {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// Names the link in its testnet, whatever addresses it has today: the random decisions follow from it.
    pub number: u32,
    pub state: LinkState,
}

impl LinkEntry {
    pub(crate) fn pair(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.from, self.to)
    }
}
