//! Starting a program inside a node's namespace: the one place that runs code between fork and exec.

use std::{io, os::fd::OwnedFd, process::Command};

use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getpid, getppid, setpgid, setsid},
};

/// How the program is set apart from its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// A process group of its own, so that one signal reaches the program and its children.
    Own,
    /// A session of its own, which its standard input controls as a terminal.
    Terminal,
}

/// Makes the command start in the namespace and end with this process.
///
/// The parent-death signal follows the parent's *thread*: the command must be spawned on one that lives as long as the
/// process. In the inner process, which runs its whole runtime on the main thread, every thread of tasks is that one.
#[allow(unsafe_code, reason = "std offers no other way to switch namespaces in the child")]
pub(super) fn confine(command: &mut Command, namespace: OwnedFd, group: Group) {
    use std::os::unix::process::CommandExt;
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was asked for.
        if getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match group {
            Group::Own => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
            Group::Terminal => {
                setsid()?;
                take_terminal()?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child and only makes system calls: no allocation, no lock. It owns the
    // descriptor it uses.
    unsafe {
        command.pre_exec(prepare);
    }
}

#[allow(unsafe_code, reason = "an ioctl without a safe wrapper")]
fn take_terminal() -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number and touches no memory of ours.
    let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
