//! Probes as they come out of a socket, with the time at which the machine took them in.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

use super::timed::{LENGTH, TimedProbe};

/// A probe's socket in the network namespace of the calling thread.
pub(crate) fn open(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    Ok(socket)
}

/// The clock that the kernel stamps packets by, in nanoseconds.
pub(crate) fn clock() -> nix::Result<u64> {
    clock_gettime(ClockId::CLOCK_REALTIME).map(nanoseconds)
}

fn nanoseconds(time: TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// A probe, where it says to come from, and when the kernel saw it first in the socket's namespace. `None`: there is none.
pub(crate) fn receive(socket: &UdpSocket) -> Option<(TimedProbe, Ipv4Addr, u64)> {
    let mut buffer = [0; LENGTH + 1];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(TimeSpec);
    let flags = MsgFlags::MSG_DONTWAIT;
    let (length, from, came) = {
        let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).ok()?;
        let came = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(nanoseconds(time)),
            _ => None,
        });
        (message.bytes, message.address?.ip(), came?)
    };
    // A stranger's datagram is skipped like any other that cannot be read.
    let probe = TimedProbe::decode(&buffer[..length]);
    Some((probe.unwrap_or(TimedProbe { session: 0, link: u32::MAX, number: 0, sent: 0 }), from, came))
}
