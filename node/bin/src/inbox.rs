//! What waits for the engine, and whose turn it is: control first, then a due timer and what arrived by turns, of that
//! consensus before bulk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use netsplit_bft::TimerId;
use netsplit_net::NetEvent;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use crate::engine::Control;

const TICK: Duration = Duration::from_secs(1);
/// Consensus frames after which one of bulk is taken, if there is one: value sync must not starve.
const IN_A_ROW: u32 = 16;

#[derive(Debug)]
pub(crate) enum Event {
    Control(Control),
    Consensus(NetEvent),
    Bulk(NetEvent),
    Timer(TimerId),
    Tick,
    /// The network or whoever controls the engine has ended.
    Closed,
}

pub(crate) struct Inbox {
    controls: mpsc::Receiver<Control>,
    consensus: mpsc::Receiver<NetEvent>,
    bulk: mpsc::Receiver<NetEvent>,
    runtime: Handle,
    timers: BinaryHeap<Reverse<(Instant, TimerId)>>,
    next_tick: Instant,
    /// The last event was the clock's. An engine that asks to go on at once, as while it applies blocks of value sync, must
    /// not keep out what arrives meanwhile.
    clock_was_last: bool,
    /// Consensus frames taken since bulk had its turn.
    in_a_row: u32,
}

impl Inbox {
    pub(crate) fn new(
        controls: mpsc::Receiver<Control>,
        consensus: mpsc::Receiver<NetEvent>,
        bulk: mpsc::Receiver<NetEvent>,
        runtime: Handle,
    ) -> Self {
        Self {
            controls,
            consensus,
            bulk,
            runtime,
            timers: BinaryHeap::new(),
            next_tick: Instant::now() + TICK,
            clock_was_last: false,
            in_a_row: 0,
        }
    }

    pub(crate) fn set_timer(&mut self, id: TimerId, after: Duration) {
        self.timers.push(Reverse((Instant::now() + after, id)));
    }

    /// The next event. Blocks the thread until there is one.
    pub(crate) fn next(&mut self) -> Event {
        loop {
            if let Ok(control) = self.controls.try_recv() {
                return Event::Control(control);
            }
            let clock_has_turn = !std::mem::take(&mut self.clock_was_last);
            if clock_has_turn && let Some(event) = self.due() {
                self.clock_was_last = true;
                return event;
            }
            if let Some(event) = self.arrived() {
                return event;
            }
            if let Some(event) = self.wait() {
                return event;
            }
        }
    }

    fn due(&mut self) -> Option<Event> {
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            return Some(Event::Tick);
        }
        self.timers.peek().filter(|Reverse((due, _))| *due <= now)?;
        self.timers.pop().map(|Reverse((_, id))| Event::Timer(id))
    }

    fn arrived(&mut self) -> Option<Event> {
        if self.in_a_row < IN_A_ROW
            && let Ok(event) = self.consensus.try_recv()
        {
            self.in_a_row += 1;
            return Some(Event::Consensus(event));
        }
        self.in_a_row = 0;
        self.bulk.try_recv().ok().map(Event::Bulk)
    }

    /// What comes first, or nothing when a timer is due before.
    fn wait(&mut self) -> Option<Event> {
        let deadline =
            self.timers.peek().map_or(self.next_tick, |Reverse((due, _))| self.next_tick.min(*due));
        // Without work and without a timer of the runtime.
        if deadline <= Instant::now() {
            return None;
        }
        let Self { controls, consensus, bulk, runtime, .. } = self;
        let first = async {
            tokio::select! {
                biased;
                control = controls.recv() => control.map_or(Event::Closed, Event::Control),
                event = consensus.recv() => event.map_or(Event::Closed, Event::Consensus),
                event = bulk.recv() => event.map_or(Event::Closed, Event::Bulk),
            }
        };
        runtime.block_on(async { timeout_at(deadline.into(), first).await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use netsplit_core::SecretKey;

    use super::*;

    fn peer(byte: u8) -> NetEvent {
        NetEvent::PeerUp(SecretKey::from_seed([byte; 32]).public())
    }

    struct Ends {
        _runtime: tokio::runtime::Runtime,
        controls: mpsc::Sender<Control>,
        consensus: mpsc::Sender<NetEvent>,
        bulk: mpsc::Sender<NetEvent>,
    }

    fn inbox() -> (Inbox, Ends) {
        // Only a runtime with threads of its own drives timers for others.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (controls, control_queue) = mpsc::channel(64);
        let (consensus, consensus_queue) = mpsc::channel(64);
        let (bulk, bulk_queue) = mpsc::channel(64);
        let inbox = Inbox::new(control_queue, consensus_queue, bulk_queue, runtime.handle().clone());
        (inbox, Ends { _runtime: runtime, controls, consensus, bulk })
    }

    /// A step of value sync asks for the next one at once, as long as there are blocks.
    #[test]
    fn what_arrives_has_its_turn_beside_a_timer_that_is_always_due() {
        let (mut inbox, ends) = inbox();
        for byte in 0..8 {
            ends.consensus.try_send(peer(byte)).unwrap();
        }
        let mut timers = 0;
        let mut frames = 0;
        inbox.set_timer(TimerId(0), Duration::ZERO);
        for _ in 0..16 {
            match inbox.next() {
                Event::Timer(TimerId(id)) => {
                    timers += 1;
                    inbox.set_timer(TimerId(id + 1), Duration::ZERO);
                }
                Event::Consensus(_) => frames += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((timers, frames), (8, 8));
        ends.controls.try_send(Control::Stop).unwrap();
        assert!(matches!(inbox.next(), Event::Control(Control::Stop)), "control comes before all");
    }

    #[test]
    fn bulk_has_its_turn_beside_much_consensus() {
        let (mut inbox, ends) = inbox();
        ends.bulk.try_send(peer(1)).unwrap();
        for _ in 0..32 {
            ends.consensus.try_send(peer(2)).unwrap();
        }
        let place = (0..33).position(|_| matches!(inbox.next(), Event::Bulk(_)));
        assert_eq!(place, Some(16));
    }

    #[test]
    fn timers_come_in_order_and_the_end_is_told() {
        let (mut inbox, ends) = inbox();
        inbox.set_timer(TimerId(2), Duration::from_millis(20));
        inbox.set_timer(TimerId(1), Duration::from_millis(10));
        assert!(matches!(inbox.next(), Event::Timer(TimerId(1))));
        assert!(matches!(inbox.next(), Event::Timer(TimerId(2))));
        drop(ends.controls);
        assert!(matches!(inbox.next(), Event::Closed));
    }
}
