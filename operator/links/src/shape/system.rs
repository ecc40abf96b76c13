//! System calls of the shaping thread that have no safe wrapper.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

const SOL_NETLINK: i32 = 270;
const NETLINK_NO_ENOBUFS: i32 = 5;
/// The lowest real-time priority: above every ordinary thread, below whatever the machine itself runs so.
const PRIORITY: i32 = 1;
/// The shortest that the kernel gives.
const SLICE: Duration = Duration::from_micros(100);

/// Makes a full receive buffer lose one packet, which the kernel counts, instead of all until the buffer is empty.
#[allow(unsafe_code, reason = "an option that nix does not know")]
pub(super) fn lose_single_packets(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the kernel reads four bytes at a pointer to an i32 that lives through the call.
    let result = unsafe {
        nix::libc::setsockopt(
            socket.as_raw_fd(),
            SOL_NETLINK,
            NETLINK_NO_ENOBUFS,
            (&raw const on).cast(),
            size_of::<i32>() as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread run as soon as it is due, where that is allowed: a busy machine then delays no packet by more
/// than was asked. Rootless it is not allowed.
#[allow(unsafe_code, reason = "an ordinary system call without a safe wrapper")]
pub(super) fn run_in_time() -> io::Result<()> {
    let parameters = nix::libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the structure lives through the call.
    let result = unsafe {
        nix::libc::sched_setscheduler(
            0,
            nix::libc::SCHED_RR | nix::libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where [`run_in_time`] is not allowed: asks for a short slice, which lets a thread that wakes run before one that only
/// computes. Kernels before 6.12 take it and do nothing.
#[allow(unsafe_code, reason = "an ordinary system call without a safe wrapper")]
pub(super) fn run_soon() -> io::Result<()> {
    /// `struct sched_attr`, as of its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: 0 is the calling thread.
    let nice = unsafe { nix::libc::getpriority(nix::libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: nix::libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: SLICE.as_nanos() as u64,
        deadline: 0,
        period: 0,
    };
    // SAFETY: 0 is the calling thread; the structure lives through the call and says how long it is.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
