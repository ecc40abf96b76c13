//! A TLS connection that can be ended from outside: the HTTP/2 layer owns the socket and would otherwise hold a dead
//! one until the kernel gives up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use netsplit_core::PublicKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::Class;
use crate::listen::Pending;

/// What the session's handler knows of the connection that it runs on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub peer: PublicKey,
    pub class: Class,
    pub address: SocketAddr,
    /// Cancelled: reads and writes fail.
    pub close: CancellationToken,
    /// The place among connections without a session; given back when the session begins.
    pub pending: Pending,
}

pub(crate) struct PeerIo {
    stream: TlsStream<TcpStream>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    connection: Option<Connection>,
}

impl PeerIo {
    /// `connection` is given on the accepting side.
    pub(crate) fn new(
        stream: TlsStream<TcpStream>,
        close: CancellationToken,
        connection: Option<Connection>,
    ) -> Self {
        Self { stream, closed: Box::pin(close.cancelled_owned()), connection }
    }

    fn check_open(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.closed.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "session closed")),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for PeerIo {
    type ConnectInfo = Option<Connection>;

    fn connect_info(&self) -> Option<Connection> {
        self.connection.clone()
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
