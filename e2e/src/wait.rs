//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// A look costs a system call or two; 20 ms is far below anything that is measured.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds. Panics with `what` at the deadline.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, limit, || condition().then_some(()));
}

/// Waits for a value. Panics with `what` at the deadline.
pub fn until_some<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", limit.as_secs_f64());
        std::thread::sleep(POLL);
    }
}
