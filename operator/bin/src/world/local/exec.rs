//! A command in a node's network, on the caller's own terminal.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use netsplit_backend::ExecExit;
use netsplit_links::frame;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::{
    outer::{ExecAnswer, ExecRequest},
    paths::TestnetDir,
};

/// Returns the command's own exit code, or 128 and the signal that ended it.
pub async fn run(dir: &TestnetDir, node: &str, command: &[String]) -> Result<ExitCode> {
    let path = dir.exec_socket();
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(connection.as_raw_fd(), &UnixAddr::new(&path)?)
        .with_context(|| format!("cannot reach {}", path.display()))?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    // The terminal stays this process's: a Ctrl-C ends this process, and with it the command.
    let request = ExecRequest { node: node.to_owned(), argv: command.to_vec(), tty: false };
    frame::send(
        connection.as_fd(),
        &serde_json::to_vec(&request)?,
        &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
    )
    .context("cannot hand over the standard streams")?;
    let answer = tokio::task::spawn_blocking(move || frame::receive(&connection)).await?;
    let Some(answer) = answer.context("the testnet's supervisor broke off")? else {
        bail!("the testnet's supervisor went away");
    };
    match serde_json::from_slice(&answer.bytes).context("a malformed answer")? {
        ExecAnswer::Ended(ExecExit { code: Some(code), .. }) => {
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
        ExecAnswer::Ended(ExecExit { signal, .. }) => {
            Ok(ExitCode::from(u8::try_from(128 + signal.unwrap_or(0)).unwrap_or(u8::MAX)))
        }
        ExecAnswer::Refused(why) => bail!(why),
    }
}
