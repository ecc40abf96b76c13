//! Follows the table server: one stream at a time, to whichever address is the leader's.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use netsplit_links::pod::{self, Report, Request, Response};
use netsplit_proto::agent::{AgentReport, Hello, LinkTable, Refusal, tables_client::TablesClient};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status,
    metadata::MetadataValue,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use super::{AgentOptions, PodAgentError, keeper::Keeper, links::Links};
use crate::{kubernetes::tables::wire, local::chain};

/// The pause before the next round over all addresses doubles from the first to the last, less a random part.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A stream that lived for so long was a good one.
const PROVEN_LIFE: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// From the request to the first answer, which waits for a token review.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(10);
/// A leader that is cut off or gone shows within both together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often counters are reported while there is something to count, and while there is not.
const BUSY: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);
/// Shaped links are reported no more often: that is most of a report when there are many nodes.
const SHAPED: Duration = Duration::from_millis(500);
/// Reports that may wait for a slow operator; counters only grow, so that one left out is no loss.
const QUEUE: usize = 4;

/// What this kernel and this container cannot do, as sentences.
pub(super) struct Able {
    pub(super) unable: Option<String>,
    pub(super) cannot_shape: Option<String>,
}

pub(super) struct Follower {
    options: AgentOptions,
    host: String,
    links: Option<Links>,
    keeper: Keeper,
    able: Able,
    boot: u32,
    ready: watch::Sender<bool>,
    started: Instant,
    last: Report,
    /// Links are shaped or probed here.
    shapes: bool,
    shaped_at: Option<Instant>,
    /// Why the newest table is not in force; said with every report until one is.
    refused: Option<Refusal>,
}

/// How a stream ended.
enum End {
    /// Another one may do.
    Stream(String),
    /// The agent cannot go on.
    Agent(PodAgentError),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Stream(format!("{:?}: {}", status.code(), status.message()))
    }
}

impl Follower {
    pub(super) fn new(
        options: &AgentOptions,
        links: Option<Links>,
        keeper: Keeper,
        able: Able,
        ready: watch::Sender<bool>,
    ) -> Result<Self, PodAgentError> {
        let host = options
            .tables
            .rsplit_once(':')
            .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let host = host.ok_or_else(|| PodAgentError::Tables(options.tables.clone()))?.0.to_owned();
        Ok(Self {
            options: options.clone(),
            host,
            links,
            keeper,
            able,
            boot: rand::random(),
            ready,
            started: Instant::now(),
            last: Report::default(),
            shapes: false,
            shaped_at: None,
            refused: None,
        })
    }

    /// Ends with what cannot be mended from here.
    pub(super) async fn run(mut self) -> PodAgentError {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        loop {
            let (addresses, mut reason) = match tokio::net::lookup_host(&self.options.tables).await {
                Ok(found) => (found.collect::<Vec<_>>(), "the name has no address".to_owned()),
                Err(error) => (Vec::new(), error.to_string()),
            };
            // Agents that start together do not all try the same operator first.
            let first = rand::random_range(0..addresses.len().max(1));
            for place in 0..addresses.len() {
                let address = addresses[(first + place) % addresses.len()];
                let began = Instant::now();
                match self.follow(address).await {
                    End::Agent(error) => return error,
                    End::Stream(why) => reason = format!("{address}: {why}"),
                }
                if began.elapsed() >= PROVEN_LIFE {
                    pause = FIRST_PAUSE;
                }
                self.give_up_waiting();
            }
            self.give_up_waiting();
            // The same reason again and again is one line.
            if reason != said {
                tracing::warn!(tables = %self.options.tables, %reason, "no link table");
                said = reason;
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Without any table for a whole lease, no cut of before is active any more.
    fn give_up_waiting(&self) {
        if self.started.elapsed() >= self.options.fault_lease {
            self.keeper.give_up_waiting();
            if !self.ready.send_replace(true) {
                tracing::warn!(
                    "the node starts without a link table: none could be had for a whole fault lease"
                );
            }
        }
    }

    async fn follow(&mut self, address: SocketAddr) -> End {
        match self.stream(address).await {
            Ok(()) => End::Stream("the operator ended the stream".to_owned()),
            Err(end) => end,
        }
    }

    async fn stream(&mut self, address: SocketAddr) -> Result<(), End> {
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_err(|error| End::Stream(format!("{}: {error}", path.display())))
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&self.options.ca)?))
            .domain_name(&self.host);
        let token = read(&self.options.token)?;
        let failed = |error: tonic::transport::Error| End::Stream(chain(&error));
        let channel = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        // Names resolution, TCP and TLS together.
        let channel = timeout(2 * CONNECT_TIMEOUT, channel.connect())
            .await
            .map_err(|_| End::Stream("it does not answer".to_owned()))?
            .map_err(failed)?;

        let (reports, queue) = mpsc::channel(QUEUE);
        let hello = Hello {
            protocol: wire::PROTOCOL,
            pod: self.options.pod.clone(),
            uid: self.options.uid.clone(),
            addresses: vec![self.options.address.to_string()],
            boot: self.boot,
            unable: self.able.unable.clone().unwrap_or_default(),
            cannot_shape: self.able.cannot_shape.clone().unwrap_or_default(),
        };
        self.report(&reports, Some(hello)).await?;
        let mut request = tonic::Request::new(ReceiverStream::new(queue));
        let bearer = MetadataValue::try_from(format!("Bearer {}", token.trim()));
        let mut bearer = bearer.map_err(|_| End::Stream("the token is no header".to_owned()))?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        let mut client = TablesClient::new(channel);
        let mut tables = timeout(FOLLOW_TIMEOUT, client.follow(request))
            .await
            .map_err(|_| End::Stream("it does not answer".to_owned()))??
            .into_inner();

        let mut tick = interval(BUSY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = Instant::now();
        loop {
            tokio::select! {
                table = tables.message() => {
                    let Some(table) = table? else { return Ok(()) };
                    self.apply(&table, &reports).await?;
                    reported = Instant::now();
                }
                () = self.keeper.changed() => {
                    self.report(&reports, None).await?;
                    reported = Instant::now();
                }
                _ = tick.tick() => {
                    self.give_up_waiting();
                    if self.has_news() || reported.elapsed() >= IDLE {
                        self.report(&reports, None).await?;
                        reported = Instant::now();
                    }
                }
            }
        }
    }

    /// There is something to count that nobody was told of lately.
    fn has_news(&self) -> bool {
        let Report { cuts, sent, received, .. } = &self.last;
        let is_held = self.keeper.status().is_some_and(|status| status.held.is_some());
        !(cuts.is_empty() && sent.is_empty() && received.is_empty()) || is_held || self.is_shaped_due()
    }

    fn is_shaped_due(&self) -> bool {
        self.shaped_at.is_none_or(|at| self.shapes && at.elapsed() >= SHAPED)
    }

    async fn apply(&mut self, message: &LinkTable, reports: &mpsc::Sender<AgentReport>) -> Result<(), End> {
        let unread = |error: wire::WireError| End::Stream(error.to_string());
        let table = wire::read_table(message).map_err(unread)?;
        let hold = message.hold.as_ref().map(wire::node::read_hold).transpose().map_err(unread)?;
        // Before the node may start, and whatever becomes of the links.
        self.keeper.take(table.version, hold);
        let version = Some(wire::version(table.version));
        let pod::Shaping { base, faulted, probed, .. } = &table.shaping;
        self.shapes = !(base.is_empty() && faulted.is_empty() && probed.is_empty());
        let refused = match &mut self.links {
            None => self.able.unable.clone(),
            Some(links) => match links.ask(&Request::Apply(Box::new(table))).await.map_err(thread_ended)? {
                // It has just looked, and is not asked again: others wait for the processor to do the same.
                Response::Report(report) => {
                    self.last = report;
                    self.shaped_at = Some(Instant::now());
                    None
                }
                Response::Refused(why) => {
                    tracing::warn!(%why, "the table is refused");
                    Some(why)
                }
            },
        };
        // A pod that cannot be cut is no reason not to run its node: a cut that needs it is refused instead.
        if refused.is_none() || self.links.is_none() {
            self.ready.send_replace(true);
        }
        self.refused = refused.map(|reason| Refusal { version, reason });
        self.send(reports, None)
    }

    async fn report(&mut self, reports: &mpsc::Sender<AgentReport>, hello: Option<Hello>) -> Result<(), End> {
        // A new stream may lead to who has heard nothing yet.
        let shaped = hello.is_some() || self.is_shaped_due();
        if let Some(links) = &mut self.links
            && let Response::Report(report) =
                links.ask(&Request::Report { shaped }).await.map_err(thread_ended)?
        {
            self.last = report;
        }
        if shaped {
            self.shaped_at = Some(Instant::now());
        }
        self.send(reports, hello)
    }

    fn send(&self, reports: &mpsc::Sender<AgentReport>, hello: Option<Hello>) -> Result<(), End> {
        let mut message = wire::report(&self.last);
        message.hello = hello;
        message.node = self.keeper.status().as_ref().map(wire::node::status);
        message.refused.clone_from(&self.refused);
        match reports.try_send(message) {
            // A full queue empties as the operator reads, or the stream ends.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(End::Stream("the stream is closed".to_owned())),
        }
    }
}

fn thread_ended(why: String) -> End {
    End::Agent(PodAgentError::Links(why))
}
