//! NFQUEUE by raw netlink: packets come up in batches, verdicts go down in batches.

use std::{
    fs,
    io::{self, IoSliceMut},
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, MultiHeaders, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
            recvmmsg, send, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use super::system;
use crate::netlink::{Attributes, attributes};

/// `linux/netfilter/nfnetlink_queue.h`
const PACKET: u16 = 0x300;
const VERDICT: u16 = 0x301;
const CONFIG: u16 = 0x302;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const PAYLOAD: u16 = 10;
const FULL_LENGTH: u16 = 13;
const COMMAND: u16 = 1;
const PARAMETERS: u16 = 2;
const MAX_LENGTH: u16 = 3;
const FLAGS_MASK: u16 = 4;
const FLAGS: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const FAIL_OPEN: u32 = 1;
const GSO: u32 = 4;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Where a message's attributes begin: a netlink header and a netfilter one.
const HEADER: usize = 20;
/// What is copied of a packet whose content does not matter: its headers, and those of a probe.
const HEADERS_ONLY: u32 = 128;
const WHOLE: u32 = 0xffff;
/// Packets a queue holds, of any number of links. The kernel allows no more.
const QUEUE_LENGTH: u32 = 65_536;
/// Packets read at a time.
const BATCH: usize = 64;
/// Room for one: the largest packet of a link that is not split, and its description.
const MESSAGE: usize = 16 * 1024;
/// Wanted receive buffer; rootless it is what `net.core.rmem_max` allows.
const BUFFER: usize = 64 << 20;
/// Verdicts are sent when so many bytes of them wait.
const VERDICTS: usize = 32 * 1024;
const ANSWER_SECONDS: i64 = 5;

/// Why there is no packet queue.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}; the kernel needs CONFIG_NETFILTER_NETLINK_QUEUE")]
pub struct QueueError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Names a packet that waits for its verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    queue: u16,
    id: u32,
}

#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) ticket: Ticket,
    /// Of the whole packet, or burst of segments.
    pub(super) length: usize,
    /// Its beginning; all of it on an exact queue.
    pub(super) payload: &'a [u8],
}

/// Packets that were lost on the way up, by no wish of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// A queue was full.
    pub(super) queue: u64,
    /// The socket's receive buffer was full.
    pub(super) buffer: u64,
}

pub(super) struct Queues {
    fd: OwnedFd,
    numbers: Range<u16>,
    buffer: Vec<u8>,
    headers: MultiHeaders<()>,
    lengths: Vec<usize>,
    verdicts: Vec<u8>,
    /// Verdicts that the kernel did not take.
    refused: u64,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

impl Queues {
    /// Binds the queues of this network namespace: bursts stay whole in `gso`, are split in `exact`, which follow.
    pub(super) fn open(gso: Range<u16>, exact: Range<u16>) -> Result<Self, QueueError> {
        let fd = open_socket()
            .map_err(|errno| QueueError { what: "open a packet queue", source: errno.into() })?;
        system::lose_single_packets(fd.as_fd())
            .map_err(|source| QueueError { what: "set up a packet queue", source })?;
        let mut queues = Self {
            fd,
            numbers: gso.start..exact.end,
            buffer: vec![0; BATCH * MESSAGE],
            headers: MultiHeaders::preallocate(BATCH, None),
            lengths: Vec::with_capacity(BATCH),
            verdicts: Vec::with_capacity(VERDICTS + MESSAGE),
            refused: 0,
        };
        for (numbers, copy, flags) in [(gso, HEADERS_ONLY, GSO), (exact, WHOLE, 0)] {
            for number in numbers {
                queues
                    .configure(number, copy, flags)
                    .map_err(|source| QueueError { what: "bind a packet queue", source })?;
            }
        }
        Ok(queues)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    fn configure(&mut self, number: u16, copy: u32, flags: u32) -> io::Result<()> {
        self.request(number, |a| {
            a.bytes(COMMAND, &[BIND, 0, 0, 0]);
        })?;
        let mut parameters = copy.to_be_bytes().to_vec();
        parameters.push(COPY_PACKET);
        self.request(number, |a| {
            a.bytes(PARAMETERS, &parameters).u32(MAX_LENGTH, QUEUE_LENGTH);
            // Never fail open: a packet that skips its delay overtakes others unseen. One that is lost is counted.
            a.u32(FLAGS_MASK, FAIL_OPEN | GSO).u32(FLAGS, flags);
        })
    }

    fn request(&mut self, number: u16, fill: impl FnOnce(&mut Attributes)) -> io::Result<()> {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let mut message = Vec::with_capacity(HEADER + attributes.as_bytes().len());
        header(&mut message, CONFIG, NLM_F_ACK, number, attributes.as_bytes().len());
        message.extend(attributes.as_bytes());
        send(self.fd.as_raw_fd(), &message, MsgFlags::empty())?;
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            if let Some(code) = error_of(&self.buffer[..length]) {
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
        }
    }

    /// Reads what has come, one batch at most; `each` may be told of a packet only once. `true`: there may be more.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        self.lengths.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.buffer.chunks_mut(MESSAGE).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(self.fd.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(received) => self.lengths.extend(received.map(|message| message.bytes)),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.lengths.len() == BATCH)
    }

    /// How many messages the last [`Self::receive`] brought.
    pub(super) fn received(&self) -> usize {
        self.lengths.len()
    }

    /// One of them; `None` when it is no packet.
    pub(super) fn packet(&mut self, index: usize) -> Option<Packet<'_>> {
        let message = &self.buffer[index * MESSAGE..][..self.lengths[index].min(MESSAGE)];
        if error_of(message).is_some_and(|code| code != 0) {
            self.refused += 1;
        }
        parse(message)
    }

    /// Lets a packet go on, with another content if given.
    pub(super) fn accept(&mut self, ticket: Ticket, content: Option<&[u8]>) {
        self.verdict(ticket, ACCEPT, content);
    }

    pub(super) fn drop(&mut self, ticket: Ticket) {
        self.verdict(ticket, DROP, None);
    }

    fn verdict(&mut self, ticket: Ticket, verdict: u32, content: Option<&[u8]>) {
        let mut attributes = Attributes::default();
        let mut code = [0; 8];
        code[..4].copy_from_slice(&verdict.to_be_bytes());
        code[4..].copy_from_slice(&ticket.id.to_be_bytes());
        attributes.bytes(VERDICT_HEADER, &code);
        if let Some(content) = content {
            attributes.bytes(PAYLOAD, content);
        }
        header(&mut self.verdicts, VERDICT, 0, ticket.queue, attributes.as_bytes().len());
        self.verdicts.extend(attributes.as_bytes());
        if self.verdicts.len() >= VERDICTS {
            self.flush();
        }
    }

    /// Sends the verdicts that wait.
    pub(super) fn flush(&mut self) {
        if self.verdicts.is_empty() {
            return;
        }
        // The kernel works them off within the call. One that it refuses comes back as an error message.
        while let Err(errno) = send(self.fd.as_raw_fd(), &self.verdicts, MsgFlags::empty()) {
            if errno != Errno::EINTR {
                self.refused += 1;
                break;
            }
        }
        self.verdicts.clear();
    }

    /// What was lost before it came up, since the queues were bound.
    pub(super) fn losses(&self) -> io::Result<Losses> {
        // Of the thread: /proc/net shows the namespace of the process, which may have been started elsewhere.
        let text = fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue")?;
        Ok(losses(&text, &self.numbers))
    }
}

fn open_socket() -> nix::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
    }
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
    Ok(fd)
}

fn header(out: &mut Vec<u8>, kind: u16, flags: u16, queue: u16, attributes: usize) {
    out.extend(((HEADER + attributes) as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    // Sequence and port: answers to verdicts are only counted.
    out.extend([0; 8]);
    out.extend([0, 0]);
    out.extend(queue.to_be_bytes());
}

fn kind_of(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

fn error_of(message: &[u8]) -> Option<i32> {
    if kind_of(message)? != NLMSG_ERROR {
        return None;
    }
    Some(i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?))
}

fn parse(message: &[u8]) -> Option<Packet<'_>> {
    if kind_of(message)? != PACKET {
        return None;
    }
    let queue = u16::from_be_bytes(message.get(18..20)?.try_into().ok()?);
    let body = message.get(HEADER..)?;
    let mut id = None;
    let mut payload: &[u8] = &[];
    let mut length = None;
    // The last attribute of a message that was larger than our buffer is cut off and not listed.
    for (kind, value) in attributes(body) {
        match kind {
            PACKET_HEADER => id = value.get(..4)?.try_into().ok().map(u32::from_be_bytes),
            PAYLOAD => payload = value,
            FULL_LENGTH => length = value.try_into().ok().map(u32::from_be_bytes),
            _ => {}
        }
    }
    let length = length.map_or(payload.len(), |length| length as usize);
    Some(Packet { ticket: Ticket { queue, id: id? }, length, payload })
}

/// Columns: queue, reader, waiting, copy mode, copy range, dropped by the queue, dropped by the socket, ...
fn losses(text: &str, numbers: &Range<u16>) -> Losses {
    let mut total = Losses::default();
    for line in text.lines() {
        let columns: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        if let [queue, _, _, _, _, by_queue, by_socket, ..] = columns[..]
            && u16::try_from(queue).is_ok_and(|queue| numbers.contains(&queue))
        {
            total.queue += by_queue;
            total.buffer += by_socket;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_those_of_our_queues() {
        let text = "  100   1234    0 2   128     3     4        9  1\n  101   1234    0 2   128     5     6        9  1\n   \
                    7    999    0 2   128    50    60        9  1\n";
        assert_eq!(losses(text, &(100..102)), Losses { queue: 8, buffer: 10 });
        assert_eq!(losses("", &(100..102)), Losses::default());
    }

    #[test]
    fn a_packet_is_read_with_its_full_length() {
        let mut attributes = Attributes::default();
        attributes
            .bytes(PACKET_HEADER, &[0, 0, 0, 9, 8, 0, 0])
            .bytes(PAYLOAD, b"head")
            .u32(FULL_LENGTH, 1_500);
        let mut message = Vec::new();
        header(&mut message, PACKET, 0, 103, attributes.as_bytes().len());
        message.extend(attributes.as_bytes());
        let packet = parse(&message).unwrap();
        assert_eq!((packet.ticket.queue, packet.ticket.id), (103, 9));
        assert_eq!((packet.length, packet.payload), (1_500, &b"head"[..]));
        for cut in 0..message.len() - 8 {
            assert!(parse(&message[..cut]).is_none_or(|packet| packet.length <= 1_500));
        }
    }
}
