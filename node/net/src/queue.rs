//! Frames on their way to a peer: a queue bounded in frames and bytes, and the stream that empties it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use netsplit_proto::peer as wire;
use netsplit_proto::peer::frame::Kind;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};

use crate::MAX_FRAME_BYTES;

/// Why bytes were not queued. They are lost; nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no session with this peer")]
    NotConnected,
    #[error("the send queue of this peer is full")]
    QueueFull,
    #[error("a frame of {0} bytes is longer than {MAX_FRAME_BYTES}")]
    TooLarge(usize),
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct SendQueue {
    frames: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    max_bytes: usize,
    /// The receiving end. A connection of the class holds the lock while it lives, the next one takes over.
    drain: Arc<Mutex<Drain>>,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Drain {
    frames: mpsc::Receiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

impl SendQueue {
    pub(crate) fn new(max_frames: usize, max_bytes: usize) -> Self {
        let (sender, receiver) = mpsc::channel(max_frames);
        let waiting = Arc::new(AtomicUsize::new(0));
        let drain = Drain { frames: receiver, waiting: waiting.clone() };
        Self { frames: sender, waiting, max_bytes, drain: Arc::new(Mutex::new(drain)) }
    }

    pub(crate) fn push(&self, bytes: Bytes) -> Result<(), SendError> {
        let length = bytes.len();
        if length > MAX_FRAME_BYTES {
            return Err(SendError::TooLarge(length));
        }
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        if before + length > self.max_bytes {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            return Err(SendError::QueueFull);
        }
        self.frames.try_send(bytes).map_err(|_| {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            SendError::QueueFull
        })
    }

    /// Takes the receiving end over from the class's former connection, which must be closing.
    pub(crate) async fn drain(&self) -> OwnedMutexGuard<Drain> {
        self.drain.clone().lock_owned().await
    }
}

/// What follows our greeting.
pub(crate) enum Go {
    /// The session has begun: send what is queued.
    Session(OwnedMutexGuard<Drain>),
    /// Say this, then end.
    Refuse(wire::Frame),
}

/// The outgoing stream of one connection: a first frame, then what the handshake decided.
pub(crate) struct Outgoing {
    first: Option<wire::Frame>,
    go: Option<oneshot::Receiver<Go>>,
    drain: Option<OwnedMutexGuard<Drain>>,
}

impl Outgoing {
    /// For a handshake that still goes on.
    pub(crate) fn greeting(first: wire::Frame, go: oneshot::Receiver<Go>) -> Self {
        Self { first: Some(first), go: Some(go), drain: None }
    }

    /// For a handshake that succeeded.
    pub(crate) fn session(first: wire::Frame, drain: OwnedMutexGuard<Drain>) -> Self {
        Self { first: Some(first), go: None, drain: Some(drain) }
    }

    /// For a handshake that failed.
    pub(crate) fn last(only: wire::Frame) -> Self {
        Self { first: Some(only), go: None, drain: None }
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<wire::Frame>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if let Some(go) = &mut self.go {
            let decided = match Pin::new(go).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(decided) => decided,
            };
            self.go = None;
            match decided {
                Ok(Go::Session(drain)) => self.drain = Some(drain),
                Ok(Go::Refuse(frame)) => return Poll::Ready(Some(frame)),
                // The handshake was given up.
                Err(_) => return Poll::Ready(None),
            }
        }
        let Some(drain) = &mut self.drain else { return Poll::Ready(None) };
        drain.frames.poll_recv(context).map(|bytes| {
            bytes.map(|bytes| {
                drain.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                wire::Frame { kind: Some(Kind::Data(wire::Data { bytes })) }
            })
        })
    }
}

impl Stream for Outgoing {
    type Item = wire::Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<wire::Frame>> {
        self.poll_frame(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn bounded_in_frames() {
        let queue = SendQueue::new(2, 1000);
        assert_eq!(queue.push(Bytes::from_static(b"a")), Ok(()));
        assert_eq!(queue.push(Bytes::from_static(b"b")), Ok(()));
        assert_eq!(queue.push(Bytes::from_static(b"c")), Err(SendError::QueueFull));
    }

    #[tokio::test]
    async fn bounded_in_bytes_and_free_again_when_drained() {
        let queue = SendQueue::new(100, 10);
        assert_eq!(queue.push(Bytes::from(vec![0; 6])), Ok(()));
        assert_eq!(queue.push(Bytes::from(vec![0; 5])), Err(SendError::QueueFull));
        let mut outgoing = Outgoing::session(wire::Frame::default(), queue.drain().await);
        outgoing.next().await.expect("the first frame");
        outgoing.next().await.expect("the queued frame");
        assert_eq!(queue.push(Bytes::from(vec![0; 10])), Ok(()));
    }

    #[test]
    fn an_oversized_frame_is_refused() {
        let queue = SendQueue::new(2, usize::MAX);
        let length = MAX_FRAME_BYTES + 1;
        assert_eq!(queue.push(Bytes::from(vec![0; length])), Err(SendError::TooLarge(length)));
    }

    #[tokio::test]
    async fn the_next_connection_goes_on_where_the_last_stopped() {
        let queue = SendQueue::new(10, 100);
        queue.push(Bytes::from_static(b"x")).unwrap();
        let first = Outgoing::session(wire::Frame::default(), queue.drain().await);
        drop(first);
        let mut second = Outgoing::session(wire::Frame::default(), queue.drain().await);
        second.next().await.expect("the first frame");
        let frame = second.next().await.expect("the queued frame");
        assert_eq!(frame.kind, Some(Kind::Data(wire::Data { bytes: Bytes::from_static(b"x") })));
    }
}
