//! Netlink framing and one socket to nf_tables. Knows messages and attributes, not what they mean.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

/// Message types and flags of `linux/netlink.h` and `linux/netfilter/nfnetlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const SUBSYSTEM_NFTABLES: u16 = 10;
const NFPROTO_INET: u8 = 1;

const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
/// Wanted socket buffers; a rootless process gets what `net.core.{w,r}mem_max` allows.
const BUFFER: usize = 4 << 20;
/// The kernel answers at once; a longer silence is a fault to report and not to wait for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket to nf_tables")]
    Open(#[source] io::Error),
    #[error(
        "the transaction has {bytes} bytes and does not fit the netlink socket's send buffer (net.core.wmem_max)"
    )]
    TooLarge { bytes: usize },
    #[error("cannot {what} the netlink socket")]
    Socket {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the kernel refused the nf_tables request")]
    Refused(#[source] io::Error),
    #[error("the kernel's answer is malformed: {0}")]
    Malformed(&'static str),
}

impl NetlinkError {
    /// The kernel's error number, when it is the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(source) => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Appends attributes to a message.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("attributes are built from bounded pieces");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
        self
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Attributes of a received message.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// One transaction: everything in it happens, or nothing.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    /// Where the last message's flags are: it alone asks for an acknowledgement.
    last_flags: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), messages: 0, last_flags: 0 };
        batch.frame(BATCH_BEGIN, 0, 0, SUBSYSTEM_NFTABLES, &[]);
        batch
    }

    pub(crate) fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.last_flags = self.bytes.len() + 6;
        self.frame(nftables(kind), flags, NFPROTO_INET, 0, &attributes.0);
    }

    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        let length = (HEADER + GENERIC_HEADER + attributes.len()) as u32;
        self.messages += 1;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last_flags == 0
    }
}

fn nftables(kind: u16) -> u16 {
    SUBSYSTEM_NFTABLES << 8 | kind
}

/// A netlink socket to nf_tables of the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let open = || -> nix::Result<OwnedFd> {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            // The forced options need a privilege over the host; without it the plain ones give what is allowed.
            if setsockopt(&fd, sockopt::SndBufForce, &BUFFER).is_err() {
                setsockopt(&fd, sockopt::SndBuf, &BUFFER)?;
            }
            if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
                setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
            }
            setsockopt(
                &fd,
                sockopt::ReceiveTimeout,
                &TimeVal::new(i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX), 0),
            )?;
            Ok(fd)
        };
        let fd = open().map_err(|errno| NetlinkError::Open(errno.into()))?;
        Ok(Self { fd, buffer: vec![0; 256 * 1024] })
    }

    /// Sends the transaction and waits until the kernel has done or refused all of it.
    pub(crate) fn commit(&mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.messages;
        let flags = batch.last_flags;
        batch.bytes[flags] |= NLM_F_ACK as u8;
        batch.frame(BATCH_END, 0, 0, SUBSYSTEM_NFTABLES, &[]);
        self.drain()?;
        self.transmit(&batch.bytes)?;
        // The kernel answers refused messages in their order and the last one in any case. A failure of the transaction as a
        // whole is reported under the first number.
        loop {
            let mut done = false;
            let mut refused = None;
            self.receive(|kind, sequence, payload| {
                if kind == NLMSG_ERROR {
                    let code = error_code(payload)?;
                    if code != 0 && refused.is_none() {
                        refused = Some(code);
                    }
                    done |= sequence >= last || code != 0;
                }
                Ok(())
            })?;
            if let Some(code) = refused {
                return Err(NetlinkError::Refused(io::Error::from_raw_os_error(-code)));
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Lists objects: `each` gets the attributes of every answer.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        fill: impl FnOnce(&mut Attributes),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let mut request = Batch { bytes: Vec::new(), messages: 0, last_flags: 0 };
        request.frame(nftables(kind), NLM_F_DUMP, NFPROTO_INET, 0, &attributes.0);
        self.drain()?;
        self.transmit(&request.bytes)?;
        loop {
            let mut done = false;
            self.receive(|kind, _, payload| {
                match kind {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => {
                        return Err(NetlinkError::Refused(io::Error::from_raw_os_error(-error_code(
                            payload,
                        )?)));
                    }
                    _ => each(payload.get(GENERIC_HEADER..).unwrap_or_default()),
                }
                Ok(())
            })?;
            if done {
                return Ok(());
            }
        }
    }

    fn transmit(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::EMSGSIZE | Errno::ENOBUFS) => Err(NetlinkError::TooLarge { bytes: bytes.len() }),
            Err(errno) => Err(NetlinkError::Socket { what: "write to", source: errno.into() }),
        }
    }

    /// Reads one datagram and hands out its messages: kind, sequence number, payload.
    fn receive(
        &mut self,
        mut each: impl FnMut(u16, u32, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::Socket { what: "read from", source: errno.into() }),
            }
        };
        let mut rest = &self.buffer[..length];
        while rest.len() >= HEADER {
            let field = |at: usize| [rest[at], rest[at + 1], rest[at + 2], rest[at + 3]];
            let size = u32::from_ne_bytes(field(0)) as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let sequence = u32::from_ne_bytes(field(8));
            let payload = rest.get(HEADER..size).ok_or(NetlinkError::Malformed("a message ends early"))?;
            each(kind, sequence, payload)?;
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Drops answers to an earlier request that was given up, so that they are not taken for this one's.
    fn drain(&mut self) -> Result<(), NetlinkError> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(NetlinkError::Socket { what: "empty", source: errno.into() }),
            }
        }
    }
}

fn error_code(payload: &[u8]) -> Result<i32, NetlinkError> {
    let code = payload.get(..4).and_then(|bytes| bytes.try_into().ok());
    code.map(i32::from_ne_bytes).ok_or(NetlinkError::Malformed("an error without a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_read_back() {
        let mut built = Attributes::default();
        built.text(1, "ab").nest(2, |inner| {
            inner.u32(3, 7);
        });
        assert_eq!(built.0.len() % 4, 0);
        assert_eq!(attribute(&built.0, 1), Some(&b"ab\0"[..]));
        let nested = attribute(&built.0, 2).unwrap();
        assert_eq!(attribute(nested, 3), Some(&7u32.to_be_bytes()[..]));
        assert_eq!(attribute(&built.0, 4), None);
    }

    #[test]
    fn a_truncated_attribute_ends_the_list() {
        let mut built = Attributes::default();
        built.u32(1, 7);
        assert_eq!(attributes(&built.0[..6]).count(), 0);
    }
}
