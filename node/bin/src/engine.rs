//! The thread that owns consensus, chain and log.
//!
//! One input at a time, in the order of arrival; of what waits, control first, then due timers, consensus before bulk.
//! The engine's clock is monotonic and starts with the thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netsplit_bft::{Application, Engine, Fatal, Input, LogStorage, Message, Output, RoundState, TimerId};
use netsplit_net::{Class, NetEvent, NetHandle};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tracing::{debug, error, info, warn};

use crate::metrics::Metrics;

/// Requests of status that may wait; more find the engine busy.
const MAX_CONTROL: usize = 64;
const TICK: Duration = Duration::from_secs(1);
/// A step that takes longer stands in the log: rounds are about to time out.
const SLOW_STEP: Duration = Duration::from_millis(500);
/// Consensus frames after which one of bulk is taken, if there is one: value sync must not starve.
const IN_A_ROW: u32 = 16;

/// What the rest of the node asks of the engine.
enum Control {
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
        let mut driver = Driver {
            engine: make(),
            links,
            controls,
            runtime,
            start: Instant::now(),
            timers: BinaryHeap::new(),
            encoded: None,
            in_a_row: 0,
        };
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
    links: Links,
    controls: mpsc::Receiver<Control>,
    runtime: Handle,
    start: Instant,
    timers: BinaryHeap<Reverse<(Instant, TimerId)>>,
    /// The last message sent: most go to several neighbours.
    encoded: Option<(Message, Bytes)>,
    /// Consensus frames taken since bulk had its turn.
    in_a_row: u32,
}

enum Event {
    Control(Control),
    Net(NetEvent),
    Bulk(NetEvent),
    /// A timer or the tick is due.
    Due,
    /// The network has ended.
    Closed,
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
        let mut next_tick = Instant::now() + TICK;
        loop {
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.step(Input::Tick)?;
                continue;
            }
            if let Some(Reverse((due, id))) = self.timers.peek().copied()
                && due <= now
            {
                self.timers.pop();
                self.step(Input::Timer(id))?;
                continue;
            }
            let deadline = self.timers.peek().map_or(next_tick, |Reverse((due, _))| (*due).min(next_tick));
            match self.wait(deadline) {
                // Peers come and go with their consensus connection, not with this one.
                Event::Due | Event::Bulk(NetEvent::PeerUp(_) | NetEvent::PeerDown(_)) => {}
                Event::Net(event) | Event::Bulk(event) => self.receive(event)?,
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

    /// The next event, or `Due` at `deadline`.
    fn wait(&mut self, deadline: Instant) -> Event {
        // Most often something waits already, and no timer need be made.
        if let Ok(control) = self.controls.try_recv() {
            return Event::Control(control);
        }
        if self.in_a_row < IN_A_ROW
            && let Ok(event) = self.links.consensus.try_recv()
        {
            self.in_a_row += 1;
            return Event::Net(event);
        }
        self.in_a_row = 0;
        if let Ok(event) = self.links.bulk.try_recv() {
            return Event::Bulk(event);
        }
        let Self { controls, links, runtime, .. } = self;
        let next = async {
            tokio::select! {
                biased;
                control = controls.recv() => control.map_or(Event::Closed, Event::Control),
                event = links.consensus.recv() => event.map_or(Event::Closed, Event::Net),
                event = links.bulk.recv() => event.map_or(Event::Closed, Event::Bulk),
            }
        };
        runtime.block_on(async { timeout_at(deadline.into(), next).await.unwrap_or(Event::Due) })
    }

    fn receive(&mut self, event: NetEvent) -> Result<(), Fatal> {
        match event {
            NetEvent::PeerUp(peer) => self.step(Input::PeerUp(peer)),
            NetEvent::PeerDown(peer) => self.step(Input::PeerDown(peer)),
            NetEvent::Frame(frame) => match Message::from_bytes(&frame.bytes) {
                Ok(message) => self.step(Input::Received { from: frame.peer, message }),
                Err(error) => {
                    self.links.metrics.malformed.inc();
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
        self.links.metrics.step.observe(took.as_secs_f64());
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
                    if let Err(error) = self.links.net.send(&to, class, bytes) {
                        self.links.metrics.dropped(class);
                        debug!(peer = %to, class = class.name(), %error, "message dropped");
                    }
                }
                Output::SetTimer { id, after } => {
                    self.timers.push(Reverse((Instant::now() + after, id)));
                }
                Output::Decided { height, id, time_ms } => debug!(height, %id, time_ms, "final"),
                Output::Misbehaved { peer, reason } => {
                    self.links.metrics.misbehaved(reason);
                    warn!(%peer, reason = reason.label(), "peer misbehaved");
                }
                Output::Evidence(evidence) => {
                    self.links.metrics.evidence.inc();
                    warn!(?evidence, "a validator signed twice");
                }
            }
        }
        // Do not hold a block's part in memory until the next message.
        self.encoded = None;
    }
}
