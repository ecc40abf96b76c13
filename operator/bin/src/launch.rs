//! Starting a testnet's supervisor and waiting for its first final block.

use std::{
    fs::File,
    io::{IsTerminal as _, Read as _, Seek as _},
    os::unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use netsplit_proto::control::{Testnet as State, WatchTestnetRequest};
use netsplit_spec::Testnet;
use tonic::Streaming;

use crate::{client, commands::down, paths::TestnetDir, problem};

/// Longest wait for the supervisor's socket; it is there within milliseconds unless something is wrong.
const SOCKET_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A testnet that this command has started.
#[derive(Debug)]
pub struct Launched {
    pub dir: TestnetDir,
    pub client: client::Client,
    /// States as they change. If it was opened to own the testnet, dropping it takes the testnet down.
    pub states: Streaming<State>,
    pub since: Instant,
}

/// Starts a supervisor for `testnet`. With `own` the testnet ends when the returned stream does.
pub async fn launch(testnet: &Testnet, own: bool) -> Result<Launched> {
    let since = Instant::now();
    let dir = TestnetDir::of(&testnet.name)?;
    // One that failed lingers to tell why: it makes way.
    if client::running(&dir).await.is_some_and(|running| running.is_alive()) {
        bail!("testnet `{}` runs already: `netsplit status -t {0}`, `netsplit down -t {0}`", testnet.name);
    }
    // What a testnet that was killed has left: nothing but files, since its processes die with their supervisor.
    down::take_down(&dir, false).await?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir.root)
        .with_context(|| format!("cannot create {}", dir.root.display()))?;
    let spec = serde_json::to_vec_pretty(testnet).context("cannot write the testnet as JSON")?;
    std::fs::write(dir.spec_file(), spec)
        .with_context(|| format!("cannot write {}", dir.spec_file().display()))?;
    let mut supervisor = spawn(&dir)?;
    let mut client = connect(&dir, &mut supervisor).await?;
    let states =
        client.watch_testnet(WatchTestnetRequest { own }).await.map_err(problem::from_status)?.into_inner();
    Ok(Launched { dir, client, states, since })
}

fn spawn(dir: &TestnetDir) -> Result<Child> {
    let exe = std::env::current_exe().context("cannot tell where netsplit itself is")?;
    let log = File::create(dir.log_file())
        .with_context(|| format!("cannot create {}", dir.log_file().display()))?;
    let errors = log.try_clone().context("cannot share the supervisor's log")?;
    Command::new(exe)
        .arg("__outer")
        .arg(&dir.root)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Out of the terminal's foreground group: a Ctrl-C is for the command line, which then asks for an orderly end.
        .process_group(0)
        .spawn()
        .context("cannot start the testnet's supervisor")
}

async fn connect(dir: &TestnetDir, supervisor: &mut Child) -> Result<client::Client> {
    let deadline = Instant::now() + SOCKET_DEADLINE;
    loop {
        if let Ok(client) = client::connect(&dir.control_socket()).await {
            return Ok(client);
        }
        if let Some(status) = supervisor.try_wait().context("cannot tell how the supervisor is")? {
            bail!("the testnet's supervisor ended at once ({status}):\n{}", log_tail(dir));
        }
        if Instant::now() >= deadline {
            bail!("the testnet's supervisor does not answer:\n{}", log_tail(dir));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every node holds a final block. Shows progress on standard error.
pub async fn first_final(launched: &mut Launched, timeout: Duration) -> Result<State> {
    let spinner = spinner();
    let deadline = tokio::time::Instant::now() + timeout;
    let mut last = String::from("nothing was heard of it");
    loop {
        let next = tokio::time::timeout_at(deadline, launched.states.message()).await;
        let Ok(next) = next else {
            spinner.finish_and_clear();
            bail!(
                "no block was final on every node after {} s: {last}\n{}",
                timeout.as_secs(),
                log_tail(&launched.dir)
            );
        };
        let Some(state) = next.map_err(problem::from_status)? else {
            spinner.finish_and_clear();
            bail!("the testnet's supervisor went away:\n{}", log_tail(&launched.dir));
        };
        if state.state == "failed" {
            spinner.finish_and_clear();
            bail!("testnet `{}` cannot start: {}", state.name, state.problem);
        }
        last = progress(&state);
        spinner.set_message(last.clone());
        if state.state == "running"
            && !state.nodes.is_empty()
            && state.nodes.iter().all(|n| n.final_height > 0)
        {
            spinner.finish_and_clear();
            return Ok(state);
        }
    }
}

fn progress(state: &State) -> String {
    let running = state.nodes.iter().filter(|node| node.state == "running").count();
    let with_block = state.nodes.iter().filter(|node| node.final_height > 0).count();
    let total = state.nodes.len();
    format!("{}: {running} of {total} nodes run, {with_block} hold a final block", state.name)
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The end of the supervisor's log, for an error message.
pub fn log_tail(dir: &TestnetDir) -> String {
    const TAIL: u64 = 2_000;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(dir.log_file())?;
        let start = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(std::io::SeekFrom::Start(start))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(its log {} cannot be read: {error})", dir.log_file().display()))
}
