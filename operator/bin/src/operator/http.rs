//! `/metrics`, `/live` and `/ready`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::metrics::Metrics;

/// Serves until the task is aborted. It is ready from the start: whoever is not the leader is ready to become it.
pub async fn serve(address: SocketAddr, metrics: Metrics) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (--listen-http)"))?;
    let routes = Router::new()
        .route("/live", get(|| async { "ok\n" }))
        .route("/ready", get(|| async { "ok\n" }))
        .route("/metrics", get(text))
        .with_state(metrics);
    axum::serve(listener, routes).await.context("the HTTP server broke")
}

async fn text(State(metrics): State<Metrics>) -> (StatusCode, String) {
    match metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
