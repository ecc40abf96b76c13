//! On a cluster the testnet's own load and a load by hand are sent by two processes, from the same accounts: each would use
//! the other's nonces. Who sends by hand therefore marks the Testnet object, and renews the mark while it does. The operator's
//! load waits meanwhile, and so does everybody else's.

use std::{fmt, time::Duration};

use k8s_openapi::jiff::Timestamp;

/// The annotation that is the mark.
pub const MARK: &str = "netsplit.dev/load-by-hand";
/// The condition by which the operator says that its own load waits, and for whom.
pub const LOAD_MADE_WAY: &str = "LoadMadeWay";
/// A mark that was not renewed for so long is over: whoever made it has ended.
pub const LEASE: Duration = Duration::from_secs(15);

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// By the clock of who made it.
    pub renewed: Timestamp,
    /// Who sends, for people; no two are alike.
    pub by: String,
}

impl Mark {
    /// Whatever somebody may have written there is a mark; what is none of ours is as old as can be.
    pub fn read(text: &str) -> Self {
        let read = text.split_once(' ').and_then(|(time, by)| Some((time.parse().ok()?, by)));
        let (renewed, by) = read.unwrap_or((Timestamp::MIN, text));
        Self { renewed, by: by.to_owned() }
    }

    /// Two machines' clocks may differ by some seconds, and not by more than a lease.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.renewed).unsigned_abs() >= LEASE
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.renewed, self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_ends() {
        let renewed: Timestamp = "2026-01-01T00:00:05.25Z".parse().unwrap();
        let mark = Mark { renewed, by: "me@here (1f)".to_owned() };
        assert_eq!(Mark::read(&mark.to_string()), mark);
        assert!(!mark.is_over(renewed + Duration::from_secs(14)));
        assert!(mark.is_over(renewed + LEASE));
        assert!(Mark::read("somebody wrote this").is_over(renewed));
    }
}
