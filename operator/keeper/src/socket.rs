//! The socket at which the keeper is spoken to. It waits for nobody: whoever sends half a line, or does not read, holds up
//! neither the node nor others.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
};

use netsplit_keeper::{MAX_LINE, Request, Status};

use super::Failure;

/// There is one agent. Of more the longest connected goes: one that hangs must not keep out its successor.
const MAX_CLIENTS: usize = 4;
/// The agent is user 0 without any capability: permission bits hold for it as for every other user, and the node's user owns
/// the socket. Who reaches the folder is in this pod.
const EVERYBODY: u32 = 0o666;

#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// What came of a line that has not ended yet.
    unfinished: Vec<u8>,
}

impl Socket {
    /// Takes the place of one that a keeper before this one has left.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let open = || {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(EVERYBODY))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let failed =
            |error| Failure::new(Failure::SYSTEM, format!("cannot listen at {}: {error}", path.display()));
        Ok(Self { listener: open().map_err(failed)?, clients: Vec::new() })
    }

    /// What there may be something to read of.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.listener.as_fd()].into_iter().chain(self.clients.iter().map(|client| client.stream.as_fd()))
    }

    /// Answers all that has come.
    pub(super) fn serve(
        &mut self,
        mut take: impl FnMut(Request) -> Result<Status, Failure>,
    ) -> Result<(), Failure> {
        while let Ok((stream, _)) = self.listener.accept() {
            // One that cannot be made to wait for nobody is of no use.
            if stream.set_nonblocking(true).is_ok() {
                if self.clients.len() == MAX_CLIENTS {
                    self.clients.remove(0);
                }
                self.clients.push(Client { stream, unfinished: Vec::new() });
            }
        }
        let mut kept = Vec::new();
        for mut client in std::mem::take(&mut self.clients) {
            if client.serve(&mut take)? {
                kept.push(client);
            }
        }
        self.clients = kept;
        Ok(())
    }
}

impl Client {
    /// `false`: it is gone, or not worth waiting for.
    fn serve(&mut self, take: &mut impl FnMut(Request) -> Result<Status, Failure>) -> Result<bool, Failure> {
        let mut buffer = [0; MAX_LINE];
        let read = match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) => {
                let waits = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                return Ok(waits.contains(&error.kind()));
            }
        };
        self.unfinished.extend(&buffer[..read]);
        while let Some(end) = self.unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            let answer = match String::from_utf8_lossy(&line[..end]).parse() {
                Ok(request) => format!("{}\n", take(request)?),
                Err(why) => format!("error {why}\n"),
            };
            // Who has not read so many answers that there is no room for one more reads none.
            if self.stream.write_all(answer.as_bytes()).is_err() {
                return Ok(false);
            }
        }
        Ok(self.unfinished.len() < MAX_LINE)
    }
}
