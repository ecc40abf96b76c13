//! What another process began, and this one goes on with.

use std::time::{Duration, Instant};

use netsplit_plan::LinkFault;

use super::{Fault, RENEWALS, Wanted};

/// A fault of an experiment that another process began.
#[derive(Clone, Debug)]
pub struct Recalled {
    pub wanted: Wanted,
    pub applied_at_ms: Option<u64>,
    /// When that other process said all this: until then it renewed the fault's lease.
    pub kept_at_ms: u64,
    pub proven: bool,
    /// It is to be healed, or was.
    pub is_over: bool,
    pub healed_at_ms: Option<u64>,
}

impl Recalled {
    /// How long nobody has renewed it, if so long that its lease may have ended: it must not begin anew in silence.
    fn unrenewed(&self, lease: Duration, now_ms: u64) -> Option<Duration> {
        let unrenewed = Duration::from_millis(now_ms.saturating_sub(self.kept_at_ms));
        // It may have been said just before a renewal was due.
        (!self.is_over && unrenewed + lease / RENEWALS >= lease).then_some(unrenewed)
    }

    /// As it is taken over: active, or over. `change` is what its `links` mean.
    pub(super) fn take_over(self, change: Option<LinkFault>, lease: Duration, now_ms: u64) -> Fault {
        let lapsed = self.unrenewed(lease, now_ms);
        let since_ms = self.applied_at_ms.unwrap_or(now_ms);
        let until = self.wanted.lasts.map(|lasts| {
            let ends_ms = since_ms + lasts.as_millis() as u64;
            (Instant::now() + Duration::from_millis(ends_ms.saturating_sub(now_ms)), ends_ms)
        });
        let is_over = self.is_over || lapsed.is_some();
        let healed_at_ms = match lapsed {
            Some(_) => now_ms.min(self.kept_at_ms + lease.as_millis() as u64),
            None => self.healed_at_ms.unwrap_or(now_ms),
        };
        let mut fault = Fault {
            since_ms,
            until,
            applied_at_ms: self.applied_at_ms,
            healed_at_ms: is_over.then_some(healed_at_ms),
            was_proven: self.proven,
            proof: "proven before another operator took over".to_owned(),
            recalled_open: is_over,
            ..Fault::new(self.wanted, change)
        };
        if let Some(unrenewed) = lapsed {
            fault.violate(format!(
                "no operator renewed it for {:.1} s (was the API server away?), and its lease is {} s: the links opened by \
                 themselves",
                unrenewed.as_secs_f64(),
                lease.as_secs()
            ));
        }
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    /// Asked for at 1,000 s, for ten minutes, and proven.
    fn left(kept_at_ms: u64) -> Recalled {
        Recalled {
            wanted: Wanted {
                owner: "e".to_owned(),
                name: "split".to_owned(),
                description: String::new(),
                shape: None,
                rects: Vec::new(),
                links: None,
                ramp: None,
                held: None,
                lasts: Some(Duration::from_mins(10)),
            },
            applied_at_ms: Some(1_000_000),
            kept_at_ms,
            proven: true,
            is_over: false,
            healed_at_ms: None,
        }
    }

    #[test]
    fn a_fault_whose_lease_holds_goes_on_until_its_own_end() {
        let before = Instant::now();
        let fault = left(1_100_000).take_over(None, LEASE, 1_123_999);
        assert_eq!((fault.state(), fault.healed_at_ms, fault.was_proven), ("applying", None, true));
        let (ends, ends_ms) = fault.until.unwrap();
        assert_eq!(ends_ms, 1_600_000, "as if nobody had gone");
        let left = Duration::from_millis(1_600_000 - 1_123_999);
        assert!(ends >= before + left && ends <= Instant::now() + left);
    }

    #[test]
    fn a_fault_whose_lease_may_have_ended_does_not_begin_anew() {
        // A renewal was due within six seconds of what was kept last.
        let fault = left(1_100_000).take_over(None, LEASE, 1_124_000);
        assert_eq!((fault.state(), fault.healed_at_ms), ("violated", Some(1_124_000)));
        let fault = left(1_100_000).take_over(None, LEASE, 1_162_000);
        assert_eq!((fault.is_open(), fault.healed_at_ms), (true, Some(1_130_000)));
        assert!(
            fault.violations[0].starts_with("no operator renewed it for 62.0 s"),
            "{:?}",
            fault.violations
        );
    }

    #[test]
    fn a_fault_that_was_over_is_not_held_against_anybody() {
        let over = Recalled { is_over: true, healed_at_ms: Some(1_099_000), ..left(1_100_000) };
        let fault = over.take_over(None, LEASE, 1_162_000);
        assert_eq!((fault.state(), fault.healed_at_ms), ("open", Some(1_099_000)));
    }
}
