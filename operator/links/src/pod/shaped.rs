//! The links of a pod: those into it are shaped here and measured here, those out of it are probed from here.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::mpsc::{self, Receiver, SyncSender},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    inward::Inward,
    outward::{Outward, Probed},
};
use crate::{
    agent::chain,
    emulator::CutsInForce,
    model::Cut,
    shape::{
        Counters, HeldProbe, Inlet, LinkEntry, LinkState, LinkTable, ShapeError, ShapeOptions, ShapeReport,
        Shaper, arrival,
    },
    track::random,
};

/// Probes that wait to be counted: two seconds of the most that come.
const HELD_PROBES: usize = 8_192;

/// All that an agent is to do with links beside cutting them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaping {
    /// Names one set of faults: what has ended of it does not begin again.
    pub epoch: u64,
    pub seed: u64,
    /// What holds for as long as the agent lives.
    pub base: Vec<ShapedLink>,
    /// In place of what `base` says of the same link, until the lease ends.
    pub faulted: Vec<ShapedLink>,
    /// From now on.
    pub lease: Duration,
    /// Links out of this pod.
    pub probed: Vec<Probed>,
}

/// A link into this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapedLink {
    pub from: Ipv4Addr,
    /// Names the link in its testnet: the random decisions follow from it.
    pub number: u32,
    pub state: LinkState,
}

/// What is known of the links of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapedReport {
    pub received: Vec<LinkReceived>,
    pub sent: Vec<LinkSent>,
    /// What the emulation itself did wrong, as sentences.
    pub faults: Vec<String>,
    /// The faulted links' lease has ended: they are at their base.
    pub lease_ended: bool,
}

/// A link into this pod, as its probes found it since it became what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReceived {
    pub link: u32,
    /// Counted are the probes with numbers above `first` and up to `last`; both 0 when none has come.
    pub first: u64,
    pub last: u64,
    pub received: u64,
    /// Of those that came: twice, and without having been held.
    pub duplicated: u64,
    pub reordered: u64,
    /// How long it held them, without jitter: the median of the last ones, in microseconds.
    pub latency_us: Option<i64>,
    /// How many that is the median of.
    pub samples: usize,
    /// Bits a second that it lets through; absent where it has no rate that can be measured, or too little is known.
    pub rate: Option<u64>,
    pub counters: Counters,
}

/// A link out of this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSent {
    pub link: u32,
    /// The number of the last probe that must have come by now, but for loss; 0: there is none.
    pub last: u64,
}

#[derive(Debug)]
pub(super) struct Shaped {
    address: Ipv4Addr,
    options: ShapeOptions,
    socket: UdpSocket,
    /// Started for the first link that is shaped.
    shaper: Option<Shaper>,
    held: (SyncSender<HeldProbe>, Receiver<HeldProbe>),
    inward: Inward,
    outward: Outward,
    cuts: CutsInForce,
    session: u32,
    epoch: u64,
    /// As the shaper was told last, without what has ended since.
    table: LinkTable,
    ended: bool,
}

impl Shaped {
    /// Opens the probes' socket. Shapes nothing.
    pub(super) fn open(address: Ipv4Addr, options: ShapeOptions) -> io::Result<Self> {
        let socket = arrival::open(address, options.timed)?;
        let outward = Outward::new(socket.try_clone()?, options.timed, random()?);
        Ok(Self {
            address,
            options,
            socket,
            shaper: None,
            held: mpsc::sync_channel(HELD_PROBES),
            inward: Inward::new(),
            outward,
            cuts: CutsInForce::default(),
            session: 0,
            epoch: 0,
            table: LinkTable::default(),
            ended: false,
        })
    }

    /// Tries what shaping needs of the kernel and the container, and leaves nothing; a sentence if they do not have it.
    pub(super) fn unable(options: ShapeOptions) -> Option<String> {
        Shaper::start(options).err().map(|error| chain(&error))
    }

    pub(super) fn apply(&mut self, session: u32, wanted: &Shaping) -> Result<(), ShapeError> {
        let mut table = self.table_of(wanted);
        self.see_the_lease()?;
        if self.epoch != wanted.epoch {
            self.ended = false;
        } else if self.ended {
            table = table.without_faults();
        }
        let same = self.table.clone().with_lease(table.lease()) == table;
        if same && self.shaper.is_some() {
            // The shaper knows best whether there is anything left to renew.
            self.with_shaper(|shaper| shaper.renew(table.lease()))?;
        } else if !same {
            self.start()?;
            self.with_shaper(|shaper| shaper.set(table.clone()))?;
        }
        self.epoch = wanted.epoch;
        self.session = session;
        self.table = table;
        self.outward.set(session, &wanted.probed);
        self.measure();
        Ok(())
    }

    fn table_of(&self, wanted: &Shaping) -> LinkTable {
        let entry = |link: &ShapedLink| LinkEntry {
            from: link.from,
            to: self.address,
            number: link.number,
            state: link.state,
        };
        // What a pod sends to itself is no link.
        let all =
            |links: &[ShapedLink]| links.iter().filter(|link| link.from != self.address).map(entry).collect();
        LinkTable::new(wanted.seed, all(&wanted.base), all(&wanted.faulted), wanted.lease)
    }

    fn start(&mut self) -> Result<(), ShapeError> {
        if self.shaper.is_none() {
            let socket = self.socket.try_clone().map_err(ShapeError::Thread)?;
            let inlet = Inlet::new(socket, self.held.0.clone());
            let shaper = Shaper::start_with(self.options, Some(inlet))?;
            shaper.cut(self.cuts.rects())?;
            self.shaper = Some(shaper);
        }
        Ok(())
    }

    fn with_shaper(&self, ask: impl FnOnce(&Shaper) -> Result<(), ShapeError>) -> Result<(), ShapeError> {
        self.shaper.as_ref().map_or(Ok(()), ask)
    }

    fn measure(&mut self) {
        self.receive();
        let links: Vec<LinkEntry> = self.table.effective().collect();
        self.inward.set(self.session, self.table.seed(), &links, now());
    }

    /// Follows the end of the faulted links' lease, which the shaper keeps.
    fn see_the_lease(&mut self) -> Result<Option<ShapeReport>, ShapeError> {
        let Some(shaper) = &self.shaper else { return Ok(None) };
        let report = shaper.report()?;
        if report.lease_ended && !self.table.faulted().is_empty() {
            self.table = self.table.without_faults();
            self.ended = true;
            self.measure();
        }
        Ok(Some(report))
    }

    /// Follows the cuts, so that held packets of a link that is cut are dropped. The kernel cuts by itself.
    pub(super) fn cut(&mut self, cuts: &[Cut], now: Instant) -> Result<(), ShapeError> {
        self.replace_cuts(CutsInForce::new(cuts, now))
    }

    /// Leaves out the cuts whose lease has ended, as the kernel does.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), ShapeError> {
        self.cuts.after(now).map_or(Ok(()), |cuts| self.replace_cuts(cuts))
    }

    fn replace_cuts(&mut self, cuts: CutsInForce) -> Result<(), ShapeError> {
        let before = std::mem::replace(&mut self.cuts, cuts);
        self.with_shaper(|shaper| shaper.cut(self.cuts.rects()))?;
        self.receive();
        // What was lost to a cut says nothing about the link's own losses.
        self.inward.forget(|from, to| before.cover(from, to) != self.cuts.cover(from, to), now());
        Ok(())
    }

    /// Counts the probes that have come.
    pub(super) fn receive(&mut self) {
        while let Ok(held) = self.held.1.try_recv() {
            self.inward.take(&held);
        }
    }

    /// When [`Self::send_due`] has something to do again; `None` when nothing is probed.
    pub(super) fn wake_after(&self) -> Option<Duration> {
        self.outward.wake_after()
    }

    pub(super) fn send_due(&mut self) {
        self.outward.send_due();
    }

    pub(super) fn report(&mut self) -> ShapedReport {
        self.receive();
        let (report, mut faults) = match self.see_the_lease() {
            Ok(report) => (report.unwrap_or_default(), Vec::new()),
            Err(error) => (ShapeReport::default(), vec![chain(&error)]),
        };
        if self.shaper.is_some() && faults.is_empty() {
            faults = report.faults();
        }
        // The last one: a node that has moved had another address before.
        let counters = |number: u32| report.links.iter().rfind(|link| link.number == number);
        let received = self.inward.seen().map(|seen| LinkReceived {
            link: seen.link,
            first: seen.first,
            last: seen.last,
            received: seen.received,
            duplicated: seen.duplicated,
            reordered: seen.reordered,
            latency_us: seen.latency_us,
            samples: seen.samples,
            rate: seen.rate,
            counters: counters(seen.link).map(|link| link.counters).unwrap_or_default(),
        });
        ShapedReport {
            received: received.collect(),
            sent: self.outward.settled().map(|(link, last)| LinkSent { link, last }).collect(),
            faults,
            lease_ended: self.ended,
        }
    }
}

/// A clock that cannot be read says that everything is old.
fn now() -> u64 {
    arrival::clock().unwrap_or(u64::MAX)
}
