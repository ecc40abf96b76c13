//! JSON-RPC 2.0 over HTTP/1.1, on connections that a backend hands out.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{ClientError, Connector, Io};

/// A connection that takes longer is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// For one answer.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// CometBFT closes a connection that was idle for 10 s.
const IDLE_LIMIT: Duration = Duration::from_secs(8);
/// Connections kept for later calls.
const IDLE_MOST: usize = 32;
/// Largest answer: a full block is far below.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// One method with its parameters.
pub(super) type Call = (&'static str, Value);

/// What a node answered instead of a result.
#[derive(Debug, Deserialize)]
pub(super) struct Refused {
    message: String,
    /// What is wrong in particular.
    #[serde(default)]
    data: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data.is_empty() { f.write_str(&self.message) } else { f.write_str(&self.data) }
    }
}

/// One node. Calls may run at the same time, each on a connection of its own.
pub(super) struct Rpc {
    pub node: String,
    client: Client<Connect, Full<Bytes>>,
}

impl Rpc {
    pub fn new(node: &str, connector: Connector) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(IDLE_MOST)
            .build(Connect(connector));
        Self { node: node.to_owned(), client }
    }

    /// One call; `name` is what errors call it.
    pub async fn call<T: DeserializeOwned>(&self, name: &'static str, call: Call) -> Result<T, ClientError> {
        let [answer] = self.calls(name, [call]).await?;
        self.read(name, answer)
    }

    /// Several calls in one request; one answer each, in the same order.
    pub async fn calls<const N: usize>(
        &self,
        name: &'static str,
        calls: [Call; N],
    ) -> Result<[Result<Value, Refused>; N], ClientError> {
        let answers = self.batch(name, calls.into()).await?;
        // As many as were asked for: that was checked.
        answers
            .try_into()
            .map_err(|_| self.malformed(name, "another number of answers than calls".to_owned()))
    }

    /// As [`calls`](Self::calls); the node takes no more than it was configured to.
    pub async fn batch(
        &self,
        name: &'static str,
        calls: Vec<Call>,
    ) -> Result<Vec<Result<Value, Refused>>, ClientError> {
        let count = calls.len();
        let call = |(id, (method, params)): (usize, Call)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let batch: Value = calls.into_iter().enumerate().map(call).collect();
        let answer = match timeout(CALL_LIMIT, self.post(batch.to_string())).await {
            Ok(answer) => answer.map_err(|error| ClientError::unreachable(&self.node, name, error))?,
            Err(elapsed) => return Err(ClientError::unreachable(&self.node, name, elapsed)),
        };
        sorted(&answer, count).map_err(|what| self.malformed(name, what))
    }

    /// What an answer holds.
    pub fn read<T: DeserializeOwned>(
        &self,
        name: &'static str,
        answer: Result<Value, Refused>,
    ) -> Result<T, ClientError> {
        let value = answer.map_err(|refused| ClientError::Refused {
            node: self.node.clone(),
            call: name,
            message: refused.to_string(),
        })?;
        serde_json::from_value(value).map_err(|error| self.malformed(name, error.to_string()))
    }

    pub fn malformed(&self, name: &'static str, what: String) -> ClientError {
        ClientError::Malformed { node: self.node.clone(), call: name, what }
    }

    async fn post(&self, body: String) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        // The host is not used: the connector alone knows where the node is.
        let request = Request::post(Uri::from_static("http://node/"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        let answer = self.client.request(request).await?;
        Ok(Limited::new(answer.into_body(), ANSWER_BYTES).collect().await?.to_bytes())
    }
}

/// The answers in the order of their calls. A single one comes without a list around it.
fn sorted(body: &[u8], count: usize) -> Result<Vec<Result<Value, Refused>>, String> {
    #[derive(Deserialize)]
    struct Answer {
        id: usize,
        result: Option<Value>,
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answers {
        Many(Vec<Answer>),
        One(Answer),
    }
    let mut answers = match serde_json::from_slice(body).map_err(|error| error.to_string())? {
        Answers::Many(answers) => answers,
        Answers::One(answer) => vec![answer],
    };
    answers.sort_by_key(|answer| answer.id);
    if answers.len() != count || answers.iter().enumerate().any(|(place, answer)| answer.id != place) {
        return Err(format!("{} answers to {count} calls", answers.len()));
    }
    let outcome = |answer: Answer| match (answer.result, answer.error) {
        (_, Some(refused)) => Ok(Err(refused)),
        (Some(result), None) => Ok(Ok(result)),
        (None, None) => Err("neither result nor error".to_owned()),
    };
    answers.into_iter().map(outcome).collect()
}

/// Makes connections for hyper's pool.
#[derive(Clone)]
struct Connect(Connector);

impl tower::Service<Uri> for Connect {
    type Response = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = (self.0)();
        Box::pin(async move {
            match timeout(CONNECT_LIMIT, connecting).await {
                Ok(connected) => connected.map(|stream| Stream(TokioIo::new(stream))),
                Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
            }
        })
    }
}

/// What a backend connects, in the words of hyper.
struct Stream(TokioIo<Box<dyn Io>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_ids() {
        let body =
            br#"[{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"Internal error","data":"full"}},
                        {"jsonrpc":"2.0","id":0,"result":{"a":1}}]"#;
        let answers = sorted(body, 2).unwrap();
        assert_eq!(answers[0].as_ref().unwrap()["a"], 1);
        assert_eq!(answers[1].as_ref().unwrap_err().to_string(), "full");
        let single = sorted(br#"{"jsonrpc":"2.0","id":0,"result":{}}"#, 1).unwrap();
        assert!(single[0].is_ok());
    }

    #[test]
    fn an_answer_too_many_or_of_another_call_is_malformed() {
        for body in [
            r#"[{"id":0,"result":1},{"id":1,"result":1}]"#,
            r#"{"id":1,"result":1}"#,
            r#"{"id":0}"#,
            "not JSON",
            "",
        ] {
            assert!(sorted(body.as_bytes(), 1).is_err(), "{body}");
        }
    }
}
