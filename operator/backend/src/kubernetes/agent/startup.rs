//! `GET /startup`: whether the node may start. The answer is held back for a while when it would be no, so that a node
//! starts as soon as it may and not at the kubelet's next second.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};

use super::PodAgentError;

/// Less than the kubelet waits for.
const HELD_BACK: Duration = Duration::from_secs(8);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Enough for `GET /startup` and a kubelet's headers.
const MAX_REQUEST: usize = 4096;
const MAX_CONNECTIONS: usize = 8;

/// Listens; the future that comes back serves, and ends with an error only.
pub(super) async fn serve(
    address: SocketAddr,
    readiness: watch::Receiver<bool>,
) -> Result<impl Future<Output = PodAgentError>, PodAgentError> {
    let failed = move |source| PodAgentError::Startup { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok(async move {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return failed(error),
            };
            // More than a kubelet would open: dropped.
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let readiness = readiness.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, readiness).await {
                    tracing::debug!(%error, "a startup probe went away");
                }
                drop(permit);
            });
        }
    })
}

async fn answer(mut stream: TcpStream, mut readiness: watch::Receiver<bool>) -> io::Result<()> {
    let mut request = Vec::new();
    let whole = async {
        while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if request.len() > MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
        }
        Ok(())
    };
    timeout(REQUEST_TIMEOUT, whole).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let ready = timeout(HELD_BACK, readiness.wait_for(|ready| *ready)).await.is_ok_and(|ready| ready.is_ok());
    let (status, body) = if ready {
        ("200 OK", "the node may start\n")
    } else {
        ("503 Service Unavailable", "no link table yet: the node must wait\n")
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
