//! What is said to a node's keeper and what it answers: a line each, over a Unix socket.
//!
//! ```text
//! hold kill 30000    ->  state=killed:9 pid=7 paused=no held=kill left=30000 restarts=0
//! free               ->  state=running pid=9 paused=no held=none left=0 restarts=1
//! status             ->  the same, and changes nothing
//! anything else      ->  error WHY
//! ```
//!
//! A hold that is said again is renewed. One that is not ends by itself: the keeper is its own watchdog.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

/// Longest line of either side.
pub const MAX_LINE: usize = 256;
/// Longest lease: what is to last longer has to be renewed.
pub const MAX_LEASE: Duration = Duration::from_hours(1);

/// The state that a node's process is held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is there and does nothing.
    Paused,
    /// It is gone, after SIGTERM, or SIGKILL at the deadline.
    Ended,
    /// It is gone, after SIGKILL.
    Killed,
}

impl Hold {
    const ALL: [Self; 3] = [Self::Paused, Self::Ended, Self::Killed];

    /// There is no process.
    pub fn is_down(self) -> bool {
        self != Self::Paused
    }

    fn word(self) -> &'static str {
        match self {
            Self::Paused => "pause",
            Self::Ended => "restart",
            Self::Killed => "kill",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hold| hold.word() == word)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Hold {
        hold: Hold,
        /// From now on.
        lease: Duration,
    },
    Free,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The program has not been started yet.
    Starting,
    Running,
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The last process, also after it has ended; as the container numbers it.
    pub pid: Option<u32>,
    /// The process is stopped, by the kernel's word, whoever did it.
    pub paused: bool,
    pub held: Option<Hold>,
    /// Until it is let go.
    pub left: Duration,
    /// How often a fault has ended the program and it was started again.
    pub restarts: u32,
}

/// A line that neither side of this version says.
#[derive(Debug, PartialEq, Eq)]
pub struct WordError(String);

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WordError {}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold { hold, lease } => write!(f, "hold {} {}", hold.word(), lease.as_millis()),
            Self::Free => f.write_str("free"),
            Self::Status => f.write_str("status"),
        }
    }
}

impl FromStr for Request {
    type Err = WordError;

    fn from_str(line: &str) -> Result<Self, WordError> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["free"] => Ok(Self::Free),
            ["status"] => Ok(Self::Status),
            ["hold", hold, lease] => {
                let hold = Hold::of(hold)
                    .ok_or_else(|| WordError(format!("{hold:?} is no hold: kill, pause or restart")))?;
                let millis = lease.parse().ok().map(Duration::from_millis);
                let lease = millis.filter(|lease| !lease.is_zero() && *lease <= MAX_LEASE);
                let most = MAX_LEASE.as_millis();
                let lease = lease.ok_or_else(|| WordError(format!("a lease is 1 to {most} milliseconds")))?;
                Ok(Self::Hold { hold, lease })
            }
            _ => Err(WordError("say `hold kill|pause|restart LEASE_MS`, `free` or `status`".to_owned())),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Exited(code) => write!(f, "exited:{code}"),
            Self::Killed(signal) => write!(f, "killed:{signal}"),
        }
    }
}

impl State {
    fn of(word: &str) -> Option<Self> {
        match word.split_once(':') {
            None if word == "starting" => Some(Self::Starting),
            None if word == "running" => Some(Self::Running),
            Some(("exited", code)) => code.parse().ok().map(Self::Exited),
            Some(("killed", signal)) => signal.parse().ok().map(Self::Killed),
            _ => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, pid, paused, held, left, restarts } = self;
        let pid = pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
        let paused = if *paused { "yes" } else { "no" };
        let held = held.map_or("none", Hold::word);
        let left = left.as_millis();
        write!(f, "state={state} pid={pid} paused={paused} held={held} left={left} restarts={restarts}")
    }
}

impl FromStr for Status {
    type Err = WordError;

    fn from_str(line: &str) -> Result<Self, WordError> {
        let fields: BTreeMap<&str, &str> =
            line.split(' ').filter_map(|field| field.split_once('=')).collect();
        let read = |name: &str| fields.get(name).copied();
        let option = |word: &str| if word == "none" { Some(None) } else { Some(Some(word.parse().ok()?)) };
        let status = || {
            Some(Self {
                state: State::of(read("state")?)?,
                pid: option(read("pid")?)?,
                paused: match read("paused")? {
                    "yes" => true,
                    "no" => false,
                    _ => return None,
                },
                held: match read("held")? {
                    "none" => None,
                    word => Some(Hold::of(word)?),
                },
                left: Duration::from_millis(read("left")?.parse().ok()?),
                restarts: read("restarts")?.parse().ok()?,
            })
        };
        status().ok_or_else(|| WordError(format!("a keeper does not say {line:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_way() {
        let lease = Duration::from_secs(30);
        let holds = Hold::ALL.map(|hold| Request::Hold { hold, lease });
        for request in holds.into_iter().chain([Request::Free, Request::Status]) {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        let states = [State::Starting, State::Running, State::Exited(3), State::Killed(9)];
        let held = [None, Some(Hold::Paused), Some(Hold::Ended), Some(Hold::Killed)];
        for (place, (state, held)) in states.into_iter().zip(held).enumerate() {
            let paused = place == 1;
            let pid = (place > 0).then_some(7);
            let status = Status { state, pid, paused, held, left: lease, restarts: 2 };
            assert_eq!(status.to_string().parse(), Ok(status));
        }
    }

    #[test]
    fn what_is_no_word_is_told() {
        let said = |line: &str| line.parse::<Request>().unwrap_err().to_string();
        for line in ["", "hold", "hold kill", "free now", " status", "GET / HTTP/1.1"] {
            assert!(said(line).starts_with("say `hold kill|pause|restart LEASE_MS`"), "{line:?}");
        }
        assert_eq!(said("hold maim 5"), "\"maim\" is no hold: kill, pause or restart");
        for lease in ["0", "-1", "3600001", "1e3", "99999999999999999999"] {
            assert_eq!(said(&format!("hold kill {lease}")), "a lease is 1 to 3600000 milliseconds");
        }
        for line in ["", "state=running", "error it is ending"] {
            line.parse::<Status>().unwrap_err();
        }
    }
}
