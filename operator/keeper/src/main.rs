//! The parent of a node's process in a pod.
//!
//! The kubelet starts a container again when its first process ends, and nothing else in a pod may stop one. So the first
//! process is this one: it starts the node, may hold it down or paused for a while, and is otherwise not noticed. It takes
//! what it is told from the pod's link agent, over a socket in a folder that both containers mount.

mod args;
mod node;
mod program;
mod socket;

use std::{
    fmt,
    os::fd::AsFd,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use self::{args::Args, node::Node, program::Program, socket::Socket};

/// Why the keeper ends without its node, and the exit code that says so.
#[derive(Debug)]
struct Failure {
    code: u8,
    why: String,
}

impl Failure {
    const USAGE: u8 = 2;
    const SYSTEM: u8 = 1;
    /// As a shell tells it.
    const NOT_STARTED: u8 = 126;
    const NOT_FOUND: u8 = 127;

    fn new(code: u8, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    fn system(what: &str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::new(Self::SYSTEM, format!("cannot {what}: {errno}"))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code.into(),
        Err(failure) => {
            say(&failure.why);
            failure.code.into()
        }
    }
}

/// Into the node's own log.
fn say(what: impl fmt::Display) {
    eprintln!("netsplit-keeper: {what}");
}

/// Keeps the node until it ends by itself; gives its exit code.
fn run() -> Result<u8, Failure> {
    let Args { socket, program, arguments } = args::read(std::env::args_os().skip(1))?;
    let program = Program::find(&program, arguments)?;
    // Before the node is there: none of its signals may be missed. Signals that are blocked wait also for process 1, which
    // the kernel otherwise sends none that it does not handle.
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(Failure::system("block signals"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Failure::system("receive signals"))?;
    // What the node leaves behind is this one's to reap, also where it is not process 1.
    prctl::set_child_subreaper(true).map_err(Failure::system("adopt what the node leaves behind"))?;
    let mut socket = Socket::open(&socket)?;
    let mut node = Node::new(program, Instant::now());
    loop {
        while let Some(info) = signals.read_signal().map_err(Failure::system("receive signals"))? {
            // Whoever has ended is asked for below: signals of one kind that come together are told as one.
            if let Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)) =
                Signal::try_from(info.ssi_signo.cast_signed())
            {
                node.terminate(signal);
            }
        }
        socket.serve(|request| node.take(request, Instant::now()))?;
        if let Some(code) = node.tend(Instant::now())? {
            return Ok(code);
        }
        wait(&signals, &socket, node.wakes())?;
    }
}

/// Waits for a signal, a word or the time.
fn wait(signals: &SignalFd, socket: &Socket, until: Option<Instant>) -> Result<(), Failure> {
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    fds.extend(socket.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // A part of a millisecond more: not to wake before the end.
    let limit = until.map_or(PollTimeout::NONE, |until| {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Failure::system("wait")(errno)),
    }
}
