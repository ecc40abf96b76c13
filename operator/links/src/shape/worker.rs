//! What the shaping thread does.

use std::{
    collections::HashMap,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        prctl,
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt,
            socket, sockopt,
        },
        time::TimeSpec,
    },
};

use super::{
    hold::Inlet,
    link::{Fate, Link},
    queue::{Queues, Ticket},
    random::Stream,
    rules::{COPY_MARK, Ports, Rules, Way},
    schedule::Schedule,
    shaper::{Answer, Command, Inbox, LinkReport, ShapeError, ShapeOptions, ShapeReport},
    state::{LinkEntry, Share},
    system,
    table::{LinkChange, LinkTable, Pair},
    timed,
};
use crate::model::Rect;

/// Queues of each kind: links spread over them, so that one that is full starves few others.
const QUEUES_PER_KIND: u16 = 32;
/// A packet leaves so much before its time rather than cost another wake-up.
const EARLY: u64 = 20_000;
/// Batches read before others get their turn.
const BATCHES: usize = 4;
/// The gate is renewed so often within its time.
const RENEWALS: u32 = 8;
/// The kernel's own granularity leaves no room for less.
const SHORTEST_GATE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Shaped {
    pair: Pair,
    number: u32,
    link: Link,
}

impl Shaped {
    fn new(link: &LinkEntry, seed: u64) -> Self {
        let stream = Stream::new(seed, link.number);
        Self { pair: link.pair(), number: link.number, link: Link::new(link.state, stream) }
    }

    fn entry(&self) -> LinkEntry {
        let (from, to) = self.pair;
        LinkEntry { from, to, number: self.number, state: self.link.state() }
    }
}

/// A packet that waits for its time.
#[derive(Debug)]
struct Held {
    link: usize,
    era: u32,
    ticket: Ticket,
    /// What the packet becomes, when it is corrupted.
    altered: Option<Box<[u8]>>,
    /// What is sent beside it, when it is duplicated.
    copy: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) struct Worker {
    options: ShapeOptions,
    queues: Queues,
    rules: Rules,
    /// Where probes come out; none: somebody else takes them.
    inlet: Option<Inlet>,
    /// For second copies; without it nothing is duplicated.
    raw: Option<OwnedFd>,
    /// Places stay: what is held names them.
    links: Vec<Shaped>,
    places: HashMap<Pair, usize>,
    table: LinkTable,
    /// Whether it is in force: the last change of it did not break off.
    is_in_force: bool,
    /// When the faults' lease ends; `None`: there are none.
    faults_until: Option<Instant>,
    cuts: Vec<Rect>,
    schedule: Schedule<Held>,
    started: Instant,
    gate_renewed: Instant,
    report: ShapeReport,
    copy_failures: u64,
}

impl Worker {
    pub(super) fn open(options: ShapeOptions, inlet: Option<Inlet>) -> Result<Self, ShapeError> {
        let options = ShapeOptions { gate: options.gate.max(SHORTEST_GATE), ..options };
        let gso = options.first_queue..options.first_queue + QUEUES_PER_KIND;
        let exact: Range<u16> = gso.end..gso.end + QUEUES_PER_KIND;
        let queues = Queues::open(gso.clone(), exact.clone())?;
        let ports = Ports { peer: options.ports, timed: options.timed };
        let rules = Rules::open(ports, &gso, &exact).map_err(|source| ShapeError::Rules {
            what: "make the rules that queue packets (the kernel needs NFT_QUEUE, or NFT_COMPAT with the target NFQUEUE)",
            source,
        })?;
        let now = Instant::now();
        let mut worker = Self {
            options,
            queues,
            rules,
            inlet,
            raw: None,
            links: Vec::new(),
            places: HashMap::new(),
            table: LinkTable::default(),
            is_in_force: true,
            faults_until: None,
            cuts: Vec::new(),
            schedule: Schedule::new(),
            started: now,
            gate_renewed: now,
            report: ShapeReport { rules_intact: true, ..ShapeReport::default() },
            copy_failures: 0,
        };
        worker.raw = raw_socket().ok();
        worker.renew_gate(now)?;
        Ok(worker)
    }

    /// Works until the handle is gone.
    pub(super) fn run(&mut self, inbox: &Inbox) -> Result<(), ShapeError> {
        // A thread that may not run first is a little later under load, no more.
        self.report.in_time = system::run_in_time().or_else(|_| system::run_soon()).is_ok();
        // Of no use to a real-time thread, which has none.
        prctl::set_timerslack(1).ok();
        loop {
            let now = Instant::now();
            // Before any order: one that waited while this process was stopped must not renew what has ended in between.
            self.end_faults(now)?;
            while let Some((command, reply)) = match inbox.next() {
                Ok(order) => order,
                Err(_) => return Ok(()),
            } {
                // Whoever asked may have given up.
                reply.try_send(self.answer(command)).ok();
            }
            if now >= self.gate_renewed + self.options.gate / RENEWALS {
                self.renew_gate(now)?;
            }
            self.release_due();
            self.queues.flush();
            // What was let go is in its socket by now.
            if let Some(inlet) = &mut self.inlet {
                inlet.take();
            }
            if self.wait(inbox) {
                self.admit_all()?;
            }
        }
    }

    fn nanoseconds(&self) -> u64 {
        self.since_start(Instant::now())
    }

    fn since_start(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.started).as_nanos() as u64
    }

    /// Waits for packets, orders or the time; `true` when there are packets.
    fn wait(&self, inbox: &Inbox) -> bool {
        let now = self.nanoseconds();
        let mut next = self.since_start(self.gate_renewed + self.options.gate / RENEWALS);
        if let Some(at) = self.schedule.next() {
            next = next.min(at.saturating_sub(EARLY / 2));
        }
        if let Some(until) = self.faults_until {
            next = next.min(self.since_start(until));
        }
        let timeout = TimeSpec::from_duration(Duration::from_nanos(next.saturating_sub(now)));
        let mut fds = vec![
            PollFd::new(self.queues.as_fd(), PollFlags::POLLIN),
            PollFd::new(inbox.woken.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.inlet.as_ref().map(|inlet| PollFd::new(inlet.as_fd(), PollFlags::POLLIN)));
        // An interrupted wait is an early one.
        let is_ready = matches!(ppoll(&mut fds, Some(timeout), None), Ok(ready) if ready > 0);
        if is_ready && fds[1].any().unwrap_or(true) {
            inbox.calm();
        }
        is_ready && fds[0].any().unwrap_or(true)
    }

    fn admit_all(&mut self) -> Result<(), ShapeError> {
        for _ in 0..BATCHES {
            let more = self.queues.receive().map_err(ShapeError::Thread)?;
            let now = self.nanoseconds();
            for index in 0..self.queues.received() {
                self.admit(index, now);
            }
            self.queues.flush();
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn admit(&mut self, index: usize, now: u64) {
        let Some(packet) = self.queues.packet(index) else { return };
        let ticket = packet.ticket;
        let header = timed::header(packet.payload, self.options.timed);
        let place = header.and_then(|header| self.places.get(&(header.from, header.to)).copied());
        // Of a link that is shaped no longer.
        let (Some(header), Some(place)) = (header, place) else { return self.queues.accept(ticket, None) };
        let link = &mut self.links[place].link;
        match link.admit(header.arrival, packet.length, now) {
            Fate::Drop(_) => self.queues.drop(ticket),
            Fate::Leave { at, duplicate, corrupt } => {
                let whole = packet.payload.len() == packet.length;
                let copy = (duplicate && whole).then(|| packet.payload.into());
                let altered =
                    corrupt.filter(|_| whole).and_then(|draw| flipped(packet.payload, header.length, draw));
                let held = Held { link: place, era: link.era(), ticket, altered, copy };
                if at <= now + EARLY {
                    self.release(held);
                } else {
                    self.schedule.push(at, held);
                }
            }
        }
    }

    fn release_due(&mut self) {
        let now = self.nanoseconds();
        while let Some(held) = self.schedule.pop_due(now + EARLY) {
            self.release(held);
        }
    }

    fn release(&mut self, held: Held) {
        let shaped = &mut self.links[held.link];
        if !shaped.link.release(held.era) {
            return self.queues.drop(held.ticket);
        }
        self.queues.accept(held.ticket, held.altered.as_deref());
        if let Some(copy) = held.copy {
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(shaped.pair.1, 0));
            let sent =
                self.raw.as_ref().map(|raw| sendto(raw.as_raw_fd(), &copy, &to, MsgFlags::MSG_DONTWAIT));
            self.copy_failures += u64::from(!matches!(sent, Some(Ok(_))));
        }
    }

    fn answer(&mut self, command: Command) -> Result<Answer, ShapeError> {
        match command {
            Command::Set(table) => self.set(table)?,
            Command::Renew(lease) => {
                if self.faults_until.is_some() {
                    self.faults_until = Some(Instant::now() + lease);
                }
            }
            Command::Cut(rects) => {
                self.cuts = rects;
                self.follow_cuts();
            }
            Command::Report => return self.report().map(|report| Answer::Report(Box::new(report))),
        }
        Ok(Answer::Done)
    }

    fn set(&mut self, table: LinkTable) -> Result<(), ShapeError> {
        for change in self.changes_to(&table) {
            change.after.as_ref().map_or(Ok(()), check)?;
        }
        let until = (!table.faulted().is_empty()).then(|| Instant::now() + table.lease());
        self.apply(table)?;
        self.faults_until = until;
        self.report.lease_ended = false;
        Ok(())
    }

    /// Goes back to the base when nobody has renewed the faults.
    fn end_faults(&mut self, now: Instant) -> Result<(), ShapeError> {
        if self.faults_until.is_some_and(|until| now >= until) {
            self.faults_until = None;
            self.report.lease_ended = true;
            return self.apply(self.table.without_faults());
        }
        Ok(())
    }

    /// What a table asks that is not so yet. When nobody knows what is so, that is everything.
    fn changes_to(&self, table: &LinkTable) -> Vec<LinkChange> {
        if self.is_in_force {
            return table.changes_since(&self.table);
        }
        let wanted = table.effective().map(|link| LinkChange { before: None, after: Some(link) });
        let known = self.links.iter().map(|shaped| LinkChange { before: Some(shaped.entry()), after: None });
        known.chain(wanted).collect()
    }

    /// Links first, rules last when a link begins to be shaped; the other way round a packet would come to no link.
    fn apply(&mut self, table: LinkTable) -> Result<(), ShapeError> {
        let changes = self.changes_to(&table);
        let same_seed = self.table.seed() == table.seed();
        self.is_in_force = false;
        let mut ways = HashMap::new();
        for LinkChange { before, after } in changes {
            let Some(pair) = after.or(before).map(|link| link.pair()) else { continue };
            let state = after.map(|link| link.state).unwrap_or_default();
            match (self.places.get(&pair).copied(), after) {
                (Some(place), Some(link)) if self.links[place].number != link.number || !same_seed => {
                    // Held packets of another link at this place leave as if they were this one's.
                    self.links[place] = Shaped::new(&link, table.seed());
                }
                (Some(place), _) => self.links[place].link.set_state(state),
                (None, Some(link)) => {
                    self.places.insert(pair, self.links.len());
                    self.links.push(Shaped::new(&link, table.seed()));
                }
                (None, None) => {}
            }
            let way = if state.is_exact() { Way::Exact } else { Way::Gso };
            ways.insert(pair, (!state.is_clear()).then_some(way));
        }
        self.follow_cuts();
        let ways: Vec<(Pair, Option<Way>)> = ways.into_iter().collect();
        self.rules
            .set(&ways)
            .map_err(|source| ShapeError::Rules { what: "set which links are queued", source })?;
        self.table = table;
        self.is_in_force = true;
        Ok(())
    }

    fn follow_cuts(&mut self) {
        for shaped in &mut self.links {
            let (from, to) = shaped.pair;
            shaped.link.set_cut(self.cuts.iter().any(|rect| rect.covers(from, to)));
        }
    }

    fn renew_gate(&mut self, now: Instant) -> Result<(), ShapeError> {
        let any = self.links.iter().any(|shaped| !shaped.link.state().is_clear());
        let late = now.saturating_duration_since(self.gate_renewed + self.options.gate);
        if late > Duration::ZERO && any {
            self.report.lapses += 1;
            let lapse = late.as_millis() as u64;
            self.report.longest_lapse_ms = self.report.longest_lapse_ms.max(lapse);
        }
        self.rules
            .renew(self.options.gate)
            .map_err(|source| ShapeError::Rules { what: "renew the gate of the packet queue", source })?;
        self.gate_renewed = now;
        Ok(())
    }

    fn report(&mut self) -> Result<ShapeReport, ShapeError> {
        let losses = self.queues.losses().map_err(ShapeError::Thread)?;
        let intact = self
            .rules
            .are_intact()
            .map_err(|source| ShapeError::Rules { what: "read the rules that queue packets", source })?;
        let report = |shaped: &Shaped| LinkReport {
            from: shaped.pair.0,
            to: shaped.pair.1,
            number: shaped.number,
            state: shaped.link.state(),
            counters: shaped.link.counters(),
        };
        self.report.rules_intact &= intact;
        Ok(ShapeReport {
            links: self.links.iter().map(report).collect(),
            held: self.schedule.len(),
            queue_losses: losses.queue,
            buffer_losses: losses.buffer,
            failures: self.queues.refused() + self.copy_failures,
            missed: self.inlet.as_ref().map_or(0, Inlet::missed),
            problems: self.problems(),
            ..self.report.clone()
        })
    }

    fn problems(&self) -> Vec<String> {
        let duplicates = |shaped: &Shaped| shaped.link.state().duplicate != Share::NONE;
        let cannot = self.raw.is_none() && self.links.iter().any(duplicates);
        let sentence = "no packet can be duplicated: the link agent has no raw socket (CAP_NET_RAW)";
        cannot.then(|| sentence.to_owned()).into_iter().collect()
    }
}

fn check(entry: &LinkEntry) -> Result<(), ShapeError> {
    const LONGEST: Duration = Duration::from_mins(1);
    let wrong = |problem| Err(ShapeError::Link { from: entry.from, to: entry.to, problem });
    if entry.from == entry.to {
        return wrong("joins an address with itself");
    }
    if entry.state.latency > LONGEST || entry.state.jitter > LONGEST {
        return wrong("is to be slower than a minute");
    }
    if entry.state.rate == Some(0) {
        return wrong("is to carry nothing: cut it");
    }
    Ok(())
}

/// The packet with one bit of what the network layer carries turned round; `None` when it carries nothing.
fn flipped(packet: &[u8], header: usize, draw: u64) -> Option<Box<[u8]>> {
    let bits = packet.len().checked_sub(header)? as u64 * 8;
    let bit = draw.checked_rem(bits)?;
    let mut altered: Box<[u8]> = packet.into();
    altered[header + (bit / 8) as usize] ^= 1 << (bit % 8);
    Some(altered)
}

fn raw_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw)?;
    setsockopt(&fd, sockopt::Mark, &COPY_MARK)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::shape::LinkState;

    #[test]
    fn one_bit_behind_the_header_is_flipped() {
        let packet = [0u8; 28];
        for draw in [0, 63, 64, u64::MAX] {
            let altered = flipped(&packet, 20, draw).unwrap();
            assert_eq!(altered[..20], packet[..20]);
            assert_eq!(altered.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        }
        assert_eq!(flipped(&packet, 28, 1), None);
        assert_eq!(flipped(&packet, 40, 1), None);
    }

    #[test]
    fn links_that_cannot_be_meant_are_refused() {
        let entry = |state| LinkEntry {
            from: Ipv4Addr::new(10, 0, 0, 1),
            to: Ipv4Addr::new(10, 0, 0, 2),
            number: 1,
            state,
        };
        check(&entry(LinkState::default())).unwrap();
        check(&entry(LinkState { rate: Some(0), ..LinkState::default() })).unwrap_err();
        check(&entry(LinkState { latency: Duration::from_secs(61), ..LinkState::default() })).unwrap_err();
        let own = entry(LinkState::default());
        check(&LinkEntry { to: own.from, ..own }).unwrap_err();
    }
}
