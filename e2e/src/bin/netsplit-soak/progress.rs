//! What a person sees while it runs.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Lines on standard error, and on a terminal a last one that is renewed.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    live: bool,
    shown: Instant,
}

/// How often the state is shown, on a terminal and in a file.
const RENEW: Duration = Duration::from_secs(1);
const REPEAT: Duration = Duration::from_secs(10);

impl Progress {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { started: now, live: std::io::stderr().is_terminal(), shown: now }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Something that stays on the screen.
    pub fn say(&self, text: &str) {
        let clear = if self.live { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{}  {text}", clock(self.elapsed()));
    }

    /// The state, if it is time to show it.
    pub fn state(&mut self, text: impl FnOnce() -> String) {
        if self.shown.elapsed() < if self.live { RENEW } else { REPEAT } {
            return;
        }
        self.shown = Instant::now();
        if self.live {
            eprint!("\r\x1b[K{}  {}", clock(self.elapsed()), text());
            // A terminal that is gone shows nothing, and the run goes on.
            std::io::stderr().flush().ok();
        } else {
            eprintln!("{}  {}", clock(self.elapsed()), text());
        }
    }
}

/// `1:02:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
