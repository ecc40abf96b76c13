//! The node's process: started, held, let go, reaped.

use std::{
    fs,
    time::{Duration, Instant},
};

use netsplit_keeper::{Hold, Request, State, Status};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Failure, program::Program, say};

/// The agent is there before the node and says at once what the node is to be held in. When it says nothing for so long,
/// the node starts without it.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Added to the number of the signal that ended a process: an exit code, as a shell tells it.
const BY_SIGNAL: i32 = 128;

#[derive(Debug)]
struct Held {
    hold: Hold,
    ends: Instant,
}

#[derive(Debug)]
pub(super) struct Node {
    program: Program,
    /// The process that runs.
    child: Option<Pid>,
    /// The last one, and how it ended.
    pid: Option<Pid>,
    state: State,
    restarts: u32,
    held: Option<Held>,
    /// It is to be started when nothing holds it down: for the first time, or since a hold has ended it.
    is_owed: bool,
    /// Nobody has said yet what it is to be held in; it starts by then.
    silent_until: Option<Instant>,
    /// A hold is ending the process that runs: what is wanted after that waits until it is gone.
    is_ending: bool,
    /// When it is killed, unless it ends before.
    kill_at: Option<Instant>,
    /// The keeper itself was told to end.
    asked_to_end: Option<Signal>,
}

impl Node {
    pub(super) fn new(program: Program, now: Instant) -> Self {
        Self {
            program,
            child: None,
            pid: None,
            state: State::Starting,
            restarts: 0,
            held: None,
            is_owed: true,
            silent_until: Some(now + FIRST_WORD),
            is_ending: false,
            kill_at: None,
            asked_to_end: None,
        }
    }

    /// Takes a word; the process follows in [`Self::tend`], or has followed already.
    pub(super) fn take(&mut self, request: Request, now: Instant) -> Result<Status, Failure> {
        let wanted = match request {
            Request::Status => return Ok(self.status(now)),
            Request::Free => None,
            Request::Hold { hold, lease } => Some(Held { hold, ends: now + lease }),
        };
        self.silent_until = None;
        // Who is to end ends, whatever else is wanted of it.
        if self.asked_to_end.is_none() {
            let is_news = self.hold() != wanted.as_ref().map(|held| held.hold);
            self.held = wanted;
            // Only then: a node that somebody else has stopped or let go on is to be seen as it is.
            if is_news {
                self.signal_as_held(now);
            }
            self.start_if_owed()?;
        }
        Ok(self.status(now))
    }

    fn hold(&self) -> Option<Hold> {
        self.held.as_ref().map(|held| held.hold)
    }

    /// Brings a process that runs into the state that it is held in.
    fn signal_as_held(&mut self, now: Instant) {
        if self.child.is_none() {
            return;
        }
        match self.hold() {
            Some(Hold::Killed) => {
                (self.is_owed, self.is_ending, self.kill_at) = (true, true, None);
                self.signal(Signal::SIGKILL);
            }
            _ if self.is_ending => {}
            Some(Hold::Ended) => {
                (self.is_owed, self.is_ending, self.kill_at) = (true, true, Some(now + GRACE));
                self.signal(Signal::SIGTERM);
                // A paused process gets the signal only when it goes on.
                self.signal(Signal::SIGCONT);
            }
            Some(Hold::Paused) => self.signal(Signal::SIGSTOP),
            None => self.signal(Signal::SIGCONT),
        }
    }

    fn start_if_owed(&mut self) -> Result<(), Failure> {
        let may = self.child.is_none() && self.silent_until.is_none() && self.asked_to_end.is_none();
        if !may || !self.is_owed || self.hold().is_some_and(Hold::is_down) {
            return Ok(());
        }
        let pid = self.program.start()?;
        self.is_owed = false;
        self.restarts += u32::from(self.pid.is_some());
        (self.child, self.pid, self.state) = (Some(pid), Some(pid), State::Running);
        if self.hold() == Some(Hold::Paused) {
            self.signal(Signal::SIGSTOP);
        }
        Ok(())
    }

    /// To the process and the children in its group. Its id cannot be another's: it has not been reaped.
    fn signal(&self, signal: Signal) {
        match self.child.map(|pid| killpg(pid, signal)) {
            None | Some(Ok(()) | Err(Errno::ESRCH)) => {}
            Some(Err(errno)) => say(format_args!("cannot send {signal} to the node: {errno}")),
        }
    }

    /// The keeper is to end: so is the node, held or not.
    pub(super) fn terminate(&mut self, signal: Signal) {
        (self.held, self.asked_to_end) = (None, Some(signal));
        self.signal(signal);
        self.signal(Signal::SIGCONT);
    }

    /// When [`Self::tend`] has something to do, if nothing happens before.
    pub(super) fn wakes(&self) -> Option<Instant> {
        let lets_go = self.held.as_ref().map(|held| held.ends);
        [lets_go, self.silent_until, self.kill_at].into_iter().flatten().min()
    }

    /// Reaps what has ended and does what is due; gives the exit code when there is nothing left to keep.
    pub(super) fn tend(&mut self, now: Instant) -> Result<Option<u8>, Failure> {
        if self.silent_until.is_some_and(|until| until <= now) {
            say("the pod's agent says nothing: the node starts without it");
            self.silent_until = None;
        }
        if let Some(ended) = self.held.take_if(|held| held.ends <= now) {
            say(format_args!("nobody renewed the lease of a fault ({:?}): the node runs again", ended.hold));
            self.signal_as_held(now);
        }
        if self.kill_at.take_if(|at| *at <= now).is_some() {
            self.signal(Signal::SIGKILL);
        }
        let has_ended = self.reap();
        let is_wanted = self.asked_to_end.is_none() && (self.is_owed || !has_ended);
        if self.child.is_none() && !is_wanted {
            return Ok(Some(self.exit_code()));
        }
        self.start_if_owed()?;
        Ok(None)
    }

    /// Asks for every child that has ended: the node, or what it left behind. Whether the node was among them.
    fn reap(&mut self) -> bool {
        let mut is_node = false;
        loop {
            let (pid, state) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, State::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, State::Killed(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return is_node,
                Ok(_) | Err(_) => continue,
            };
            if self.child.take_if(|child| *child == pid).is_some() {
                is_node = true;
                (self.state, self.is_ending, self.kill_at) = (state, false, None);
            }
        }
    }

    fn exit_code(&self) -> u8 {
        let code = match self.state {
            State::Exited(code) => code,
            State::Killed(signal) => BY_SIGNAL + signal,
            State::Starting | State::Running => {
                BY_SIGNAL + self.asked_to_end.map_or(0, |signal| signal as i32)
            }
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    fn status(&self, now: Instant) -> Status {
        let left = self.held.as_ref().map(|held| held.ends.saturating_duration_since(now));
        Status {
            state: self.state,
            pid: self.pid.map(|pid| pid.as_raw().cast_unsigned()),
            paused: self.child.is_some_and(is_stopped),
            held: self.hold(),
            left: left.unwrap_or_default(),
            restarts: self.restarts,
        }
    }
}

/// Whether the kernel has stopped a process.
fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, a `)` too.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
