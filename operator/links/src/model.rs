//! What a cut is and what is known about it: the words shared by agent, backend and report.

use std::{net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};

/// Every directed link from an address in `from` to an address in `to`. The same address on both sides is no link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rect {
    pub from: Vec<Ipv4Addr>,
    pub to: Vec<Ipv4Addr>,
}

impl Rect {
    /// Whether packets from `from` to `to` are cut by this rectangle.
    pub fn covers(&self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        from != to && self.from.contains(&from) && self.to.contains(&to)
    }
}

/// A set of directed links that carries no peer traffic for as long as its lease is renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Names the fault; at most [`Cut::MAX_ID`] bytes.
    pub id: String,
    /// At least one; all of them start and end in one transaction.
    pub rects: Vec<Rect>,
    /// The kernel ends the cut this long after the last renewal. At least [`Cut::MIN_LEASE`].
    pub lease: Duration,
}

impl Cut {
    pub const MAX_ID: usize = 128;
    /// Shorter leases end between two renewals of a loaded machine.
    pub const MIN_LEASE: Duration = Duration::from_millis(500);
    /// A cut that outlives everything by more than this is no fault but a mistake.
    pub const MAX_LEASE: Duration = Duration::from_hours(1);

    /// Whether packets from `from` to `to` are cut.
    pub fn covers(&self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        self.rects.iter().any(|rect| rect.covers(from, to))
    }
}

/// The ports that decide what a cut touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPorts {
    /// TCP and UDP port of the nodes' peer protocol; cut as source and as destination.
    pub peer: u16,
    /// UDP port of the probes that must not arrive; cut as the peer port is.
    pub probe: u16,
    /// UDP port of the control probes that must arrive; never cut.
    pub control: u16,
}

impl Default for PeerPorts {
    fn default() -> Self {
        Self { peer: 26600, probe: 26603, control: 26604 }
    }
}

/// Where a cut is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CutState {
    /// In the kernel and leased.
    Active,
    /// Not renewed in time: the kernel has ended it, and the links are open.
    LeaseEnded,
    /// Removed on request; probes have not come through on every sampled pair yet.
    Healing,
    /// Removed on request, and probes came through on every sampled pair that no other cut covers.
    Open,
}

/// What the evidence says. Only `Proven` may carry a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    Proven,
    /// Not shown either way; the sentence says what is missing.
    Unproven(String),
    /// The cut did not hold; the sentence says where it leaked.
    Violated(String),
}

impl Proof {
    pub fn is_proven(&self) -> bool {
        *self == Self::Proven
    }
}

/// Probes over one directed link since the cut began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairEvidence {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// Probes on the cut port; none may arrive. Those still on their way are not counted.
    pub probes_sent: u64,
    pub probes_received: u64,
    /// Control probes on the port that is never cut; they must arrive.
    pub controls_sent: u64,
    pub controls_received: u64,
}

/// Everything known about one cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutEvidence {
    pub id: String,
    pub state: CutState,
    /// Packets dropped by the cut's rules, since the agent knows it.
    pub drops: u64,
    /// Milliseconds until the kernel ends the cut; 0 when it is not active.
    pub lease_left_ms: u64,
    /// The directed links that are probed: a sample that covers every address of the cut.
    pub pairs: Vec<PairEvidence>,
    pub proof: Proof,
    /// Further sentences: interruptions, send errors, a slow heal.
    pub problems: Vec<String>,
}
