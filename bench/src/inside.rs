//! Work done in the network of another process, and datagrams with the kernel's word on when they came.

use std::{
    fs::File,
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};

/// Runs `work` in the network namespace of a process: on a thread of its own, which goes there and ends.
pub fn inside<T: Send + 'static>(pid: u32, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = thread::spawn(move || {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))?;
        work()
    });
    thread.join().map_err(|_| anyhow!("a thread in another network panicked"))?
}

/// A socket in the network of a process that does not block, and tells when its datagrams came.
pub fn udp_at(pid: u32, address: SocketAddr) -> Result<UdpSocket> {
    inside(pid, move || {
        let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen at {address}"))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(socket)
    })
}

/// A datagram and when the kernel took it in, in nanoseconds of the Unix epoch; none while none is there.
pub fn receive<const N: usize>(socket: &UdpSocket) -> Option<([u8; N], u64)> {
    let mut buffer = [0; N];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(TimeSpec);
    let came = {
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).ok()?;
        message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(nanoseconds(time)),
            _ => None,
        })?
    };
    Some((buffer, came))
}

/// By the clock that datagrams are stamped with.
pub fn now_ns() -> Result<u64> {
    Ok(nanoseconds(clock_gettime(ClockId::CLOCK_REALTIME)?))
}

fn nanoseconds(time: TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
