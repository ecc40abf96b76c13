//! What goes into the engine and what comes out of it.

use std::time::Duration;

use netsplit_core::{Evidence, Hash, Height, PublicKey};

use crate::Message;

/// A neighbour, named by its node key.
pub type PeerId = PublicKey;

/// A timer that the engine asked for. Ids are never reused within one engine; one that has lost its purpose is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A session with a neighbour exists from now on. A second one for the same peer is a new session.
    PeerUp(PeerId),
    /// The session ended; what was sent on it may be lost.
    PeerDown(PeerId),
    /// A message from a neighbour whose session is up. Others are ignored.
    Received { from: PeerId, message: Message },
    /// A timer of [`Output::SetTimer`] elapsed.
    Timer(TimerId),
    /// Housekeeping, once each second.
    Tick,
}

/// What must happen now, in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Hand the message to the session with `to`; it may be dropped if the session is gone or its queue is full.
    Send { to: PeerId, message: Message },
    /// Call back with [`Input::Timer`] after this time. Timers are not cancelled.
    SetTimer { id: TimerId, after: Duration },
    /// The application holds this block as final. `time_ms` is the block's own time (Unix, milliseconds).
    Decided { height: Height, id: Hash, time_ms: u64 },
    /// The peer sent what no correct peer sends; the session layer decides what that costs it.
    Misbehaved { peer: PeerId, reason: Misbehaviour },
    /// Proof that a validator signed two different votes or proposals for one height and round.
    Evidence(Evidence),
}

/// Why a peer is blamed. A closed set, so that it can label a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misbehaviour {
    /// A vote or proposal with a bad signature or of a signer who is no validator or not the proposer.
    ForgedMessage,
    /// A certificate with a bad, duplicate or unknown signer, or too little power.
    ForgedCertificate,
    /// Block parts that do not form the block they were said to form.
    WrongBody,
    /// An answer to a sync request that does not hold what was asked for.
    WrongSyncAnswer,
}

impl Misbehaviour {
    /// Stable label in snake case.
    pub fn label(self) -> &'static str {
        match self {
            Self::ForgedMessage => "forged_message",
            Self::ForgedCertificate => "forged_certificate",
            Self::WrongBody => "wrong_body",
            Self::WrongSyncAnswer => "wrong_sync_answer",
        }
    }
}
