//! Strangers must not be able to fill the log: what happens before a peer is known is logged at a bounded rate.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets through `per_second` lines a second and counts the rest.
#[derive(Debug)]
pub(crate) struct LogBudget {
    per_second: u32,
    state: Mutex<(Option<Instant>, u32, u64)>,
}

impl LogBudget {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, state: Mutex::new((None, 0, 0)) }
    }

    /// `Some(left out before)` when a line may be written now.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("no panic while the budget is held");
        let (window, used, left_out) = &mut *state;
        if window.is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1)) {
            (*window, *used) = (Some(now), 0);
        }
        if *used < self.per_second {
            *used += 1;
            Some(std::mem::take(left_out))
        } else {
            *left_out += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_rest_counted() {
        let budget = LogBudget::new(2);
        let start = Instant::now();
        let written: Vec<_> = (0..5).filter_map(|_| budget.take(start)).collect();
        assert_eq!(written, [0, 0]);
        assert_eq!(budget.take(start + Duration::from_secs(1)), Some(3));
    }
}
