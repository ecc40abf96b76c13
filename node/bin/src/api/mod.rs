//! The gRPC API: node service, health, reflection, and the limits of all three.

mod blocks;
mod convert;
mod service;

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use netsplit_proto::node::node_server::NodeServer;
use netsplit_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

pub(crate) use service::{ApiContext, NodeService, is_behind};

use crate::limit::{Limited, Patience};

const MAX_CONNECTIONS: usize = 256;
/// Concurrent calls on one connection.
const MAX_STREAMS: u32 = 64;
/// Of a request: a batch of 1,000 transfers is 200 KiB.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Of an answer: the largest block, 32 MiB, and its framing.
const MAX_ANSWER_BYTES: usize = 40 << 20;
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// A client that says nothing at all is closed after this time, one that answers no ping after twice this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until `stop`; open calls get a second to end.
pub(crate) async fn serve<S: Store + 'static>(
    listener: TcpListener,
    context: Arc<ApiContext<S>>,
    health: HealthReporter,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let node = NodeServer::new(NodeService::new(context, stop.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    let health_server = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health),
    );
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(netsplit_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let limited = Limited::new(listener, MAX_CONNECTIONS, Patience::FirstBytes(PATIENCE));
    let incoming = Box::pin(stream::unfold(limited, |limited| async move {
        let (io, _) = limited.next().await;
        Some((Ok::<_, std::io::Error>(io), limited))
    }));
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(32))
        .http2_keepalive_interval(Some(PATIENCE))
        .http2_keepalive_timeout(Some(PATIENCE))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .add_service(node)
        .add_service(health_server)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let linger = async {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        result = server => result?,
        () = linger => {}
    }
    Ok(())
}
