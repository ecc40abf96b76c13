//! The keeper of the pod's node: put into the folder that both containers mount, and spoken to over its socket there.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use netsplit_keeper::{MAX_LINE, Request, State, Status};
use netsplit_links::pod::Version;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{backend::Hold, kubernetes::config::KEEPER_PROGRAM};

/// A node that has just been started waits for its first word.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is asked while something is done to the node, and while nothing is.
const BUSY: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);
/// Everybody may run it: the node's user does.
const PROGRAM_MODE: u32 = 0o755;

/// Copies the keeper's program to where the node's container runs it from. One that runs there already goes on.
pub fn install(program: &Path, folder: &Path) -> io::Result<()> {
    let new = folder.join(format!("{KEEPER_PROGRAM}.new"));
    // The node may write here, too: what lies there is not written through.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut copy = fs::File::create_new(&new)?;
    io::copy(&mut fs::File::open(program)?, &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(PROGRAM_MODE))?;
    drop(copy);
    fs::rename(new, folder.join(KEEPER_PROGRAM))
}

/// What the keeper is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Nobody has said yet what the node is to be held in: what it is held in stays.
    Unknown,
    Free,
    Hold {
        hold: Hold,
        until: Instant,
    },
}

impl Word {
    fn request(self) -> Request {
        match self {
            Self::Free => Request::Free,
            Self::Hold { hold, until } => match until.saturating_duration_since(Instant::now()) {
                // The keeper has let it go, and does not begin anew.
                left if left < Duration::from_millis(1) => Request::Status,
                lease => Request::Hold { hold: hold.into(), lease },
            },
            Self::Unknown => Request::Status,
        }
    }
}

/// Who speaks to the keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    word: watch::Sender<Word>,
    seen: watch::Receiver<Option<Status>>,
    /// Of the table that the word is from.
    told: Option<Version>,
    _task: AbortOnDropHandle<()>,
}

impl Keeper {
    pub(super) fn follow(socket: PathBuf) -> Self {
        let (word, words) = watch::channel(Word::Unknown);
        let (sees, seen) = watch::channel(None);
        let task = tokio::spawn(follow(socket, words, sees));
        Self { word, seen, told: None, _task: AbortOnDropHandle::new(task) }
    }

    /// Takes what a table says of the node, unless a newer one has spoken.
    pub(super) fn take(&mut self, version: Version, hold: Option<(Hold, Duration)>) {
        if self.told.is_some_and(|told| version <= told) {
            return;
        }
        self.told = Some(version);
        self.word.send_replace(match hold {
            None => Word::Free,
            Some((hold, lease)) => Word::Hold { hold, until: Instant::now() + lease },
        });
    }

    /// Nobody can say in time what the node is to be held in: it may start.
    pub(super) fn give_up_waiting(&self) {
        self.word.send_if_modified(|word| {
            let is_news = *word == Word::Unknown;
            if is_news {
                *word = Word::Free;
            }
            is_news
        });
    }

    /// What it said last; none while it does not answer.
    pub(super) fn status(&self) -> Option<Status> {
        *self.seen.borrow()
    }

    /// Something has become of the node.
    pub(super) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // Its task has ended: there will be no news.
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(socket: PathBuf, mut words: watch::Receiver<Word>, sees: watch::Sender<Option<Status>>) {
    loop {
        // There is none before the node's container runs.
        if let Ok(stream) = UnixStream::connect(&socket).await {
            if let Err(error) = converse(stream, &mut words, &sees).await {
                tracing::debug!(%error, "the node's keeper is gone");
            }
            sees.send_replace(None);
        }
        sleep(CONNECT_PAUSE).await;
    }
}

/// Speaks to one keeper until it is gone.
async fn converse(
    stream: UnixStream,
    words: &mut watch::Receiver<Word>,
    sees: &watch::Sender<Option<Status>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let word = *words.borrow_and_update();
        let status = timeout(ANSWER_TIMEOUT, ask(&mut stream, word.request())).await??;
        let is_busy =
            matches!(word, Word::Hold { .. }) || status.held.is_some() || status.state != State::Running;
        sees.send_if_modified(|seen| {
            // The time that is left of a lease is no news.
            let is_news = seen.map(|seen| Status { left: status.left, ..seen }) != Some(status);
            *seen = Some(status);
            is_news
        });
        tokio::select! {
            changed = words.changed() => if changed.is_err() { return Ok(()) },
            () = sleep(if is_busy { BUSY } else { IDLE }) => {}
            // It says nothing unasked: this is its end.
            _ = stream.fill_buf() => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn ask(stream: &mut BufReader<UnixStream>, request: Request) -> io::Result<Status> {
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = String::new();
    // The node may listen in its keeper's place.
    if stream.take(MAX_LINE as u64).read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.trim_end().parse().map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

#[cfg(test)]
mod tests;
