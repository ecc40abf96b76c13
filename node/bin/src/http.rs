//! `/metrics`, `/live` and `/ready` over plain HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use netsplit_net::NetHandle;
use netsplit_store::{Chain, Store};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::EngineHandle;
use crate::limit::{Limited, Patience};
use crate::metrics::Metrics;
use crate::pool::Pool;

const MAX_CONNECTIONS: usize = 64;
/// A scraper reconnects.
const CONNECTION_TIME: Duration = Duration::from_mins(1);

pub(crate) struct HttpContext<S> {
    pub registry: Registry,
    pub metrics: Arc<Metrics>,
    pub chain: Arc<Chain<S>>,
    pub pool: Arc<Pool>,
    pub net: NetHandle,
    pub engine: EngineHandle,
    pub ready: Arc<AtomicBool>,
}

pub(crate) async fn serve<S: Store + 'static>(
    listener: TcpListener,
    context: Arc<HttpContext<S>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics::<S>))
        .route("/live", get(live::<S>))
        .route("/ready", get(ready::<S>))
        .with_state(context);
    let limited = Limited::new(listener, MAX_CONNECTIONS, Patience::Whole(CONNECTION_TIME));
    let server = axum::serve(limited, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let linger = async {
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    tokio::select! {
        result = server.into_future() => result?,
        () = linger => {}
    }
    Ok(())
}

/// Live: the engine answers.
async fn live<S: Store + 'static>(State(context): State<Arc<HttpContext<S>>>) -> Response {
    if context.engine.round_state().await.is_some() {
        (StatusCode::OK, "live\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "consensus does not answer\n").into_response()
    }
}

/// Ready: a block is final here and no neighbour is far ahead.
async fn ready<S: Store + 'static>(State(context): State<Arc<HttpContext<S>>>) -> Response {
    if context.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no block is final yet, or the node is catching up\n")
            .into_response()
    }
}

async fn metrics<S: Store + 'static>(State(context): State<Arc<HttpContext<S>>>) -> Response {
    if let Some(round) = context.engine.round_state().await {
        context.metrics.refresh(&round, context.pool.size(), &context.net.peers());
    }
    context.metrics.first_height.set(context.chain.first_block() as i64);
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&context.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
