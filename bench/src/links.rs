//! Shaped links, through the backend as the command line makes them: how exact they are, what they carry, what they cost.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use netsplit_backend::{Backend as _, LinkRequest, LinkState, LinksRequest, Share};
use netsplit_e2e::BusyLoops;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    inside::{self, inside, now_ns, udp_at},
    lab::processor_seconds,
    report::{Goal, Row, ms, quantile},
    sleepers::{Place, Sleepers},
};

const PEER_PORT: u16 = 26600;
const MANY: usize = 100;
const LATENCY: Duration = Duration::from_millis(20);
/// Datagrams a second while the error of a delay is measured.
const RATE: u32 = 1_000;
/// A TCP flow grows for so long; then what the link carries is what it carries.
const GROWTH: Duration = Duration::from_secs(1);
/// So much that a link is never what limits: it is queued, and let go at once.
const UNLIMITED: u64 = 1_000_000_000_000;
const LEASE: Duration = Duration::from_mins(10);
/// Longer than a wrong link may stay unnoticed.
const PATIENCE: Duration = Duration::from_mins(4);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of each stream of datagrams, and of each TCP flow.
    pub stream: Duration,
    pub flows: usize,
    pub changes: usize,
    /// How long the cost of probing is watched.
    pub watch: Duration,
}

impl Plan {
    pub const FULL: Self =
        Self { stream: Duration::from_secs(20), flows: 3, changes: 11, watch: Duration::from_mins(1) };
    pub const QUICK: Self =
        Self { stream: Duration::from_secs(5), flows: 1, changes: 5, watch: Duration::from_secs(15) };
}

pub async fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows = delay_errors(plan, false).await;
    rows.extend(delay_errors(plan, true).await);
    rows.extend(flows(plan).await);
    rows.extend(matrix(plan).await);
    rows
}

fn name(what: &str) -> String {
    let name = format!("links: {what}");
    crate::measures::progress(&name);
    name
}

fn request(base: Vec<LinkRequest>) -> LinksRequest {
    LinksRequest { seed: 7, base: base.into(), faulted: Vec::new(), lease: LEASE }
}

fn link(from: usize, to: usize, state: LinkState) -> LinkRequest {
    LinkRequest { from: format!("n{from}"), to: format!("n{to}"), number: (from * MANY + to) as u32, state }
}

// === How exact a delay is ===

async fn delay_errors(plan: &Plan, busy: bool) -> Vec<Row> {
    let beside = if busy { "beside two busy loops" } else { "idle" };
    let name = name(&format!("error of 20 ms at {RATE} datagrams/s, {beside}"));
    let goals = [(0.5, 0.2), (0.95, 1.0), (0.99, 2.0)];
    let rows =
        goals.map(|(share, goal)| Row::new(&format!("{name}, p{}", share * 100.0), "ms", Goal::AtMost, goal));
    let measured = {
        let _loops = busy.then(BusyLoops::start);
        errors_of_a_delay(plan.stream).await
    };
    match measured {
        Ok(errors) => {
            let shares = goals.map(|(share, _)| quantile(&errors, share).into_iter().collect());
            rows.into_iter().zip(shares).map(|(row, share)| row.median_of(share)).collect()
        }
        Err(error) => rows.map(|row| row.failed(&error)).into(),
    }
}

/// In milliseconds, of each datagram.
async fn errors_of_a_delay(lasts: Duration) -> Result<Vec<f64>> {
    let sleepers = Sleepers::start(2).await?;
    let state = LinkState { latency: LATENCY, ..LinkState::default() };
    sleepers.backend.set_links(request(vec![link(0, 1, state)])).await?;
    let places = sleepers.places().await?;
    let errors = tokio::task::spawn_blocking(move || stream(&places, lasts)).await??;
    sleepers.backend.stop().await?;
    Ok(errors)
}

fn stream(places: &[Place], lasts: Duration) -> Result<Vec<f64>> {
    let [from, to] = places else { return Err(anyhow!("two nodes were started")) };
    let there = SocketAddr::new(to.address, PEER_PORT);
    let sender = udp_at(from.pid, SocketAddr::new(from.address, PEER_PORT))?;
    let receiver = udp_at(to.pid, there)?;
    let stop = Arc::new(AtomicBool::new(false));
    let taken = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || take(&receiver, &stop))
    };
    let count = lasts.as_secs() * u64::from(RATE);
    let began = Instant::now();
    for number in 0..count {
        let due = began + Duration::from_secs(1) * number as u32 / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sender.send_to(&now_ns()?.to_be_bytes(), there).context("cannot send a datagram")?;
    }
    thread::sleep(2 * LATENCY + Duration::from_millis(200));
    stop.store(true, Ordering::Relaxed);
    let ways = taken.join().map_err(|_| anyhow!("the receiving thread panicked"))??;
    ensure!(ways.len() as u64 == count, "{} of {count} datagrams came", ways.len());
    Ok(ways.into_iter().map(|way| (way - LATENCY.as_secs_f64() * 1e3).abs()).collect())
}

/// How long each datagram was on its way, in milliseconds.
fn take(socket: &UdpSocket, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut ways = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::from(100u8)).context("cannot wait for datagrams")?;
        while let Some((sent, came)) = inside::receive::<8>(socket) {
            ways.push((came as f64 - u64::from_be_bytes(sent) as f64) / 1e6);
        }
    }
    Ok(ways)
}

// === What a link carries ===

/// What one TCP flow reached.
struct Flow {
    gbit_per_second: f64,
    agent_seconds_per_gbit: f64,
}

async fn flows(plan: &Plan) -> Vec<Row> {
    let exact = Share::millionths(1_000);
    let slow = LinkState { latency: LATENCY, ..LinkState::default() };
    let kinds = [
        ("0 ms", LinkState { rate: Some(UNLIMITED), ..LinkState::default() }, 10.0),
        ("20 ms one way", slow, 0.6),
        // A figure to know; no bound is set.
        ("20 ms one way, 0.1 % loss", LinkState { loss: exact, ..slow }, 0.0),
    ];
    let mut rows = Vec::new();
    for (what, state, goal) in kinds {
        let what = name(&format!("one TCP flow after its first second, {what}"));
        let rate = Row::new(&what, "Gbit/s", Goal::AtLeast, goal);
        let cost = (state.latency == Duration::ZERO).then(|| {
            Row::new("links: processor time of the agent for a Gbit, 0 ms", "s", Goal::AtMost, 0.03)
        });
        let mut measured = Ok(Vec::new());
        for _ in 0..plan.flows {
            match (flow(state, GROWTH + plan.stream.min(Duration::from_secs(4))).await, &mut measured) {
                (Ok(flow), Ok(flows)) => flows.push(flow),
                (Err(error), _) => measured = Err(error),
                (Ok(_), Err(_)) => {}
            }
        }
        match measured {
            Ok(flows) => {
                rows.push(rate.median_of(flows.iter().map(|flow| flow.gbit_per_second).collect()));
                let costs = flows.iter().map(|flow| flow.agent_seconds_per_gbit).collect();
                rows.extend(cost.map(|row| row.median_of(costs)));
            }
            Err(error) => rows.extend([Some(rate), cost].into_iter().flatten().map(|row| row.failed(&error))),
        }
    }
    rows
}

async fn flow(state: LinkState, lasts: Duration) -> Result<Flow> {
    let sleepers = Sleepers::start(2).await?;
    sleepers.backend.set_links(request(vec![link(0, 1, state), link(1, 0, state)])).await?;
    let places = sleepers.places().await?;
    let agent = sleepers.backend.agent_pid().await?.context("there is no link agent")?;
    let (bytes, seconds, used) =
        tokio::task::spawn_blocking(move || transfer(&places, lasts, agent)).await??;
    sleepers.backend.stop().await?;
    let gbit = bytes as f64 * 8.0 / 1e9;
    Ok(Flow { gbit_per_second: gbit / seconds, agent_seconds_per_gbit: used / gbit })
}

/// Bytes that arrived once the flow had grown, how long that took, and what the agent used meanwhile; in seconds.
fn transfer(places: &[Place], lasts: Duration, agent: u32) -> Result<(u64, f64, f64)> {
    let [from, to] = places else { return Err(anyhow!("two nodes were started")) };
    let there = SocketAddr::new(to.address, PEER_PORT);
    let listener = inside(to.pid, move || Ok(TcpListener::bind(there)?))?;
    let sender = inside(from.pid, move || Ok(TcpStream::connect_timeout(&there, Duration::from_secs(5))?))?;
    let (mut receiver, _) = listener.accept().context("nobody connects")?;
    let sending = thread::spawn(move || send_for(sender, lasts));
    receive(&mut receiver, Some(GROWTH))?;
    let (began, before) = (Instant::now(), processor_seconds(agent)?);
    let bytes = receive(&mut receiver, None)?;
    let (seconds, used) = (began.elapsed().as_secs_f64(), processor_seconds(agent)? - before);
    sending.join().map_err(|_| anyhow!("the sending thread panicked"))??;
    Ok((bytes, seconds, used))
}

fn send_for(mut stream: TcpStream, lasts: Duration) -> Result<()> {
    let buffer = vec![0; 1 << 18];
    let began = Instant::now();
    while began.elapsed() < lasts {
        stream.write_all(&buffer).context("the flow broke off")?;
    }
    Ok(())
}

/// For so long, or to the end.
fn receive(stream: &mut TcpStream, lasts: Option<Duration>) -> Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    let began = Instant::now();
    loop {
        if lasts.is_some_and(|lasts| began.elapsed() >= lasts) {
            return Ok(bytes);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the flow broke off"),
        }
    }
}

// === A matrix of a hundred nodes ===

async fn matrix(plan: &Plan) -> Vec<Row> {
    let apply = Row::new(&name("a matrix of 100 x 100 nodes applied"), "ms", Goal::AtMost, 50.0);
    let change = Row::new("links: one row of that matrix changed", "ms", Goal::AtMost, 5.0);
    let cost = Row::new("links: probing 9,900 links, share of one core", "%", Goal::AtMost, 5.0);
    let fault = Row::new("links: a wrong link of a fault noticed", "s", Goal::AtMost, 5.0);
    let any = Row::new("links: any wrong link of 9,900 noticed", "s", Goal::AtMost, 60.0);
    match measure_matrix(plan).await {
        Ok(seen) => vec![
            apply.median_of(vec![seen.apply]),
            change.median_of(seen.change),
            cost.median_of(vec![seen.cost]),
            fault.median_of(vec![seen.faulted]),
            any.median_of(vec![seen.any]),
        ],
        Err(error) => [apply, change, cost, fault, any].map(|row| row.failed(&error)).into(),
    }
}

struct Matrix {
    apply: f64,
    change: Vec<f64>,
    cost: f64,
    faulted: f64,
    any: f64,
}

/// No two links alike: from 10 to 110 ms.
fn latency(from: usize, to: usize, shift_ms: u64) -> LinkState {
    let micros = 10_000 + (from * 7_919 + to * 104_729) as u64 % 100_000;
    LinkState {
        latency: Duration::from_micros(micros) + Duration::from_millis(shift_ms),
        ..LinkState::default()
    }
}

fn all_links(changed_row: usize, shift_ms: u64) -> Vec<LinkRequest> {
    let ends = (0..MANY).flat_map(|from| (0..MANY).map(move |to| (from, to)));
    ends.filter(|(from, to)| from != to)
        .map(|(from, to)| link(from, to, latency(from, to, if from == changed_row { shift_ms } else { 0 })))
        .collect()
}

async fn measure_matrix(plan: &Plan) -> Result<Matrix> {
    let sleepers = Sleepers::start(MANY).await?;
    let backend = &sleepers.backend;
    let base = request(all_links(0, 0));
    let started = Instant::now();
    backend.set_links(base.clone()).await?;
    let apply = ms(started);
    let mut change = Vec::new();
    for round in 0..plan.changes {
        let row = all_links(round, 1).into_iter().filter(|link| link.from == sleepers.names[round]);
        let table = LinksRequest { faulted: row.collect(), ..base.clone() };
        let started = Instant::now();
        backend.set_links(table).await?;
        change.push(ms(started));
    }
    backend.set_links(base.clone()).await?;
    until_measured(&sleepers).await?;
    crate::measures::progress("links: what probing costs");
    let agent = backend.agent_pid().await?.context("there is no link agent")?;
    let before = processor_seconds(agent)?;
    tokio::time::sleep(plan.watch).await;
    let cost = (processor_seconds(agent)? - before) / plan.watch.as_secs_f64() * 100.0;
    crate::measures::progress("links: how soon a wrong one is noticed");
    let mut wrong = base;
    wrong.faulted.push(link(1, 2, latency(1, 2, 2)));
    let faulted = until_noticed(&sleepers, wrong, (1, 2)).await?;
    // Wired wrong from the start, so that nothing points at it.
    backend.set_links(request(Vec::new())).await?;
    let mut links = all_links(0, 0);
    let ends = (MANY - 3, MANY / 3);
    let number = link(ends.0, ends.1, LinkState::default()).number;
    let wrong = links.iter_mut().find(|link| link.number == number).context("there is such a link")?;
    wrong.state = latency(ends.0, ends.1, 2);
    let any = until_noticed(&sleepers, request(links), ends).await?;
    backend.stop().await?;
    Ok(Matrix { apply, change, cost, faulted, any })
}

/// Every link has told enough to be judged, and is no longer probed more often for that.
async fn until_measured(sleepers: &Sleepers) -> Result<()> {
    let started = Instant::now();
    loop {
        let seen = sleepers.backend.links().await?;
        ensure!(seen.faults.is_empty(), "the emulation has faults: {}", seen.faults.join("; "));
        if seen.links.len() == MANY * (MANY - 1) && seen.links.iter().all(|link| link.sent >= 30) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "not every link was measured");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// In seconds, from the wrong table to a measurement that says so.
async fn until_noticed(sleepers: &Sleepers, wrong: LinksRequest, (from, to): (usize, usize)) -> Result<f64> {
    let asked = latency(from, to, 0).latency.as_micros() as i64;
    let started = Instant::now();
    sleepers.backend.set_links(wrong).await?;
    loop {
        let seen = sleepers.backend.links().await?;
        let found =
            seen.links.iter().find(|link| link.from == sleepers.names[from] && link.to == sleepers.names[to]);
        let off = found.filter(|link| link.samples >= 25).and_then(|link| link.latency_us);
        if off.is_some_and(|measured| measured.abs_diff(asked) > 1_000) {
            return Ok(started.elapsed().as_secs_f64());
        }
        ensure!(started.elapsed() < PATIENCE, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
