//! Sends the probes of the links that begin at this pod. What becomes of them is seen by the agents they are sent to.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::shape::{
    FLIGHTS, TimedProbe,
    pace::{BURST, Pace},
    train::{Departure, Timetable},
};

/// Probes sent in a second over all links of this pod.
const PROBES_PER_SECOND: u32 = 250;
/// The same while there are links of which too little is known, since a fault waits to be proven: only they are probed.
const NEW_PROBES_PER_SECOND: u32 = 2_000;
/// Trains sent soon of a link that is new, or was changed.
const SOON: u32 = 6;

/// A link whose timed probes are to be sent from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    pub link: u32,
    pub to: Ipv4Addr,
    /// A probe that has not come so long after it was sent never will.
    pub patience: Duration,
    /// So many are needed at once when the link is new, or was changed.
    pub wanted: usize,
    /// Bits a second: trains are sent where there is one.
    pub rate: Option<u64>,
}

#[derive(Debug)]
struct Out {
    probed: Probed,
    /// Sent since it is so.
    sent: usize,
    last: u64,
    /// When the last ones were sent, up to `last`: milliseconds of this agent's life.
    times: VecDeque<u32>,
    /// Trains sent since it is so.
    trains: u32,
}

#[derive(Debug)]
pub(super) struct Outward {
    socket: UdpSocket,
    port: u16,
    session: u32,
    /// In the upper half of every number, so that those of an agent before this one are other ones. Below 2^63: others are of
    /// trains.
    origin: u64,
    born: Instant,
    links: Vec<Out>,
    pace: Pace,
    trains: Timetable,
}

impl Outward {
    pub(super) fn new(socket: UdpSocket, port: u16, origin: u32) -> Self {
        Self {
            socket,
            port,
            session: 0,
            origin: u64::from(origin >> 1) << 32,
            born: Instant::now(),
            links: Vec::new(),
            pace: Pace::new(),
            trains: Timetable::default(),
        }
    }

    /// Probes exactly these links.
    pub(super) fn set(&mut self, session: u32, probed: &[Probed]) {
        self.session = session;
        let mut before: BTreeMap<u32, Out> = self.links.drain(..).map(|out| (out.probed.link, out)).collect();
        let out = |probed: &Probed| match before.remove(&probed.link) {
            Some(old) if old.probed == *probed => old,
            // Numbers go on: none is used twice.
            Some(old) => Out { probed: *probed, sent: 0, times: VecDeque::new(), trains: 0, ..old },
            None => Out { probed: *probed, sent: 0, last: self.origin, times: VecDeque::new(), trains: 0 },
        };
        self.links = probed.iter().map(out).collect();
        let rates = self.links.iter().enumerate();
        let rates = rates.filter_map(|(place, out)| Some((place, out.probed.rate?)));
        self.trains = Timetable::of(rates, self.trains.last());
        self.pace.restart();
    }

    /// When [`Self::send_due`] has something to do again; `None` when nothing is probed.
    pub(super) fn wake_after(&self) -> Option<Duration> {
        (!self.links.is_empty()).then_some(BURST)
    }

    pub(super) fn send_due(&mut self) {
        let is_new = |place: &usize| self.links[*place].sent < self.links[*place].probed.wanted;
        let new: Vec<usize> = (0..self.links.len()).filter(is_new).collect();
        let (turns, rate) = if new.is_empty() {
            (self.links.len(), PROBES_PER_SECOND)
        } else {
            (new.len(), NEW_PROBES_PER_SECOND)
        };
        for turn in self.pace.due(turns, rate, Instant::now()) {
            self.send(new.get(turn).copied().unwrap_or(turn));
        }
        // The receiver knows when it has enough; here a few more than that are sent soon.
        let now = Instant::now();
        while let Some(departure) = self.trains.next(now, |place| self.links[place].trains < SOON) {
            self.send_train(departure);
        }
    }

    fn send_train(&mut self, Departure { link, number, train }: Departure) {
        let out = &mut self.links[link];
        out.trains += 1;
        for place in 0..train.packets {
            let packet = TimedProbe::of_train(self.session, out.probed.link, (number, place), train.length);
            // One that cannot be sent makes a train that tells nothing.
            self.socket.send_to(&packet, (out.probed.to, self.port)).ok();
        }
    }

    fn send(&mut self, place: usize) {
        let out = &mut self.links[place];
        out.last += 1;
        out.sent += 1;
        // The receiver's clock tells how long it was held: when it was sent is nobody's business.
        let probe = TimedProbe { session: self.session, link: out.probed.link, number: out.last, sent: 0 };
        // One that cannot be sent counts as lost.
        self.socket.send_to(&probe.encode(), (out.probed.to, self.port)).ok();
        out.times.push_back(self.born.elapsed().as_millis() as u32);
        if out.times.len() > FLIGHTS {
            out.times.pop_front();
        }
    }

    /// Of each link the number of the last probe that must have come by now, but for loss; 0: there is none.
    pub(super) fn settled(&self) -> impl Iterator<Item = (u32, u64)> {
        let now_ms = self.born.elapsed().as_millis() as u32;
        self.links.iter().map(move |out| (out.probed.link, out.settled(now_ms)))
    }
}

impl Out {
    fn settled(&self, now_ms: u32) -> u64 {
        let patience = self.probed.patience.as_millis() as u32;
        let under_way = self.times.iter().rev().take_while(|sent| now_ms.saturating_sub(**sent) < patience);
        let under_way = under_way.count();
        if under_way == self.times.len() { 0 } else { self.last - under_way as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outward() -> (Outward, UdpSocket, u16) {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (Outward::new(sender, port, 9), receiver, port)
    }

    fn probed(patience_ms: u64) -> Probed {
        let patience = Duration::from_millis(patience_ms);
        Probed { link: 4, to: Ipv4Addr::LOCALHOST, patience, wanted: 2, rate: None }
    }

    #[test]
    fn numbers_are_this_agents_own_and_never_used_twice() {
        let (mut outward, receiver, _) = outward();
        let mut numbers = Vec::new();
        for patience in [100, 100, 200] {
            outward.set(3, &[probed(patience)]);
            outward.send(0);
            let mut packet = [0; 64];
            let length = receiver.recv(&mut packet).unwrap();
            let probe = TimedProbe::decode(&packet[..length]).unwrap();
            assert_eq!((probe.session, probe.link), (3, 4));
            numbers.push(probe.number);
        }
        assert_eq!(numbers, [4 << 32 | 1, 4 << 32 | 2, 4 << 32 | 3]);
        assert_eq!(outward.links[0].sent, 1, "it was changed");
    }

    #[test]
    fn probes_under_way_are_not_settled() {
        let out =
            Out { probed: probed(100), sent: 3, last: 4 << 32 | 7, times: [0, 40, 80].into(), trains: 0 };
        assert_eq!(out.settled(99), 0);
        assert_eq!(out.settled(100), 4 << 32 | 5);
        assert_eq!(out.settled(1_000), 4 << 32 | 7);
    }
}
