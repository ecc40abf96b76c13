//! Loopback ports of this machine that lead to the nodes' API and HTTP ports, whose addresses only exist inside the
//! testnet's own network.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use netsplit_backend::Backend;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Connections forwarded to one port at a time; a further one waits in the listener's backlog.
const MAX_CONNECTIONS: usize = 128;
/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on a free loopback port and forwards to `port` of `node` for as long as the runtime lives.
pub async fn forward(backend: Arc<dyn Backend>, node: String, port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on a loopback port")?;
    let address = listener.local_addr().context("cannot tell the loopback port")?;
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((client, _)) => {
                    let (backend, node) = (Arc::clone(&backend), node.clone());
                    tokio::spawn(async move {
                        if let Err(error) = carry(&*backend, &node, port, client).await {
                            tracing::debug!(%error, node, port, "a forwarded connection ended");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on a forwarded port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(address)
}

async fn carry(backend: &dyn Backend, node: &str, port: u16, mut client: TcpStream) -> Result<()> {
    let mut node = backend.connect(node, port).await?;
    tokio::io::copy_bidirectional(&mut client, &mut node).await?;
    Ok(())
}
