//! The thread that owns consensus, chain and log.
//!
//! One input at a time, in the order that the inbox gives. The engine's clock is monotonic and starts with the thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netsplit_bft::{Application, Engine, Fatal, Input, LogStorage, Message, Output, RoundState};
use netsplit_net::{Class, NetEvent, NetHandle};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::inbox::{Event, Inbox};
use crate::metrics::Metrics;

/// Requests of status that may wait; more find the engine busy.
const MAX_CONTROL: usize = 64;
/// A step that takes longer stands in the log: rounds are about to time out.
const SLOW_STEP: Duration = Duration::from_millis(500);

/// What the rest of the node asks of the engine.
#[derive(Debug)]
pub(crate) enum Control {
    RoundState(oneshot::Sender<RoundState>),
    Stop,
}

/// Asks the engine; it answers between two steps.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle(mpsc::Sender<Control>);

impl EngineHandle {
    /// `None` when the engine has stopped or is too busy to answer within a second.
    pub(crate) async fn round_state(&self) -> Option<RoundState> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Control::RoundState(reply)).ok()?;
        tokio::time::timeout(Duration::from_secs(1), answer).await.ok()?.ok()
    }

    pub(crate) async fn stop(&self) {
        // An engine that has stopped already needs no telling.
        self.0.send(Control::Stop).await.ok();
    }
}

/// The running thread.
pub(crate) struct EngineThread {
    pub handle: EngineHandle,
    /// Resolves when the thread ends: cleanly, or with what stopped it.
    pub ended: oneshot::Receiver<Result<(), Fatal>>,
    pub thread: JoinHandle<()>,
}

/// What the engine's thread talks to.
pub(crate) struct Links {
    pub consensus: mpsc::Receiver<NetEvent>,
    pub bulk: mpsc::Receiver<NetEvent>,
    pub net: NetHandle,
    pub metrics: Arc<Metrics>,
}

/// Boots the engine on a thread of its own.
pub(crate) fn spawn<A, L>(
    make: impl FnOnce() -> Engine<A, L> + Send + 'static,
    links: Links,
    runtime: Handle,
) -> std::io::Result<EngineThread>
where
    A: Application + 'static,
    L: LogStorage + 'static,
{
    let (control, controls) = mpsc::channel(MAX_CONTROL);
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let Links { consensus, bulk, net, metrics } = links;
        let inbox = Inbox::new(controls, consensus, bulk, runtime);
        let mut driver = Driver { engine: make(), inbox, net, metrics, start: Instant::now(), encoded: None };
        let result = driver.run();
        if let Err(fatal) = &result {
            error!(error = %crate::application::chain_of(fatal), "consensus stopped");
        }
        drop(driver);
        // Without a receiver the process is ending anyway.
        end.send(result).ok();
    })?;
    Ok(EngineThread { handle: EngineHandle(control), ended, thread })
}

struct Driver<A, L> {
    engine: Engine<A, L>,
    inbox: Inbox,
    net: NetHandle,
    metrics: Arc<Metrics>,
    start: Instant,
    /// The last message sent: most go to several neighbours.
    encoded: Option<(Message, Bytes)>,
}

impl<A: Application, L: LogStorage> Driver<A, L> {
    fn run(&mut self) -> Result<(), Fatal> {
        let outputs = self.engine.boot(Duration::ZERO)?;
        self.perform(outputs);
        info!(
            height = self.engine.app().height(),
            boot_ms = self.start.elapsed().as_millis(),
            "consensus runs"
        );
        loop {
            match self.inbox.next() {
                // Peers come and go with their consensus connection, not with this one.
                Event::Bulk(NetEvent::PeerUp(_) | NetEvent::PeerDown(_)) => {}
                Event::Consensus(event) | Event::Bulk(event) => self.receive(event)?,
                Event::Timer(id) => self.step(Input::Timer(id))?,
                Event::Tick => self.step(Input::Tick)?,
                Event::Control(Control::RoundState(reply)) => {
                    // Who asked may have gone.
                    reply.send(self.engine.round_state()).ok();
                }
                Event::Control(Control::Stop) | Event::Closed => {
                    info!(height = self.engine.app().height(), "consensus stops");
                    return self.engine.app_mut().sync();
                }
            }
        }
    }

    fn receive(&mut self, event: NetEvent) -> Result<(), Fatal> {
        match event {
            NetEvent::PeerUp(peer) => self.step(Input::PeerUp(peer)),
            NetEvent::PeerDown(peer) => self.step(Input::PeerDown(peer)),
            NetEvent::Frame(frame) => match Message::from_bytes(&frame.bytes) {
                Ok(message) => self.step(Input::Received { from: frame.peer, message }),
                Err(error) => {
                    self.metrics.malformed.inc();
                    debug!(peer = %frame.peer, %error, "frame dropped");
                    Ok(())
                }
            },
        }
    }

    fn step(&mut self, input: Input) -> Result<(), Fatal> {
        let start = Instant::now();
        let outputs = self.engine.step(start - self.start, input)?;
        let took = start.elapsed();
        self.metrics.step.observe(took.as_secs_f64());
        if took > SLOW_STEP {
            warn!(ms = took.as_millis(), "a step of consensus took long");
        }
        self.perform(outputs);
        Ok(())
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    let class = if message.is_bulk() { Class::Bulk } else { Class::Consensus };
                    let bytes = match &self.encoded {
                        Some((last, bytes)) if *last == message => bytes.clone(),
                        _ => {
                            let bytes = message.to_bytes();
                            self.encoded = Some((message, bytes.clone()));
                            bytes
                        }
                    };
                    if let Err(error) = self.net.send(&to, class, bytes) {
                        self.metrics.dropped(class);
                        debug!(peer = %to, class = class.name(), %error, "message dropped");
                    }
                }
                Output::SetTimer { id, after } => self.inbox.set_timer(id, after),
                Output::Decided { height, id, time_ms } => debug!(height, %id, time_ms, "final"),
                Output::Misbehaved { peer, reason } => {
                    self.metrics.misbehaved(reason);
                    warn!(%peer, reason = reason.label(), "peer misbehaved");
                }
                Output::Evidence(evidence) => {
                    self.metrics.evidence.inc();
                    warn!(?evidence, "a validator signed twice");
                }
            }
        }
        // Do not hold a block's part in memory until the next message.
        self.encoded = None;
    }
}
