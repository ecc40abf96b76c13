//! Calls to the inner process: each has a number, waits for the answer with that number, and is cancelled when nobody waits.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use netsplit_links::frame::{self, Assembly};
use tokio::sync::{oneshot, watch};

use super::{
    rpc::Channel,
    wire::{Failure, FromInner, Request, Response, ToInner},
};
use crate::backend::BackendError;

/// Calls that wait for their answer.
const MAX_CALLS: usize = 4_096;

#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    calls: Mutex<Calls>,
    next_id: AtomicU64,
    /// How the inner process ended.
    gone: watch::Receiver<Option<String>>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

type Answer = (Result<Response, Failure>, Vec<OwnedFd>);

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> BackendError {
    let what = what.into();
    move |source| BackendError::Io { what, source }
}

impl Client {
    pub(super) fn new(channel: Channel, gone: watch::Receiver<Option<String>>) -> Self {
        Self { channel, calls: Mutex::default(), next_id: AtomicU64::new(1), gone }
    }

    /// Becomes how the inner process ended.
    pub(super) fn gone(&self) -> watch::Receiver<Option<String>> {
        self.gone.clone()
    }

    /// Hands out answers until the inner process is gone.
    pub(super) async fn read(self: Arc<Self>, mut assembly: Assembly) {
        while let Ok(Some(frame)) = self.channel.receive(&mut assembly).await {
            let Ok(FromInner { id, result }) = frame::decode(&frame.bytes) else { break };
            let waiting = locked(&self.calls).waiting.remove(&id);
            if let Some(waiting) = waiting {
                // The caller may have stopped waiting; the descriptors close with the answer.
                drop(waiting.send((result, frame.fds)));
            }
        }
        let mut calls = locked(&self.calls);
        calls.closed = true;
        calls.waiting.clear();
    }

    pub(super) async fn call(
        self: &Arc<Self>,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Response, Vec<OwnedFd>), BackendError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut calls = locked(&self.calls);
            if calls.closed {
                return Err(self.lost());
            }
            if calls.waiting.len() >= MAX_CALLS {
                return Err(BackendError::Failed(format!("{MAX_CALLS} calls are waiting already")));
            }
            calls.waiting.insert(id, answer);
        }
        let mut guard = CancelGuard { client: Arc::clone(self), id, armed: true };
        let bytes = frame::encode(&ToInner::Call { id, request })
            .map_err(|error| BackendError::Failed(format!("cannot write the request: {error}")))?;
        let client = Arc::clone(self);
        // In a task of its own: a caller that gives up must not tear the message.
        tokio::spawn(async move { client.channel.send(&bytes, &fds).await })
            .await
            .map_err(|error| BackendError::Failed(format!("the request was lost: {error}")))?
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.lost(),
                _ => io_error("write to the inner process")(error),
            })?;
        let answered = answered.await;
        guard.armed = false;
        let (result, fds) = answered.map_err(|_| self.lost())?;
        Ok((result.map_err(failure)?, fds))
    }

    fn lost(&self) -> BackendError {
        let reason = self.gone.borrow().clone();
        BackendError::Gone(reason.unwrap_or_else(|| "the inner process closed its socket".to_owned()))
    }
}

/// Tells the inner process when a caller gives up.
struct CancelGuard {
    client: Arc<Client>,
    id: u64,
    armed: bool,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if !self.armed || locked(&self.client.calls).waiting.remove(&self.id).is_none() {
            return;
        }
        let (client, id) = (Arc::clone(&self.client), self.id);
        // Without a runtime the whole backend is going away, and the call with it.
        if let (Ok(runtime), Ok(bytes)) =
            (tokio::runtime::Handle::try_current(), frame::encode(&ToInner::Cancel { id }))
        {
            runtime.spawn(async move { client.channel.send(&bytes, &[]).await });
        }
    }
}

fn failure(failure: Failure) -> BackendError {
    match failure {
        Failure::UnknownNode(node) => BackendError::UnknownNode(node),
        Failure::Invalid(sentence) => BackendError::Invalid(sentence),
        Failure::Failed(sentence) => BackendError::Failed(sentence),
        Failure::Connect(errno) => {
            BackendError::Io { what: "connect".to_owned(), source: io::Error::from_raw_os_error(errno) }
        }
    }
}

pub(super) fn unexpected(response: &Response) -> BackendError {
    BackendError::Failed(format!("the inner process answered another question: {response:?}"))
}
