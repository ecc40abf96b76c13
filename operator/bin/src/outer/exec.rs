//! The socket over which `netsplit exec` hands its standard streams: the command then reads and writes the caller's own
//! terminal, and nothing is copied in between.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use netsplit_backend::{ExecExit, ExecStdio};
use netsplit_links::frame;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use serde::{Deserialize, Serialize};

use super::testnet::Testnet;

/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    pub node: String,
    pub argv: Vec<String>,
    pub tty: bool,
}

/// How the command ended, or why it did not run.
#[derive(Debug, Serialize, Deserialize)]
pub enum ExecAnswer {
    Ended(ExecExit),
    Refused(String),
}

/// Serves on a thread of its own for as long as the process lives: a SEQPACKET socket is not among tokio's.
pub fn serve(testnet: &Arc<Testnet>) -> Result<()> {
    let path = testnet.dir.exec_socket();
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context("cannot make a socket")?;
    bind(listener.as_raw_fd(), &UnixAddr::new(&path)?)
        .with_context(|| format!("cannot bind {}", path.display()))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    listen(&listener, Backlog::new(16)?).with_context(|| format!("cannot listen on {}", path.display()))?;
    let (testnet, runtime) = (Arc::clone(testnet), tokio::runtime::Handle::current());
    std::thread::Builder::new()
        .name("exec".to_owned())
        .spawn(move || {
            loop {
                match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                    Ok(raw) => {
                        let (testnet, connection) = (Arc::clone(&testnet), Arc::new(own(raw)));
                        runtime.spawn(async move {
                            if let Err(error) = answer(&testnet, connection).await {
                                tracing::warn!("an exec broke off: {error:#}");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an exec");
                        std::thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

#[allow(unsafe_code, reason = "nix's accept4 gives a number; nobody else knows this descriptor yet")]
fn own(raw: i32) -> OwnedFd {
    // SAFETY: the descriptor was made by accept4 just now and is owned by nobody.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

async fn answer(testnet: &Testnet, connection: Arc<OwnedFd>) -> Result<()> {
    let Some(request) = receive(&connection).await? else { return Ok(()) };
    let ExecRequest { node, argv, tty } =
        serde_json::from_slice(&request.bytes).context("a malformed request")?;
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(request.fds) else {
        bail!("a request without three streams");
    };
    let answer = tokio::select! {
        ended = testnet.session.backend.exec(&node, argv, ExecStdio { stdin, stdout, stderr, tty }) => match ended {
            Ok(exit) => ExecAnswer::Ended(exit),
            Err(error) => ExecAnswer::Refused(error.to_string()),
        },
        // The caller sends nothing after its request, so it is gone: dropping the run ends the command.
        _ = receive(&connection) => return Ok(()),
    };
    let answer = serde_json::to_vec(&answer)?;
    tokio::task::spawn_blocking(move || frame::send(connection.as_fd(), &answer, &[])).await??;
    Ok(())
}

async fn receive(connection: &Arc<OwnedFd>) -> Result<Option<frame::Frame>> {
    let connection = Arc::clone(connection);
    Ok(tokio::task::spawn_blocking(move || frame::receive(&*connection)).await??)
}
