//! The model of one directed link. Pure: times come in as arguments, chance comes from the link's [`Stream`].
//!
//! Order on a packet: cut, loss, rate, latency and jitter, reorder, duplicate, corrupt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    random::{Purpose, Stream},
    state::LinkState,
};

/// The most packets that one link holds at a time; more are dropped and counted.
pub const MAX_HELD: usize = 8_192;
/// A packet that would wait longer than this for the link's rate is dropped and counted: a longer queue only turns a
/// slow link into a late one.
const MAX_BACKLOG: u64 = 100_000_000;
/// The jitter stays the same for a while, so that packets that follow each other closely keep their order without
/// pushing the mean up: drawn for each packet, 20 +- 10 ms became 27 at 1,000 packets/s. This many times the jitter.
const SLOT_FACTOR: u64 = 4;
/// The shortest such while.
const MIN_SLOT: u64 = 1_000_000;

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Traffic,
    /// A probe of this number: its luck follows from the number alone. It does not wait for the rate, so that it
    /// measures the link and not its load.
    Probe(u64),
    /// A packet of a train: it waits for the rate and the latency as traffic does, and meets nothing else.
    Train,
}

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    Cut,
    Loss,
    /// The link holds too much already.
    Overflow,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    Drop(Dropped),
    /// It leaves at `at` (nanoseconds), twice if `duplicate`, with a bit flipped that `corrupt` chooses.
    Leave {
        at: u64,
        duplicate: bool,
        corrupt: Option<u64>,
    },
}

/// What has happened on a link. Packets of a link that is not exact are bursts of up to 64 KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Packets that came.
    pub packets: u64,
    pub bytes: u64,
    /// Lost because the link loses packets.
    pub lost: u64,
    /// Lost because it held too many: load above the link's rate, or a fault of the emulation.
    pub overflowed: u64,
    /// Dropped because it was cut, held ones among them.
    pub cut: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
}

#[derive(Debug)]
pub struct Link {
    state: LinkState,
    stream: Stream,
    cut: bool,
    /// Counts the beginnings of cuts: what was held before one must not leave after it.
    era: u32,
    counters: Counters,
    held: usize,
    /// When the last bit of what came before has left, by the rate.
    free_at: u64,
    /// When the last packet that keeps the order leaves.
    latest: u64,
    slot: Slot,
}

#[derive(Debug, Default)]
struct Slot {
    number: u64,
    ends: u64,
    jitter: i64,
}

impl Link {
    pub fn new(state: LinkState, stream: Stream) -> Self {
        Self {
            state,
            stream,
            cut: false,
            era: 0,
            counters: Counters::default(),
            held: 0,
            free_at: 0,
            latest: 0,
            slot: Slot::default(),
        }
    }

    pub fn state(&self) -> LinkState {
        self.state
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Changes what happens to packets from now on. Those that are held leave as they were told.
    pub fn set_state(&mut self, state: LinkState) {
        if self.state.jitter != state.jitter {
            self.slot.ends = 0;
        }
        if self.state.rate != state.rate {
            self.free_at = 0;
        }
        self.state = state;
    }

    /// Follows the beginning or end of a cut: a beginning dooms what is held.
    pub fn set_cut(&mut self, cut: bool) {
        if cut && !self.cut {
            self.era += 1;
        }
        self.cut = cut;
    }

    /// The era in which a packet is held; see [`Self::release`].
    pub fn era(&self) -> u32 {
        self.era
    }

    /// Decides about a packet of `length` bytes that arrives at `now` (nanoseconds of any clock that never goes back).
    /// One that leaves counts as held until [`Self::release`].
    pub fn admit(&mut self, arrival: Arrival, length: usize, now: u64) -> Fate {
        let number = match arrival {
            Arrival::Traffic => {
                self.counters.packets += 1;
                self.counters.bytes += length as u64;
                self.counters.packets
            }
            Arrival::Probe(number) => number,
            Arrival::Train => return self.train(length, now),
        };
        let is_probe = arrival != Arrival::Traffic;
        if self.cut {
            self.counters.cut += 1;
            return Fate::Drop(Dropped::Cut);
        }
        let purpose = if is_probe { Purpose::ProbeLoss } else { Purpose::Loss };
        if self.stream.hits(purpose, number, self.state.loss) {
            self.counters.lost += u64::from(!is_probe);
            return Fate::Drop(Dropped::Loss);
        }
        if self.held >= MAX_HELD {
            self.counters.overflowed += 1;
            return Fate::Drop(Dropped::Overflow);
        }
        let fate = if is_probe { self.probe(number, now) } else { self.traffic(number, length, now) };
        self.held += usize::from(matches!(fate, Fate::Leave { .. }));
        fate
    }

    /// A packet held since `era` leaves now; `false`: it must be dropped, a cut has begun in between.
    #[must_use]
    pub fn release(&mut self, era: u32) -> bool {
        self.held = self.held.saturating_sub(1);
        let leaves = era == self.era;
        self.counters.cut += u64::from(!leaves);
        leaves
    }

    fn probe(&self, number: u64, now: u64) -> Fate {
        let LinkState { jitter, reorder, duplicate, corrupt, .. } = self.state;
        let hits = |purpose, share| self.stream.hits(purpose, number, share);
        let jitter = self.stream.jitter(Purpose::ProbeJitter, number, jitter);
        Fate::Leave {
            at: if hits(Purpose::ProbeReorder, reorder) { now } else { self.delayed(now, jitter) },
            duplicate: hits(Purpose::ProbeDuplicate, duplicate),
            corrupt: hits(Purpose::ProbeCorrupt, corrupt)
                .then(|| self.stream.draw(Purpose::ProbeCorrupt, !number)),
        }
    }

    /// Also while the backlog is long: a link under load is measured, too, and trains are few.
    fn train(&mut self, length: usize, now: u64) -> Fate {
        if self.cut {
            return Fate::Drop(Dropped::Cut);
        }
        if self.held >= MAX_HELD {
            return Fate::Drop(Dropped::Overflow);
        }
        self.held += 1;
        let at = self.transmitted(length, now);
        Fate::Leave { at: self.delayed(at, 0), duplicate: false, corrupt: None }
    }

    /// When the last bit of a packet has left, by the rate.
    fn transmitted(&mut self, length: usize, now: u64) -> u64 {
        let Some(rate) = self.state.rate else { return now };
        let takes = u128::from(length as u64) * 8 * 1_000_000_000 / u128::from(rate.max(1));
        let starts = self.free_at.max(now);
        self.free_at = starts.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        self.free_at
    }

    fn traffic(&mut self, number: u64, length: usize, now: u64) -> Fate {
        if self.state.rate.is_some() && self.free_at.saturating_sub(now) > MAX_BACKLOG {
            self.counters.overflowed += 1;
            return Fate::Drop(Dropped::Overflow);
        }
        let mut at = self.transmitted(length, now);
        if self.stream.hits(Purpose::Reorder, number, self.state.reorder) {
            self.counters.reordered += 1;
        } else {
            let jitter = self.slot_jitter(now);
            at = self.delayed(at, jitter).max(self.latest);
            self.latest = at;
        }
        let duplicate = self.stream.hits(Purpose::Duplicate, number, self.state.duplicate);
        let corrupt = self.stream.hits(Purpose::Corrupt, number, self.state.corrupt);
        self.counters.duplicated += u64::from(duplicate);
        self.counters.corrupted += u64::from(corrupt);
        // Another number of the same stream says which bit.
        let corrupt = corrupt.then(|| self.stream.draw(Purpose::Corrupt, !number));
        Fate::Leave { at, duplicate, corrupt }
    }

    fn slot_jitter(&mut self, now: u64) -> i64 {
        if self.state.jitter == Duration::ZERO {
            return 0;
        }
        if now >= self.slot.ends {
            let length = (self.state.jitter.as_nanos() as u64).saturating_mul(SLOT_FACTOR).max(MIN_SLOT);
            let number = self.slot.number + 1;
            let jitter = self.stream.jitter(Purpose::Jitter, number, self.state.jitter);
            self.slot = Slot { number, ends: now.saturating_add(length), jitter };
        }
        self.slot.jitter
    }

    fn delayed(&self, at: u64, jitter: i64) -> u64 {
        let latency = self.state.latency.as_nanos() as u64;
        // A jitter larger than the latency does not deliver before the packet is sent.
        at.saturating_add(latency.saturating_add_signed(jitter))
    }
}

#[cfg(test)]
mod tests;
