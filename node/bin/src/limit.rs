//! Listeners that hold a bounded number of connections, for the API and for HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use tracing::warn;

/// When a connection is closed whatever it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Unless the first bytes come in this time.
    FirstBytes(Duration),
    /// After this time.
    Whole(Duration),
}

/// Accepts while fewer than the most connections are open; others wait in the kernel's queue.
pub(crate) struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Patience,
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(256)
}

impl Limited {
    pub(crate) fn new(listener: TcpListener, most: usize, patience: Patience) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), patience }
    }

    pub(crate) async fn next(&self) -> (LimitedIo, SocketAddr) {
        loop {
            let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        warn!(%error, "cannot set TCP_NODELAY");
                    }
                    let (Patience::FirstBytes(time) | Patience::Whole(time)) = self.patience;
                    let io = LimitedIo {
                        stream,
                        patience: Some(Box::pin(tokio::time::sleep(time))),
                        until_first: matches!(self.patience, Patience::FirstBytes(_)),
                        _place: place,
                    };
                    return (io, address);
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for Limited {
    type Io = LimitedIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedIo, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

pub(crate) struct LimitedIo {
    stream: TcpStream,
    patience: Option<Pin<Box<Sleep>>>,
    until_first: bool,
    _place: OwnedSemaphorePermit,
}

impl Connected for LimitedIo {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl LimitedIo {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(sleep) = &mut self.patience else { return Ok(()) };
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for LimitedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.until_first && buffer.filled().len() > before {
            self.patience = None;
        }
        polled
    }
}

impl AsyncWrite for LimitedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
