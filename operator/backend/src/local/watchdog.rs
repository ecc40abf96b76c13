//! Has paused nodes go on when the process that owns them hangs.
//!
//! A process of its own, started when a node is first paused: a child of the inner process, in its user namespace, so that it
//! may signal the nodes. It is told which processes are paused before they are, and again with each renewal of their lease. It
//! can start nothing: what a fault has ended runs again when the inner process goes on. When that process dies its nodes die
//! with it, and so does this one.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Stdio,
    time::{Duration, Instant},
};

use netsplit_links::frame;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::{Pid, getppid},
};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::{LocalError, WATCHDOG_COMMAND, control_socket};

/// Whom to have go on, unless this is said again within the lease.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Watched {
    /// Process ids that are the groups' leaders, too; none: there is nothing to watch.
    pub(super) paused: Vec<u32>,
    pub(super) lease: Duration,
}

/// The inner process's end.
#[derive(Debug)]
pub(super) struct Watchdog {
    socket: OwnedFd,
    /// Killed when dropped.
    _child: Child,
}

impl Watchdog {
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = frame::pair()?;
        // One that hangs must not hang whoever tells it.
        let flags = OFlag::from_bits_retain(fcntl(&ours, FcntlArg::F_GETFL)?);
        fcntl(&ours, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0("netsplit").arg(WATCHDOG_COMMAND).stdin(Stdio::from(theirs));
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Self { socket: ours, _child: child })
    }

    /// Fails if it is gone, or has hung for so long that it hears no more.
    pub(super) fn tell(&self, watched: &Watched) -> io::Result<()> {
        frame::send(self.socket.as_fd(), &frame::encode(watched)?, &[])
    }
}

/// Runs the watchdog on standard input until its supervisor is gone.
pub fn run_watchdog() -> Result<(), LocalError> {
    let control = control_socket()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| LocalError::system("ask to end with the parent process")(errno.into()))?;
    let mut watched: Option<(Watched, Instant)> = None;
    loop {
        let left = watched.as_ref().map(|(_, ends)| ends.saturating_duration_since(Instant::now()));
        if !is_told(&control, left).map_err(LocalError::system("wait for the supervisor"))? {
            if let Some((watched, _)) = watched.take_if(|(_, ends)| *ends <= Instant::now()) {
                free(&watched.paused);
            }
            continue;
        }
        let frame = frame::receive(&control).map_err(LocalError::system("read the control socket"))?;
        let Some(frame) = frame else { return Ok(()) };
        let told: Watched = frame::decode(&frame.bytes).map_err(LocalError::Message)?;
        let ends = Instant::now() + told.lease;
        watched = (!told.paused.is_empty()).then_some((told, ends));
    }
}

/// Waits for a message, for ever or for so long.
fn is_told(control: &OwnedFd, left: Option<Duration>) -> io::Result<bool> {
    // A part of a millisecond more: not to wake before the end.
    let limit = left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut [PollFd::new(control.as_fd(), PollFlags::POLLIN)], limit) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn free(paused: &[u32]) {
    let parent = getppid();
    // A process id may have been used again, but not by a child of a process that hangs.
    for pid in paused.iter().filter(|pid| parent_of(**pid) == Some(parent)) {
        match killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT) {
            Ok(()) => eprintln!("watchdog: nobody renewed the pause of process {pid}: it goes on"),
            Err(errno) => eprintln!("watchdog: cannot have process {pid} go on: {errno}"),
        }
    }
}

fn parent_of(pid: u32) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything: state and parent.
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    Some(Pid::from_raw(parent))
}
