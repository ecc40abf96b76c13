//! Measures links with timed probes: one way, by one clock, which one machine has.
//!
//! When a probe came is told by the kernel, so that a busy receiver does not look like a slow link. What its number says
//! of its jitter is subtracted: the rest must be the latency, and its median is not moved by a few that were held up.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::{
    arrival,
    pace::{BURST, Pace},
    random::{Purpose, Stream},
    state::{LinkEntry, LinkState},
    table::LinkChange,
    timed::TimedProbe,
    train::{Arrivals, Departure, Timetable, Train},
};

/// Probes of one link whose median is its latency.
pub(crate) const WINDOW: usize = 33;
/// Probes of one link that are remembered: those of which a share is lost, and before them those under way, 250 at
/// the longest latency.
pub(crate) const FLIGHTS: usize = 500;
/// Probes sent in a second over all links: what five of a hundred parts of a processor are enough for.
const PROBES_PER_SECOND: u32 = 400;
/// The same while there are links of which too little is known, since a fault waits to be proven: only they are probed.
const NEW_PROBES_PER_SECOND: u32 = 8_000;
/// A probe is lost when it is so much later than its link allows.
const PATIENCE: Duration = Duration::from_millis(500);
/// Probes taken in at a time, so that a flood cannot hold the thread.
const READ_AT_ONCE: usize = 512;

/// What is known of one link by its probes, since its state last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkMeasure {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub number: u32,
    /// Of the last ones, those that must have come by now, but for loss.
    pub sent: u64,
    pub received: u64,
    /// Of those that came: twice, and without having waited for the latency.
    pub duplicated: u64,
    pub reordered: u64,
    /// One way, in microseconds, without jitter: the median of the last ones that were not to overtake others.
    pub latency_us: Option<i64>,
    /// How many that is the median of.
    pub samples: usize,
    /// Bits a second that it lets through; `None` where it has no rate that can be measured, or too little is known.
    pub rate: Option<u64>,
}

#[derive(Debug)]
struct Measured {
    entry: LinkEntry,
    stream: Stream,
    next: u64,
    /// What became of the last probes, without a gap up to the one before `next`. None of them met another state.
    flights: VecDeque<Flight>,
    samples: VecDeque<i64>,
    trains: Arrivals,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    /// Milliseconds of the measurer's life, so that many links need little room.
    sent_ms: u32,
    came: bool,
    again: bool,
    overtook: bool,
}

impl Flight {
    fn sent(sent_ms: u32) -> Self {
        Self { sent_ms, came: false, again: false, overtook: false }
    }
}

/// Sends and receives timed probes.
#[derive(Debug)]
pub struct Measurer {
    port: u16,
    session: u32,
    nodes: BTreeMap<Ipv4Addr, UdpSocket>,
    links: Vec<Measured>,
    /// Places of those of which too little is known.
    new: Vec<usize>,
    trains: Timetable,
    born: Instant,
    pace: Pace,
}

impl Measurer {
    /// `session` tells the probes of this one from those of others.
    pub fn new(port: u16, session: u32) -> Self {
        Self {
            port,
            session,
            nodes: BTreeMap::new(),
            links: Vec::new(),
            new: Vec::new(),
            trains: Timetable::default(),
            born: Instant::now(),
            pace: Pace::new(),
        }
    }

    /// Opens a socket at a node's address, inside its network namespace if given.
    pub fn add_node(&mut self, address: Ipv4Addr, namespace: Option<OwnedFd>) -> io::Result<()> {
        let port = self.port;
        let opened = std::thread::spawn(move || -> io::Result<UdpSocket> {
            if let Some(namespace) = namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
            }
            arrival::open(address, port)
        });
        let socket =
            opened.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opened it panicked")))?;
        self.nodes.insert(address, socket);
        Ok(())
    }

    /// Measures the links as they are now. What was known of one that has changed is forgotten.
    pub fn follow(&mut self, seed: u64, changes: &[LinkChange]) {
        let numbers = |link: fn(&LinkChange) -> Option<LinkEntry>| changes.iter().filter_map(link);
        let kept: HashSet<u32> = numbers(|change| change.after).map(|link| link.number).collect();
        let gone: HashSet<u32> = numbers(|change| change.before)
            .map(|link| link.number)
            .filter(|number| !kept.contains(number))
            .collect();
        if !gone.is_empty() {
            self.links.retain(|link| !gone.contains(&link.entry.number));
        }
        let known = self.links.len();
        for entry in numbers(|change| change.after) {
            let stream = Stream::new(seed, entry.number);
            match self.links[..known].binary_search_by_key(&entry.number, |link| link.entry.number) {
                Ok(place) => {
                    let next = self.links[place].next;
                    self.links[place] = Measured::new(entry, stream, next);
                }
                Err(_) => self.links.push(Measured::new(entry, stream, 1)),
            }
        }
        // By number: that is what a probe says.
        self.links.sort_by_key(|link| link.entry.number);
        self.look_for_new();
    }

    /// Of these too little is known, and they are probed first.
    fn look_for_new(&mut self) {
        self.new = (0..self.links.len()).filter(|place| self.links[*place].is_new()).collect();
        let rates = self.links.iter().enumerate();
        let rates = rates.filter_map(|(place, link)| Some((place, link.entry.state.rate?)));
        self.trains = Timetable::of(rates, self.trains.last());
        self.pace.restart();
    }

    /// Forgets what is known of those links: what happened to them says nothing about how they are now.
    pub fn forget(&mut self, which: impl Fn(Ipv4Addr, Ipv4Addr) -> bool) {
        for link in self.links.iter_mut().filter(|link| which(link.entry.from, link.entry.to)) {
            let Measured { entry, stream, next, .. } = *link;
            *link = Measured::new(entry, stream, next);
        }
        self.look_for_new();
    }

    /// When [`Self::send_due`] has something to do again; `None` when nothing is measured.
    pub fn wake_after(&self) -> Option<Duration> {
        (!self.links.is_empty()).then_some(BURST)
    }

    /// Sends what is due.
    pub fn send_due(&mut self) {
        let now = Instant::now();
        self.new.retain(|place| self.links[*place].is_new());
        let (turns, rate) = if self.new.is_empty() {
            (self.links.len(), PROBES_PER_SECOND)
        } else {
            (self.new.len(), NEW_PROBES_PER_SECOND)
        };
        for turn in self.pace.due(turns, rate, now) {
            self.send_one(self.new.get(turn).copied().unwrap_or(turn));
        }
        while let Some(departure) = self.trains.next(now, |place| self.links[place].trains.are_few()) {
            self.send_train(departure);
        }
    }

    fn send_train(&self, Departure { link, number, train }: Departure) {
        let entry = &self.links[link].entry;
        let Some(socket) = self.nodes.get(&entry.from) else { return };
        for place in 0..train.packets {
            let packet = TimedProbe::of_train(self.session, entry.number, (number, place), train.length);
            // One that cannot be sent makes a train that tells nothing.
            socket.send_to(&packet, (entry.to, self.port)).ok();
        }
    }

    fn send_one(&mut self, place: usize) {
        let link = &mut self.links[place];
        let Some(socket) = self.nodes.get(&link.entry.from) else { return };
        let Ok(sent) = arrival::clock() else { return };
        let probe = TimedProbe { session: self.session, link: link.entry.number, number: link.next, sent };
        // One that cannot be sent counts as lost.
        socket.send_to(&probe.encode(), (link.entry.to, self.port)).ok();
        link.flights.push_back(Flight::sent(self.born.elapsed().as_millis() as u32));
        if link.flights.len() > FLIGHTS {
            link.flights.pop_front();
        }
        link.next += 1;
    }

    /// Takes in what has come.
    pub fn receive(&mut self) {
        for (address, socket) in &self.nodes {
            for _ in 0..READ_AT_ONCE {
                let Some((probe, from, came)) = arrival::receive(socket) else { break };
                let place = self.links.binary_search_by_key(&probe.link, |link| link.entry.number);
                let Ok(link) = place.map(|place| &mut self.links[place]) else { continue };
                if probe.session != self.session || link.entry.to != *address || link.entry.from != from {
                    continue;
                }
                match (probe.train(), link.entry.state.rate.and_then(Train::of)) {
                    (Some((train, place)), Some(of)) => link.trains.take(of, train, place, came),
                    (Some(_), None) => {}
                    (None, _) => link.take(probe.number, came as i64 - probe.sent as i64),
                }
            }
        }
    }

    /// Every link as it is measured, and what is known of it.
    pub fn measures(&self) -> impl Iterator<Item = (LinkEntry, LinkMeasure)> {
        let now_ms = self.born.elapsed().as_millis() as u32;
        self.links.iter().map(move |link| (link.entry, link.measure(now_ms)))
    }
}

/// A probe that has not come so long after it was sent never will.
pub fn patience(state: &LinkState) -> Duration {
    state.latency + state.jitter + PATIENCE
}

impl Measured {
    /// `next`: the number of its next probe, since numbers are never used again.
    fn new(entry: LinkEntry, stream: Stream, next: u64) -> Self {
        let samples = VecDeque::with_capacity(WINDOW);
        Self { entry, stream, next, flights: VecDeque::new(), samples, trains: Arrivals::default() }
    }

    /// Too little is known to say what it is.
    fn is_new(&self) -> bool {
        self.flights.len() < self.entry.state.probes_wanted()
    }

    /// Notes that a probe came, so many nanoseconds after it was sent.
    fn take(&mut self, number: u64, took: i64) {
        let LinkState { jitter, reorder, .. } = self.entry.state;
        let jitter = self.stream.jitter(Purpose::ProbeJitter, number, jitter);
        let overtook = self.entry.state.is_overtaking(took, jitter);
        let Some(flight) = self.flight(number) else { return };
        if flight.came {
            flight.again = true;
            return;
        }
        (flight.came, flight.overtook) = (true, overtook);
        if self.stream.hits(Purpose::ProbeReorder, number, reorder) {
            return;
        }
        if self.samples.len() == WINDOW {
            self.samples.pop_front();
        }
        self.samples.push_back(took - jitter);
    }

    /// The probe of that number, unless it met another state or was sent long ago.
    fn flight(&mut self, number: u64) -> Option<&mut Flight> {
        let ago = self.next.checked_sub(number)? as usize;
        let place = self.flights.len().checked_sub(ago)?;
        self.flights.get_mut(place)
    }

    fn measure(&self, now_ms: u32) -> LinkMeasure {
        let longest = patience(&self.entry.state).as_millis() as u32;
        let is_due = |flight: &&Flight| now_ms.saturating_sub(flight.sent_ms) >= longest;
        let due = || self.flights.iter().take_while(is_due);
        let count = |of: fn(&&Flight) -> bool| due().filter(of).count() as u64;
        let mut samples: Vec<i64> = self.samples.iter().copied().collect();
        samples.sort_unstable();
        LinkMeasure {
            from: self.entry.from,
            to: self.entry.to,
            number: self.entry.number,
            sent: due().count() as u64,
            received: count(|flight| flight.came),
            duplicated: count(|flight| flight.again),
            reordered: count(|flight| flight.overtook),
            latency_us: samples.get(samples.len() / 2).map(|nanoseconds| nanoseconds / 1_000),
            samples: samples.len(),
            rate: self.trains.rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Share;

    #[test]
    fn a_change_of_the_link_forgets_what_was_known() {
        let mut measurer = Measurer::new(1, 1);
        let state = LinkState::default();
        let entry = |number, latency| {
            let state = LinkState { latency, ..state };
            LinkEntry { from: Ipv4Addr::new(10, 0, 0, 1), to: Ipv4Addr::new(10, 0, 0, 2), number, state }
        };
        let fast = entry(7, Duration::from_millis(20));
        let slow = entry(7, Duration::from_millis(30));
        let samples = |measurer: &Measurer| -> Vec<(u32, usize)> {
            measurer.measures().map(|(link, measure)| (link.number, measure.samples)).collect()
        };
        measurer.follow(1, &[LinkChange { before: None, after: Some(fast) }]);
        measurer.links[0].samples.push_back(1);
        measurer.links[0].next = 9;
        let other = entry(3, Duration::ZERO);
        measurer.follow(1, &[LinkChange { before: None, after: Some(other) }]);
        assert_eq!(samples(&measurer), [(3, 0), (7, 1)], "another link has come");
        measurer.follow(1, &[LinkChange { before: Some(fast), after: Some(slow) }]);
        assert_eq!(samples(&measurer), [(3, 0), (7, 0)]);
        assert_eq!(measurer.links[1].next, 9, "numbers are never used again");
        measurer.links[1].samples.push_back(1);
        measurer.forget(|from, _| from == Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(samples(&measurer), [(3, 0), (7, 1)], "another link was meant");
        measurer.forget(|from, _| from == Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(samples(&measurer), [(3, 0), (7, 0)]);
        measurer.follow(1, &[LinkChange { before: Some(other), after: None }]);
        assert_eq!(samples(&measurer), [(7, 0)]);
        assert_eq!(measurer.new, [0]);
    }

    #[test]
    fn a_probe_counts_once_and_only_the_last_ones_count() {
        let entry = LinkEntry {
            from: Ipv4Addr::new(10, 0, 0, 1),
            to: Ipv4Addr::new(10, 0, 0, 2),
            number: 7,
            state: LinkState::default(),
        };
        let mut link = Measured::new(entry, Stream::new(1, 7), 5);
        link.flights = (0..3).map(|n| Flight::sent(n * 100)).collect();
        link.next = 8;
        assert!(link.flight(4).is_none(), "of the time before");
        assert!(link.flight(8).is_none(), "not sent yet");
        link.flight(6).unwrap().came = true;
        let counts = |measure: LinkMeasure| (measure.sent, measure.received);
        assert_eq!(counts(link.measure(499)), (0, 0));
        assert_eq!(counts(link.measure(600)), (2, 1), "the third may still come");
        assert_eq!(counts(link.measure(700)), (3, 1));
    }

    /// Which probes overtake others, their numbers say: that they do is measured, and moves no median.
    #[test]
    fn probes_that_come_twice_or_too_early_are_counted() {
        let state = LinkState {
            latency: Duration::from_millis(20),
            reorder: Share::millionths(400_000),
            ..LinkState::default()
        };
        let entry =
            LinkEntry { from: Ipv4Addr::new(10, 0, 0, 1), to: Ipv4Addr::new(10, 0, 0, 2), number: 7, state };
        let stream = Stream::new(1, 7);
        let mut link = Measured::new(entry, stream, 1);
        link.flights = (0..200).map(|_| Flight::sent(0)).collect();
        link.next = 201;
        let overtakes = |number: &u64| stream.hits(Purpose::ProbeReorder, *number, state.reorder);
        for number in 1..=200 {
            link.take(number, if overtakes(&number) { 50_000 } else { 20_100_000 });
        }
        link.take(3, 30_000_000);
        link.take(3, 40_000_000);
        let measure = link.measure(10_000);
        let overtook = (1..=200).filter(overtakes).count() as u64;
        assert_eq!((measure.received, measure.duplicated, measure.reordered), (200, 1, overtook));
        assert_eq!((measure.latency_us, measure.samples), (Some(20_100), WINDOW));
        assert!((60..100).contains(&overtook), "{overtook}");
    }
}
