//! The command line's side of the control socket.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use netsplit_proto::control::{GetTestnetRequest, Testnet as State, control_client::ControlClient};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::paths::TestnetDir;

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

/// The testnet at `dir` if a supervisor answers there.
pub async fn running(dir: &TestnetDir) -> Option<(Client, State)> {
    let mut client = connect(&dir.control_socket()).await.ok()?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.get_testnet(GetTestnetRequest {})).await;
    let state = answer.ok()?.ok()?.into_inner();
    Some((client, state))
}
