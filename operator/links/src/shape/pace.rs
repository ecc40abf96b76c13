//! Whose turn it is to be probed: every link once a round, as far as a rate over all of them allows.

use std::time::{Duration, Instant};

/// The shortest time between two probes of one link.
pub(crate) const ROUND: Duration = Duration::from_millis(40);
/// Probes are sent in small bursts, so that the thread need not wake for each.
pub(crate) const BURST: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Pace {
    turn: usize,
    round_started: Option<Instant>,
    credit_since: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { turn: 0, round_started: None, credit_since: Instant::now() }
    }

    /// Begins anew: the links are other ones.
    pub(crate) fn restart(&mut self) {
        self.turn = 0;
    }

    /// Which of `turns` links are due now, at `rate` probes a second over all of them.
    pub(crate) fn due(&mut self, turns: usize, rate: u32, now: Instant) -> Vec<usize> {
        let mut due = Vec::new();
        let earned = now.duration_since(self.credit_since).min(ROUND).as_secs_f64();
        let budget = (earned * f64::from(rate)) as usize;
        if budget > 0 {
            self.credit_since = now;
        }
        // Links come and go between two calls; a round that is cut short begins anew.
        self.turn %= turns.max(1);
        for _ in 0..budget.min(turns) {
            if self.turn == 0 {
                if self.round_started.is_some_and(|started| now.duration_since(started) < ROUND) {
                    break;
                }
                self.round_started = Some(now);
            }
            due.push(self.turn);
            self.turn = (self.turn + 1) % turns;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_no_shorter_and_a_second_has_no_more_than_allowed() {
        let mut pace = Pace::new();
        let start = Instant::now();
        let second = |pace: &mut Pace, links, rate, from: u32| -> Vec<usize> {
            let calls = (from + 1)..=(from + 50);
            calls.flat_map(|call| pace.due(links, rate, start + call * BURST)).collect()
        };
        let few = second(&mut pace, 2, 1_000, 0);
        assert!((48..=50).contains(&few.len()), "{}", few.len());
        assert_eq!(few[..4], [0, 1, 0, 1]);
        let many = second(&mut pace, 500, 1_000, 50);
        assert!((900..=1_000).contains(&many.len()), "{}", many.len());
        assert_eq!(pace.due(0, 1_000, start + 200 * BURST), Vec::<usize>::new());
    }
}
