//! Starting a testnet's supervisor.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use netsplit_proto::control::WatchTestnetRequest;
use netsplit_spec::Testnet;

use super::{Supervised, client, down, told};
use crate::{paths::TestnetDir, world::Launched};

/// Longest wait for the supervisor's socket; it is there within milliseconds unless something is wrong.
const SOCKET_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Starts a supervisor for `testnet`. With `own` the testnet ends when the returned stream does.
pub async fn launch(testnet: &Testnet, own: bool) -> Result<Launched> {
    let since = Instant::now();
    let dir = TestnetDir::of(&testnet.name)?;
    // One that failed lingers to tell why: it makes way.
    if super::found(dir.clone()).await.is_some_and(|found| found.is_alive()) {
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
    // Dropping this stream is what ends a testnet that is owned.
    let states = told(client.watch_testnet(WatchTestnetRequest { own }).await)?;
    Ok(Launched { handle: Box::new(Supervised { dir, client }), states, since })
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
