//! Messages over a Unix `SEQPACKET` socket: values of the same program at both ends, with file descriptors beside them.
//!
//! A packet is one byte, [`MORE`] or [`LAST`], and a piece of the message; packets keep their borders, so nothing has to be
//! counted, and a message may be larger than a socket buffer. Descriptors ride on the last packet. Both ends are our own
//! processes, still every size is bounded.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

use serde::{Serialize, de::DeserializeOwned};

const MORE: u8 = 1;
const LAST: u8 = 0;
/// Bytes of a message in one packet: well below the smallest socket buffer.
const PIECE: usize = 48 * 1024;
/// Largest message.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Most descriptors in one message; the kernel's own limit is 253.
pub const MAX_FDS: usize = 128;

/// A connected pair for messages, both ends closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A message's bytes. They do not describe themselves: both ends are one program.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(message).map_err(io::Error::other)
}

/// What [`encode`] made bytes of.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// One message as it is received.
#[derive(Debug, Default)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// A message cut into packets, to be sent one by one.
#[derive(Debug)]
pub struct Packets {
    packets: Vec<Vec<u8>>,
    next: usize,
}

impl Packets {
    pub fn new(message: &[u8]) -> io::Result<Self> {
        if message.len() > MAX_MESSAGE {
            return Err(io::Error::other(format!(
                "a message of {} bytes is larger than {MAX_MESSAGE}",
                message.len()
            )));
        }
        // An empty message is one empty piece: a packet without bytes would look like the end of the stream.
        let pieces = message.len().div_ceil(PIECE).max(1);
        let packets = (0..pieces)
            .map(|index| {
                let piece = &message[index * PIECE..message.len().min((index + 1) * PIECE)];
                let mut packet = Vec::with_capacity(piece.len() + 1);
                packet.push(if index + 1 == pieces { LAST } else { MORE });
                packet.extend_from_slice(piece);
                packet
            })
            .collect();
        Ok(Self { packets, next: 0 })
    }

    /// Sends the next packet; `true` when it was the last one. After `WouldBlock` the same packet is next.
    pub fn send_next(&mut self, socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        if fds.len() > MAX_FDS {
            return Err(io::Error::other(format!(
                "{} descriptors in one message, most are {MAX_FDS}",
                fds.len()
            )));
        }
        let last = self.next + 1 == self.packets.len();
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if last && !raw.is_empty() { &rights[..] } else { &[] };
        let slice = [IoSlice::new(&self.packets[self.next])];
        sendmsg::<()>(socket.as_raw_fd(), &slice, control, MsgFlags::MSG_NOSIGNAL, None)?;
        self.next += 1;
        Ok(last)
    }
}

/// A message being put together again.
#[derive(Debug, Default)]
pub struct Assembly {
    frame: Frame,
    buffer: Vec<u8>,
}

/// What the next packet brought.
#[derive(Debug)]
pub enum Received {
    Partial,
    Whole(Frame),
    /// The other end is closed.
    End,
}

impl Assembly {
    pub fn receive_next(&mut self, socket: BorrowedFd<'_>) -> io::Result<Received> {
        self.buffer.resize(PIECE + 1, 0);
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let (length, truncated) = {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let message =
                recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    self.frame.fds.extend(fds.into_iter().map(own));
                }
            }
            (message.bytes, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC))
        };
        if length == 0 {
            return Ok(Received::End);
        }
        if truncated {
            return Err(io::Error::other("a packet was larger than agreed"));
        }
        if self.frame.bytes.len() + length > MAX_MESSAGE + 1 {
            return Err(io::Error::other(format!("a message is larger than {MAX_MESSAGE} bytes")));
        }
        self.frame.bytes.extend_from_slice(&self.buffer[1..length]);
        match self.buffer[0] {
            LAST => Ok(Received::Whole(std::mem::take(&mut self.frame))),
            MORE => Ok(Received::Partial),
            other => Err(io::Error::other(format!("a packet starts with {other}, not with 0 or 1"))),
        }
    }
}

/// Takes ownership of a descriptor that `recvmsg` has just put into this process.
#[allow(
    unsafe_code,
    reason = "the kernel hands out received descriptors as numbers; nobody else knows this one yet"
)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: a received descriptor is open and owned by nobody else in this process.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sends a whole message on a blocking socket.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut packets = Packets::new(message)?;
    while !packets.send_next(socket, fds)? {}
    Ok(())
}

/// Receives a whole message from a blocking socket; `None` when the other end is closed.
pub fn receive(socket: &impl AsFd) -> io::Result<Option<Frame>> {
    let mut assembly = Assembly::default();
    loop {
        match assembly.receive_next(socket.as_fd()) {
            Ok(Received::Whole(frame)) => return Ok(Some(frame)),
            Ok(Received::End) => return Ok(None),
            Ok(Received::Partial) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_larger_than_a_packet_and_its_descriptor_arrive() {
        let (a, b) = pair().unwrap();
        let message: Vec<u8> = (0..3 * PIECE + 17).map(|i| i as u8).collect();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let sent = message.clone();
        let sender = std::thread::spawn(move || send(a.as_fd(), &sent, &[theirs.as_fd()]).unwrap());
        let frame = receive(&b).unwrap().unwrap();
        sender.join().unwrap();
        assert_eq!(frame.bytes, message);
        assert_eq!(frame.fds.len(), 1);
        let mut passed = std::os::unix::net::UnixStream::from(frame.fds.into_iter().next().unwrap());
        passed.write_all(b"hello").unwrap();
        drop(passed);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn borders_survive_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"", &[]).unwrap();
        send(a.as_fd(), b"two", &[]).unwrap();
        drop(a);
        assert_eq!(receive(&b).unwrap().unwrap().bytes, b"");
        assert_eq!(receive(&b).unwrap().unwrap().bytes, b"two");
        assert!(receive(&b).unwrap().is_none());
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_sent() {
        assert!(Packets::new(&vec![0; MAX_MESSAGE + 1]).is_err());
    }
}
