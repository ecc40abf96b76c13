//! Random decisions as a function of (seed, link, purpose, number): the same for every run, in whichever order links are
//! used, and known to whoever checks them.

use std::time::Duration;

use super::state::Share;

/// What a number is drawn for. Probes draw from streams of their own, so that they change nobody's luck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Loss = 1,
    Jitter,
    Reorder,
    Duplicate,
    Corrupt,
    ProbeLoss,
    ProbeJitter,
    ProbeReorder,
    ProbeDuplicate,
    ProbeCorrupt,
}

/// The random numbers of one directed link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    pub fn new(seed: u64, link: u32) -> Self {
        Self(mix(mix(seed) ^ u64::from(link)))
    }

    pub fn draw(self, purpose: Purpose, number: u64) -> u64 {
        mix(mix(self.0 ^ (purpose as u64) << 56) ^ number)
    }

    /// Whether the packet with this number is among the share.
    pub fn hits(self, purpose: Purpose, number: u64, share: Share) -> bool {
        // Scaled to 0..1,000,000 by its upper half: no bias worth a name.
        let scaled = ((self.draw(purpose, number) >> 32) * u64::from(Share::ALL.as_millionths())) >> 32;
        scaled < u64::from(share.as_millionths())
    }

    /// Nanoseconds between minus and plus `range`.
    pub fn jitter(self, purpose: Purpose, number: u64, range: Duration) -> i64 {
        let range = range.as_nanos() as u64;
        let width = u128::from(range) * 2 + 1;
        let offset = (u128::from(self.draw(purpose, number)) * width) >> 64;
        offset as i64 - range as i64
    }
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_hit_as_often_as_it_says() {
        for millionths in [0, 1_000, 50_000, 500_000, 1_000_000] {
            let share = Share::millionths(millionths);
            let stream = Stream::new(7, 3);
            let hits = (0..100_000).filter(|n| stream.hits(Purpose::Loss, *n, share)).count() as f64;
            let expected = 100_000.0 * share.as_fraction();
            // Six standard deviations.
            let margin = 6.0 * (expected * (1.0 - share.as_fraction())).sqrt();
            assert!((hits - expected).abs() <= margin, "{hits} of 100000 at {share}");
        }
    }

    #[test]
    fn jitter_fills_its_range_evenly() {
        let range = Duration::from_millis(2);
        let all: Vec<i64> =
            (0..10_000).map(|n| Stream::new(1, 1).jitter(Purpose::Jitter, n, range)).collect();
        assert!(all.iter().all(|value| value.abs() <= 2_000_000));
        assert!(all.iter().max() > Some(&1_990_000) && all.iter().min() < Some(&-1_990_000));
        assert!((all.iter().sum::<i64>() / 10_000).abs() < 60_000);
        assert_eq!(Stream::new(1, 1).jitter(Purpose::Jitter, 5, Duration::ZERO), 0);
    }

    #[test]
    fn links_seeds_and_purposes_have_their_own_numbers() {
        let base = Stream::new(1, 1).draw(Purpose::Loss, 1);
        assert_ne!(base, Stream::new(2, 1).draw(Purpose::Loss, 1));
        assert_ne!(base, Stream::new(1, 2).draw(Purpose::Loss, 1));
        assert_ne!(base, Stream::new(1, 1).draw(Purpose::Jitter, 1));
        assert_ne!(base, Stream::new(1, 1).draw(Purpose::Loss, 2));
    }
}
