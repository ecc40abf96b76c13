//! What this pod knows of the links into it: how long each held its probes, and how many of them came.
//!
//! Of the links' losses only a part is known here: numbers that are missing between two that came. Probes that were sent
//! after the last one that came are counted by the sender ([`super::outward`]), and whoever hears both puts them together.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::shape::{
    FLIGHTS, HeldProbe, LinkEntry, Purpose, Stream, WINDOW,
    train::{Arrivals, Train},
};

/// A probe that overtook another one by its jitter, and by no more than this beyond it, has not shown that one to be lost.
const OVERTAKEN: Duration = Duration::from_millis(100);

/// What is known of one link since it became what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) link: u32,
    /// Counted are the probes with numbers above `first` and up to `last`; both 0 when none has come.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) received: u64,
    /// Of those that came: twice, and without having been held.
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    /// The median of the last ones, without their jitter, in microseconds.
    pub(super) latency_us: Option<i64>,
    pub(super) samples: usize,
    /// Bits a second.
    pub(super) rate: Option<u64>,
}

#[derive(Debug)]
struct Link {
    entry: LinkEntry,
    stream: Stream,
    /// What came into the queue before this time met another state.
    since: u64,
    first: Option<u64>,
    /// The numbers after `first`, without a gap.
    flights: VecDeque<Flight>,
    samples: VecDeque<i64>,
    trains: Arrivals,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    /// When it came, or a later one did instead: milliseconds of this agent's life.
    at_ms: u32,
    came: bool,
    again: bool,
    overtook: bool,
}

#[derive(Debug)]
pub(super) struct Inward {
    born: Instant,
    session: u32,
    links: BTreeMap<u32, Link>,
}

impl Inward {
    pub(super) fn new() -> Self {
        Self { born: Instant::now(), session: 0, links: BTreeMap::new() }
    }

    /// Knows exactly these links, which are so since `now` on the kernel's clock. One that is as it was keeps what is
    /// known of it.
    pub(super) fn set(&mut self, session: u32, seed: u64, links: &[LinkEntry], now: u64) {
        let mut before = std::mem::take(&mut self.links);
        let same_session = std::mem::replace(&mut self.session, session) == session;
        for entry in links {
            let stream = Stream::new(seed, entry.number);
            let old = before.remove(&entry.number);
            let old = old.filter(|old| same_session && old.entry == *entry && old.stream == stream);
            self.links.insert(entry.number, old.unwrap_or_else(|| Link::new(*entry, stream, now)));
        }
    }

    /// Forgets what is known of the links from some addresses.
    pub(super) fn forget(&mut self, which: impl Fn(Ipv4Addr, Ipv4Addr) -> bool, now: u64) {
        for link in self.links.values_mut().filter(|link| which(link.entry.from, link.entry.to)) {
            *link = Link::new(link.entry, link.stream, now);
        }
    }

    pub(super) fn take(&mut self, held: &HeldProbe) {
        let at_ms = self.now_ms();
        let Some(link) = self.links.get_mut(&held.probe.link) else { return };
        if held.probe.session != self.session || held.from != link.entry.from || held.came < link.since {
            return;
        }
        if let Some((train, place)) = held.probe.train() {
            if let Some(of) = link.entry.state.rate.and_then(Train::of) {
                link.trains.take(of, train, place, held.left);
            }
            return;
        }
        let (state, number) = (link.entry.state, held.probe.number);
        let took = held.left as i64 - held.came as i64;
        let jitter = link.stream.jitter(Purpose::ProbeJitter, number, state.jitter);
        let is_new = link.count(number, at_ms, state.is_overtaking(took, jitter));
        if !is_new || link.stream.hits(Purpose::ProbeReorder, number, state.reorder) {
            return;
        }
        if link.samples.len() == WINDOW {
            link.samples.pop_front();
        }
        link.samples.push_back(took - jitter);
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        let now_ms = self.now_ms();
        self.links.values().map(move |link| link.seen(now_ms))
    }

    fn now_ms(&self) -> u32 {
        self.born.elapsed().as_millis() as u32
    }
}

impl Link {
    fn new(entry: LinkEntry, stream: Stream, since: u64) -> Self {
        let (flights, samples) = (VecDeque::new(), VecDeque::new());
        Self { entry, stream, since, first: None, flights, samples, trains: Arrivals::default() }
    }

    /// Notes a probe; `false`: it was noted before, or too much has come since.
    fn count(&mut self, number: u64, at_ms: u32, overtook: bool) -> bool {
        let Some(first) = self.first.filter(|first| is_of_one_sender(*first, number)) else {
            // It came because it was not lost: whether it would be says nothing, so the next one is the first that counts.
            self.first = Some(number);
            self.flights.clear();
            return true;
        };
        let Some(place) = number.checked_sub(first + 1) else { return false };
        let missing = place.saturating_sub(self.flights.len() as u64);
        if missing > FLIGHTS as u64 {
            self.first = Some(number);
            self.flights.clear();
            return true;
        }
        while self.flights.len() as u64 <= place {
            self.flights.push_back(Flight { at_ms, came: false, again: false, overtook: false });
        }
        let Some(flight) = self.flights.get_mut(place as usize) else { return false };
        let is_new = !std::mem::replace(&mut flight.came, true);
        flight.again = !is_new;
        if is_new {
            flight.overtook = overtook;
        }
        let excess = self.flights.len().saturating_sub(FLIGHTS);
        self.flights.drain(..excess);
        self.first = Some(first + excess as u64);
        is_new
    }

    fn seen(&self, now_ms: u32) -> Seen {
        let overtaken = (2 * self.entry.state.jitter + OVERTAKEN).as_millis() as u32;
        let is_settled = |flight: &&Flight| now_ms.saturating_sub(flight.at_ms) >= overtaken;
        let settled = || self.flights.iter().take_while(is_settled);
        let count = |of: fn(&&Flight) -> bool| settled().filter(of).count() as u64;
        let mut samples: Vec<i64> = self.samples.iter().copied().collect();
        samples.sort_unstable();
        let first = self.first.unwrap_or_default();
        Seen {
            link: self.entry.number,
            first,
            last: first + settled().count() as u64,
            received: count(|flight| flight.came),
            duplicated: count(|flight| flight.again),
            reordered: count(|flight| flight.overtook),
            latency_us: samples.get(samples.len() / 2).map(|nanoseconds| nanoseconds / 1_000),
            samples: samples.len(),
            rate: self.trains.rate(),
        }
    }
}

/// The upper half of a probe's number is the sender's own, drawn at its start.
fn is_of_one_sender(one: u64, other: u64) -> bool {
    one >> 32 == other >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{LinkState, TimedProbe};

    const MS: u64 = 1_000_000;

    fn entry(latency_ms: u64) -> LinkEntry {
        let state = LinkState { latency: Duration::from_millis(latency_ms), ..LinkState::default() };
        LinkEntry { from: Ipv4Addr::new(10, 0, 0, 1), to: Ipv4Addr::new(10, 0, 0, 2), number: 7, state }
    }

    fn probe(number: u64, came_ms: u64, held_ms: u64) -> HeldProbe {
        let probe = TimedProbe { session: 3, link: 7, number, sent: 0 };
        let came = came_ms * MS;
        HeldProbe { probe, from: Ipv4Addr::new(10, 0, 0, 1), came, left: came + held_ms * MS }
    }

    fn seen(inward: &Inward) -> Seen {
        inward.seen().next().unwrap()
    }

    #[test]
    fn a_link_is_what_its_probes_were_held_since_it_became_so() {
        let mut inward = Inward::new();
        inward.set(3, 1, &[entry(20)], 100 * MS);
        inward.take(&probe(1, 99, 500));
        assert_eq!(seen(&inward).samples, 0, "it met another state");
        for number in 2..40 {
            inward.take(&probe(number, 100 + number, 20));
        }
        assert_eq!((seen(&inward).latency_us, seen(&inward).samples), (Some(20_000), WINDOW));
        inward.set(3, 1, &[entry(20)], 500 * MS);
        assert_eq!(seen(&inward).samples, WINDOW, "nothing has changed");
        inward.set(3, 1, &[entry(30)], 500 * MS);
        assert_eq!(seen(&inward).samples, 0);
        let stranger = HeldProbe { from: Ipv4Addr::new(10, 0, 0, 9), ..probe(50, 600, 30) };
        inward.take(&stranger);
        inward.take(&HeldProbe { probe: TimedProbe { session: 4, ..stranger.probe }, ..probe(50, 600, 30) });
        assert_eq!(seen(&inward).samples, 0);
        inward.take(&probe(51, 600, 30));
        inward.forget(|from, _| from == Ipv4Addr::new(10, 0, 0, 1), 700 * MS);
        assert_eq!(seen(&inward).samples, 0);
    }

    #[test]
    fn probes_between_two_that_came_are_lost_unless_they_were_only_overtaken() {
        let mut link = Link::new(entry(20), Stream::new(1, 7), 0);
        let later = OVERTAKEN.as_millis() as u32;
        assert!(link.count(10, 0, false));
        assert_eq!((link.seen(later).first, link.seen(later).last), (10, 10), "the first one does not count");
        assert!(link.count(13, 0, false) && link.count(12, 5, true));
        assert!(!link.count(12, 6, false) && !link.count(9, 6, false), "twice, and before the first");
        assert_eq!(link.seen(later - 1).last, 10, "11 may still come");
        let all = link.seen(later);
        assert_eq!((all.first, all.last, all.received), (10, 13, 2));
        assert_eq!((all.duplicated, all.reordered), (1, 1), "twice, and not held");
        // Another sender: its numbers begin anew.
        assert!(link.count(1 << 32 | 4, 900, false));
        assert_eq!((link.seen(5_000).first, link.seen(5_000).received), (1 << 32 | 4, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut link = Link::new(entry(20), Stream::new(1, 7), 0);
        for number in 1..=2_000 {
            link.count(number, 0, false);
        }
        let all = link.seen(1_000);
        assert_eq!((all.last, all.received), (2_000, FLIGHTS as u64));
        link.count(1 << 31, 1_000, false);
        assert_eq!(link.flights.len(), 0, "nobody knows what became of so many");
    }
}
