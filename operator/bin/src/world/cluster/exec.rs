//! A command in a node's pod, on the caller's own terminal, through the API server as `kubectl exec` does it.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use futures::SinkExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use netsplit_backend::kubernetes::NODE_CONTAINER;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

use super::api::{Cluster, pod_name};
use crate::pipe::Output;

/// Bytes that are read, sent or held at once.
const CHUNK: usize = 16 << 10;
/// Chunks of input that may wait for a slow network.
const PENDING: usize = 4;

/// Runs the command in the node's own container, which shares its network, its files and its user with the node. Gives the
/// command's exit code. It has a terminal if the caller has one to both read from and write to.
pub async fn run(cluster: &Cluster, testnet: &str, node: &str, command: &[String]) -> Result<ExitCode> {
    let pod = pod_name(testnet, node);
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let params = AttachParams { stdin: true, stdout: true, stderr: !tty, tty, ..AttachParams::default() }
        .container(NODE_CONTAINER)
        .max_stdin_buf_size(CHUNK)
        .max_stdout_buf_size(CHUNK)
        .max_stderr_buf_size(CHUNK);
    let started = cluster.pods().exec(&pod, command, &params).await;
    let mut process =
        started.map_err(|error| cluster.explain(error, &format!("cannot run a command in pod {pod}")))?;
    let _raw = if tty { Some(Raw::enter()?) } else { None };
    let _input = AbortOnDropHandle::new(tokio::spawn(feed(&mut process)?));
    let _size = tty.then(|| AbortOnDropHandle::new(tokio::spawn(follow_size(&mut process))));
    let status = process.take_status().context("a command has one status")?;
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let printed = async {
        let out = print(stdout, |bytes| {
            let mut out = Output::lock();
            out.write_all(bytes)?;
            out.flush()
        });
        let err = print(stderr, |bytes| std::io::stderr().write_all(bytes));
        tokio::try_join!(out, err)
    };
    let mut printed = std::pin::pin!(printed);
    tokio::pin!(status);
    // The two streams end after the status has come, and never if the connection broke.
    let (status, is_printed) = tokio::select! {
        status = &mut status => (status, false),
        all = &mut printed => {
            all.context("cannot print what the command has written")?;
            (status.await, true)
        }
    };
    let Some(status) = status else {
        bail!("the connection to pod {pod} broke off: the command may go on there")
    };
    if !is_printed {
        printed.await.context("cannot print what the command has written")?;
    }
    match exit_code(&status) {
        Some(code) => Ok(ExitCode::from(code)),
        None => Err(not_run(cluster, &pod, command, &status)),
    }
}

/// Prints a stream of the command to its end.
async fn print(
    stream: Option<impl AsyncRead + Unpin>,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => write(&buffer[..read])?,
        }
    }
}

/// What hands our standard input over, to its end. A thread of its own reads it: a read cannot be taken back, and must not hold
/// this process up when the command has ended.
fn feed(process: &mut AttachedProcess) -> Result<impl Future<Output = ()> + use<>> {
    let mut stdin = process.stdin().context("the command was started with a standard input")?;
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(PENDING);
    let read = move || {
        let mut buffer = vec![0; CHUNK];
        // An error is the end of it, as it is for a command of this machine.
        while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).context("cannot start a thread")?;
    Ok(async move {
        while let Some(chunk) = chunks.recv().await {
            // A command that has ended reads no more.
            if stdin.write_all(&chunk).await.is_err() {
                return;
            }
        }
        stdin.shutdown().await.ok();
    })
}

/// Tells the command's terminal how large ours is.
fn follow_size(process: &mut AttachedProcess) -> impl Future<Output = ()> + use<> {
    let sizes = process.terminal_size();
    async move {
        let (Some(mut sizes), Ok(mut changed)) = (sizes, signal(SignalKind::window_change())) else { return };
        loop {
            if let Some((width, height)) = terminal_size::terminal_size_of(std::io::stdout())
                && sizes.send(TerminalSize { width: width.0, height: height.0 }).await.is_err()
            {
                return;
            }
            if changed.recv().await.is_none() {
                return;
            }
        }
    }
}

/// A terminal that hands every key on, Ctrl-C included. Dropping it makes it as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).context("cannot ask the terminal how it is set")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).context("cannot set the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0) {
            eprintln!("cannot set the terminal back ({error}): `reset` does");
        }
    }
}

/// The command's own; none if it did not run.
fn exit_code(status: &Status) -> Option<u8> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    let code: i32 = code.message.as_deref()?.parse().ok()?;
    Some(u8::try_from(code).unwrap_or(1))
}

fn not_run(cluster: &Cluster, pod: &str, command: &[String], status: &Status) -> anyhow::Error {
    let program = command.first().map_or("", String::as_str);
    let why = status.message.as_deref().unwrap_or("the cluster does not say why");
    if ["executable file not found", "no such file or directory"].iter().any(|text| why.contains(text)) {
        return anyhow::anyhow!(
            "the node's image holds no program `{program}`: netsplit's own holds /netsplit-node and no shell.              `kubectl -n {} debug {pod} -it --image=busybox --target={NODE_CONTAINER} -- sh` brings programs into the same              network",
            cluster.namespace
        );
    }
    anyhow::anyhow!("cannot run `{program}` in pod {pod}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &serde_json::Value) -> Status {
        serde_json::from_value(text.clone()).unwrap()
    }

    /// As a cluster of version 1.36 says it.
    #[test]
    fn the_exit_code_is_the_commands_and_there_is_none_without_a_command() {
        assert_eq!(exit_code(&status(&serde_json::json!({ "status": "Success" }))), Some(0));
        let ended = serde_json::json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: exit status 7",
            "details": { "causes": [{ "reason": "ExitCode", "message": "7" }] },
        });
        assert_eq!(exit_code(&status(&ended)), Some(7));
        let missing = serde_json::json!({
            "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "Internal error occurred: error executing command in container: ... \"sh\": executable file not found",
            "details": { "causes": [{ "message": "error executing command in container: ..." }] },
        });
        assert_eq!(exit_code(&status(&missing)), None);
    }
}
