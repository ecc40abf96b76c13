//! Trains of probes: how many bits a second a link lets through.
//!
//! Packets that are sent at once leave a link with a rate one after the other, so the time from the first to the last is what
//! the rate takes for all but the first. They stand in the link's queue as nodes' packets do, and hardly any of these comes
//! between them, since they are sent at once; what does makes a link look slower than it is, never faster.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The fastest link that is measured, in bits a second: above, a train passes in less time than a thread needs to wake.
pub const FASTEST: u64 = 200_000_000;
/// A train takes so long on its link, as far as its bounds allow.
const LASTS: Duration = Duration::from_millis(20);
/// What fits into a socket's receive buffer.
const LONGEST: u64 = 64;
/// Bytes of a packet, headers of the network layer included.
const LENGTHS: (u64, u64) = (60, 1_400);
/// Of so many trains the median is taken, once there are enough.
const KEPT: usize = 5;
const ENOUGH: usize = 3;
/// Packets of trains in a second over all links, and from one train of a link to its next: while too little is known, and then.
const PACKETS_PER_SECOND: u32 = 4_000;
const NEW_EVERY: Duration = Duration::from_millis(300);
const EVERY: Duration = Duration::from_secs(10);

/// What a train on a link of some rate is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Train {
    pub(crate) packets: u8,
    /// Of each, headers of the network layer included.
    pub(crate) length: usize,
}

impl Train {
    /// `None`: such a link is not measured.
    pub(crate) fn of(rate: u64) -> Option<Self> {
        if rate > FASTEST {
            return None;
        }
        let bytes = rate * LASTS.as_millis() as u64 / 8_000;
        let packets = (bytes / LENGTHS.1).clamp(2, LONGEST);
        let length = (bytes / packets).clamp(LENGTHS.0, LENGTHS.1);
        Some(Self { packets: packets as u8, length: length as usize })
    }
}

/// What came of the trains on one link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals {
    train: u32,
    first: Option<(u8, u64)>,
    last: (u8, u64),
    /// Bits a second.
    rates: VecDeque<u64>,
}

impl Arrivals {
    /// A packet of a train, at a nanosecond of any clock.
    pub(crate) fn take(&mut self, of: Train, train: u32, place: u8, at: u64) {
        if train != self.train || self.first.is_none() {
            (self.train, self.first) = (train, Some((place, at)));
        }
        self.last = (place, at);
        // Without its last packet a train tells nothing; the next one will.
        if place + 1 == of.packets
            && let Some((first, began)) = self.first.take().filter(|(first, _)| *first < place)
        {
            let bits = u64::from(place - first) * of.length as u64 * 8;
            let took = at.saturating_sub(began).max(1);
            if self.rates.len() == KEPT {
                self.rates.pop_front();
            }
            self.rates.push_back((u128::from(bits) * 1_000_000_000 / u128::from(took)) as u64);
        }
    }

    /// Too little is known to say how fast the link is.
    pub(crate) fn are_few(&self) -> bool {
        self.rates.len() < ENOUGH
    }

    /// Bits a second.
    pub(crate) fn rate(&self) -> Option<u64> {
        let mut rates: Vec<u64> = self.rates.iter().copied().collect();
        rates.sort_unstable();
        (!self.are_few()).then(|| rates[rates.len() / 2])
    }
}

/// When the next train leaves, of all links that have a rate.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    /// By the caller's name of a link: what its trains are made of, how many it sent, and when the last one left.
    links: Vec<(usize, Train, u32, Option<Instant>)>,
    turn: usize,
    free_at: Option<Instant>,
}

/// A train that is to leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) link: usize,
    pub(crate) number: u32,
    pub(crate) train: Train,
}

impl Timetable {
    /// Exactly these links, with their rates. Trains get numbers above `last`.
    pub(crate) fn of(links: impl Iterator<Item = (usize, u64)>, last: u32) -> Self {
        let links = links.filter_map(|(link, rate)| Some((link, Train::of(rate)?, last, None)));
        Self { links: links.collect(), turn: 0, free_at: None }
    }

    /// The highest number of a train.
    pub(crate) fn last(&self) -> u32 {
        self.links.iter().map(|(_, _, number, _)| *number).max().unwrap_or_default()
    }

    /// The next one, while the packets that all links together may send allow one. `is_new`: too little is known of a link.
    pub(crate) fn next(&mut self, now: Instant, is_new: impl Fn(usize) -> bool) -> Option<Departure> {
        let free_at = self.free_at.map_or(now, |at| at.max(now.checked_sub(LASTS).unwrap_or(now)));
        if now < free_at {
            return None;
        }
        let count = self.links.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            let (link, train, number, left) = &mut self.links[place];
            let every = if is_new(*link) { NEW_EVERY } else { EVERY };
            if left.is_some_and(|left| now < left + every) {
                continue;
            }
            (*number, *left) = (*number + 1, Some(now));
            self.turn = place + 1;
            self.free_at =
                Some(free_at + Duration::from_secs(1) * u32::from(train.packets) / PACKETS_PER_SECOND);
            return Some(Departure { link: *link, number: *number, train: *train });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_takes_its_time_on_links_of_any_rate() {
        for rate in [10_000, 64_000, 1_000_000, 8_000_000, 40_000_000, FASTEST] {
            let train = Train::of(rate).unwrap();
            let takes_ms = (u64::from(train.packets) - 1) * train.length as u64 * 8_000 / rate;
            assert!((3..50).contains(&takes_ms), "{train:?} takes {takes_ms} ms at {rate} bit/s");
        }
        assert_eq!(Train::of(FASTEST + 1), None);
    }

    #[test]
    fn the_rate_is_what_the_packets_between_the_first_and_the_last_took() {
        let of = Train { packets: 5, length: 1_000 };
        let mut arrivals = Arrivals::default();
        for train in 1..=3 {
            assert_eq!(arrivals.rate(), None);
            // A packet every 2 ms; one of the second train does not come.
            for place in (0..5u8).filter(|place| train != 2 || *place != 1) {
                arrivals.take(of, train, place, (u64::from(train) << 40) + u64::from(place) * 2_000_000);
            }
        }
        assert_eq!(arrivals.rate(), Some(4_000_000));
        // Half a train tells nothing.
        arrivals.take(of, 4, 0, 0);
        arrivals.take(of, 5, 0, 10);
        arrivals.take(of, 5, 4, 8_000_010);
        assert_eq!(arrivals.rates.back(), Some(&4_000_000));
    }

    #[test]
    fn links_take_turns_and_new_ones_are_measured_sooner() {
        let start = Instant::now();
        let mut table = Timetable::of([(7, 1_000_000), (9, 1_000_000), (11, FASTEST * 2)].into_iter(), 4);
        let mut left: Vec<(usize, u32)> = Vec::new();
        for ms in 0..2_000 {
            let departure = table.next(start + Duration::from_millis(ms), |link| link == 7);
            left.extend(departure.map(|departure| (departure.link, departure.number)));
        }
        let of = |link| left.iter().filter(|(of, _)| *of == link).count();
        assert_eq!((of(7), of(9), of(11)), (7, 1, 0));
        assert_eq!(left[..2], [(7, 5), (9, 5)]);
        assert_eq!(table.last(), 11);
    }
}
