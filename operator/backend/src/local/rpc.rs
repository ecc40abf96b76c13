//! Frames of [`netsplit_links::frame`] for async tasks.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netsplit_links::frame::{Assembly, Frame, Packets, Received};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Mutex,
};

/// One end of a message socket; any task may send, one receives.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
    /// Held for a whole message, so that the packets of two are not mixed.
    sending: Mutex<()>,
}

impl Channel {
    /// Needs a running runtime.
    #[expect(
        deprecated,
        reason = "its replacement is unsafe for the sake of types that lie about their descriptor; `OwnedFd` does not"
    )]
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self { socket: AsyncFd::with_interest(socket, interest)?, sending: Mutex::new(()) })
    }

    /// Sends a message. Dropped half-way it leaves the message torn: callers that may be cancelled send from a task.
    pub(crate) async fn send(&self, message: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        let mut packets = Packets::new(message)?;
        let _sending = self.sending.lock().await;
        loop {
            let last = self
                .socket
                .async_io(Interest::WRITABLE, |socket| {
                    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                    packets.send_next(socket.as_fd(), &fds)
                })
                .await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Receives a message; `None` when the other end is closed. Cancelling loses nothing: the pieces stay in `assembly`.
    pub(crate) async fn receive(&self, assembly: &mut Assembly) -> io::Result<Option<Frame>> {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, |socket| assembly.receive_next(socket.as_fd()))
                .await;
            match received {
                Ok(Received::Whole(frame)) => return Ok(Some(frame)),
                Ok(Received::Partial) => {}
                Ok(Received::End) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}
