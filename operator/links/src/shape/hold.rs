//! How long a link holds its probes, measured where they arrive, by one clock.
//!
//! The kernel stamps a packet when it comes into the namespace, before any rule sees it; that stamp stays with it through the
//! queue. The time at which the probe then comes out of its socket is read from the same clock. The difference is what the
//! link did, on whichever machine the sender is. It does not rest on what the shaping thread meant to do: a probe that
//! was let go too early or passed no queue at all comes out early, whatever its link was told.
//!
//! The shaping thread itself empties the socket, right after it has let packets go: handing them over to another thread
//! would add that one's time to wake up.

use std::{net::Ipv4Addr, net::UdpSocket, os::fd::AsFd, os::fd::BorrowedFd, sync::mpsc::SyncSender};

use super::{arrival, timed::TimedProbe};

/// Probes taken at a time, so that a flood cannot hold the thread.
const TAKEN_AT_ONCE: usize = 256;

/// A probe that came out of its link. Times are of one clock, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldProbe {
    pub probe: TimedProbe,
    pub from: Ipv4Addr,
    /// When the kernel took it in.
    pub came: u64,
    /// When it was out of the queue.
    pub left: u64,
}

/// Where probes come out.
#[derive(Debug)]
pub struct Inlet {
    socket: UdpSocket,
    held: SyncSender<HeldProbe>,
    /// Probes that nobody had room for.
    missed: u64,
}

impl Inlet {
    /// `socket` is one of [`arrival::open`], and nobody else reads it.
    pub(crate) fn new(socket: UdpSocket, held: SyncSender<HeldProbe>) -> Self {
        Self { socket, held, missed: 0 }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// Takes what has come.
    pub(super) fn take(&mut self) {
        for _ in 0..TAKEN_AT_ONCE {
            let Some((probe, from, came)) = arrival::receive(&self.socket) else { return };
            let Ok(left) = arrival::clock() else { return };
            let held = HeldProbe { probe, from, came, left };
            self.missed += u64::from(self.held.try_send(held).is_err());
        }
    }
}
