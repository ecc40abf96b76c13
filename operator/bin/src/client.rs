//! The command line's side of the control socket.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use netsplit_proto::control::{GetTestnetRequest, Testnet, control_client::ControlClient};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::paths::{self, TestnetDir};

pub type Client = ControlClient<Channel>;

/// Longest wait for an answer from a supervisor that accepts connections; it answers in microseconds unless hung.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to a supervisor's socket. Fails at once when none listens.
pub async fn connect(socket: &Path) -> Result<Client> {
    let path = socket.to_owned();
    // The URI is never resolved: the connector decides where to go.
    let channel = Endpoint::from_static("http://netsplit.control")
        .connect_timeout(ANSWER_TIMEOUT)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .with_context(|| format!("cannot reach {}", socket.display()))?;
    Ok(ControlClient::new(channel))
}

/// A testnet that runs now.
#[derive(Debug)]
pub struct Running {
    pub dir: TestnetDir,
    pub client: Client,
    pub state: Testnet,
}

impl Running {
    /// Neither failed nor on its way down.
    pub fn is_alive(&self) -> bool {
        matches!(self.state.state.as_str(), "starting" | "running")
    }
}

/// The testnet at `dir` if a supervisor answers there.
pub async fn running(dir: &TestnetDir) -> Option<Running> {
    let mut client = connect(&dir.control_socket()).await.ok()?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.get_testnet(GetTestnetRequest {})).await;
    let state = answer.ok()?.ok()?.into_inner();
    Some(Running { dir: dir.clone(), client, state })
}

/// All testnets of this user that run.
pub async fn all_running() -> Result<Vec<Running>> {
    let mut found = Vec::new();
    for dir in paths::all()? {
        found.extend(running(&dir).await);
    }
    Ok(found)
}

/// The testnet that is meant: the named one, else the only one that runs.
pub async fn find(name: Option<&str>) -> Result<Running> {
    if let Some(name) = name {
        let dir = TestnetDir::of(name)?;
        if let Some(running) = running(&dir).await {
            return Ok(running);
        }
        bail!("no testnet `{name}` runs here; {}", names(&all_running().await?));
    }
    let mut all = all_running().await?;
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => bail!("no testnet runs here: start one with `netsplit up -f quickstart.yaml --detach`"),
        _ => bail!("several testnets run here: say which with `-t NAME`; {}", names(&all)),
    }
}

fn names(all: &[Running]) -> String {
    if all.is_empty() {
        return "none runs".to_owned();
    }
    let names: Vec<&str> = all.iter().map(|running| running.dir.name.as_str()).collect();
    format!("running: {}", names.join(", "))
}
