//! A namespace whose loopback carries the links, and packets that tell how long they took.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use netsplit_links::shape::{LinkEntry, LinkState, LinkTable, ShapeOptions, Shaper};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
    unistd::{getegid, geteuid},
};

/// How long anything that must happen may take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
pub(crate) const C: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
const PEER: u16 = 26_600;

/// Puts this process, which has no other thread yet, into a namespace with nothing but loopback.
pub(crate) fn enter(mode: &str) {
    if mode == "root" {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
    } else {
        let (user, group) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {user} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("0 {group} 1")).unwrap();
    }
    bring_up_loopback();
}

/// One `RTM_NEWLINK`: interface 1, up.
fn bring_up_loopback() {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), SockProtocol::NetlinkRoute).unwrap();
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes());
    message.extend(16u16.to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0, 0, 0, 0]);
    for word in [1u32, 1, 1] {
        message.extend(word.to_ne_bytes());
    }
    send(fd.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
    let mut answer = [0; 256];
    recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    assert_eq!(answer[16..20], [0; 4], "loopback does not come up");
}

pub(crate) fn entry(from: Ipv4Addr, to: Ipv4Addr, state: LinkState) -> LinkEntry {
    let number = u32::from(from.octets()[3]) << 8 | u32::from(to.octets()[3]);
    LinkEntry { from, to, number, state }
}

pub(crate) fn table(base: Vec<LinkEntry>) -> LinkTable {
    LinkTable::new(7, base, Vec::new(), Duration::ZERO)
}

pub(crate) fn latency(ms: u64) -> LinkState {
    LinkState { latency: Duration::from_millis(ms), ..LinkState::default() }
}

pub(crate) fn shaper(links: LinkTable) -> Shaper {
    let shaper = Shaper::start(ShapeOptions::default()).unwrap();
    shaper.set(links).unwrap();
    shaper
}

/// One packet as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    pub(crate) number: u32,
    pub(crate) took: Duration,
}

/// Sends numbered packets over one link and notes which come, and when.
pub(crate) struct Meter {
    sender: UdpSocket,
    to: Ipv4Addr,
    started: Instant,
    came: Arc<Mutex<Vec<Came>>>,
    end: Arc<AtomicBool>,
    receiver: Option<JoinHandle<()>>,
    next: u32,
}

impl Meter {
    pub(crate) fn new(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((to, PEER)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let wanted = 8 << 20;
        if setsockopt(&socket, sockopt::RcvBufForce, &wanted).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &wanted).unwrap();
        }
        let started = Instant::now();
        let came = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(AtomicBool::new(false));
        let (all, ended) = (Arc::clone(&came), Arc::clone(&end));
        let receiver = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                let now = started.elapsed();
                assert!(length >= 12);
                let sent = Duration::from_nanos(u64::from_be_bytes(buffer[4..12].try_into().unwrap()));
                let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                all.lock().unwrap().push(Came { number, took: now.saturating_sub(sent) });
            }
        });
        let sender = UdpSocket::bind((from, 0)).unwrap();
        Self { sender, to, started, came, end, receiver: Some(receiver), next: 0 }
    }

    /// Sends one packet with `length` bytes of payload.
    pub(crate) fn send(&mut self, length: usize) {
        let mut packet = vec![0; length.max(12)];
        packet[..4].copy_from_slice(&self.next.to_be_bytes());
        packet[4..12].copy_from_slice(&(self.started.elapsed().as_nanos() as u64).to_be_bytes());
        self.next += 1;
        self.sender.send_to(&packet, (self.to, PEER)).unwrap();
    }

    /// Sends `count` packets, one each `gap`.
    pub(crate) fn pace(&mut self, count: u32, gap: Duration, length: usize) {
        let start = Instant::now();
        for number in 0..count {
            pause_until(start + gap * number);
            self.send(length);
        }
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// Waits until so many packets have come.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Came> {
        until("all packets come", || self.came.lock().unwrap().len() >= count);
        self.came()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(receiver) = self.receiver.take()
            && receiver.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the receiver failed");
        }
    }
}

pub(crate) fn pause_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The middle of all times.
pub(crate) fn median(came: &[Came]) -> Duration {
    let mut times: Vec<Duration> = came.iter().map(|came| came.took).collect();
    times.sort();
    times[times.len() / 2]
}

/// A shaper in a process of its own: 100 ms from A to B, until its input is closed.
pub(crate) fn agent(gate_ms: &str) {
    let gate = Duration::from_millis(gate_ms.parse().unwrap());
    let shaper = Shaper::start(ShapeOptions { gate, ..ShapeOptions::default() }).unwrap();
    shaper.set(table(vec![entry(A, B, latency(100))])).unwrap();
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
}

pub(crate) fn spawn_agent(gate: Duration) -> Child {
    let mut child = Command::new("/proc/self/exe")
        .args(["agent", &gate.as_millis().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}
