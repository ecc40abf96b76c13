//! Which datagrams cross between two halves of a testnet's pods, and when: sent and received in the pods' own networks, past
//! the agents' word.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    inside::{receive, udp_at},
    sleepers::Place,
};

/// What the agents shape and cut; no node listens on it with UDP yet.
const PEER_PORT: u16 = 26600;
/// Each crossing pair is tried so often: what is measured is exact to this.
const EVERY: Duration = Duration::from_millis(20);
/// A round of all pairs is sent in so many bursts, so that the machine is not asked for all of them at once.
const BURSTS: u32 = 5;

/// Prime, and so coprime to the number of pairs of any two halves up to its own size.
const STRIDE: usize = 101;

/// A datagram that came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Sender and receiver, as places in the list of ends.
    pub pair: (u8, u8),
    /// By the kernel of the receiver, in milliseconds of the Unix epoch.
    pub at_ms: f64,
}

/// Sends on every pair between the halves until it is ended.
#[derive(Debug)]
pub struct Crossing {
    stop: Arc<AtomicBool>,
    /// Pairs of which a datagram has come.
    open: Arc<AtomicUsize>,
    sender: JoinHandle<Result<()>>,
    receiver: JoinHandle<Vec<Arrival>>,
}

impl Crossing {
    /// The first half of `ends` against the rest.
    pub fn start(ends: &[Place]) -> Result<Self> {
        let sockets: Vec<UdpSocket> = ends
            .iter()
            .map(|end| udp_at(end.pid, SocketAddr::new(end.address, PEER_PORT)))
            .collect::<Result<_>>()?;
        let sockets = Arc::new(sockets);
        let addresses: Vec<SocketAddr> =
            ends.iter().map(|end| SocketAddr::new(end.address, PEER_PORT)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let sender = {
            let (sockets, stop) = (Arc::clone(&sockets), Arc::clone(&stop));
            thread::spawn(move || send(&sockets, &addresses, &stop))
        };
        let open = Arc::new(AtomicUsize::new(0));
        let receiver = {
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            thread::spawn(move || listen(&sockets, &open, &stop))
        };
        Ok(Self { stop, open, sender, receiver })
    }

    /// Waits until a datagram of so many pairs has come; whether that happened in time.
    pub fn until_open(&self, pairs: usize, limit: Duration) -> bool {
        let began = Instant::now();
        while self.open.load(Ordering::Relaxed) < pairs {
            if began.elapsed() > limit {
                return false;
            }
            thread::sleep(EVERY);
        }
        true
    }

    /// Everything that came.
    pub fn end(self) -> Result<Vec<Arrival>> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow!("the thread that sends or receives panicked");
        self.sender.join().map_err(panicked)??;
        self.receiver.join().map_err(panicked)
    }
}

fn send(sockets: &[UdpSocket], addresses: &[SocketAddr], stop: &AtomicBool) -> Result<()> {
    let half = sockets.len() / 2;
    let pairs: Vec<(usize, usize)> = (0..half)
        .flat_map(|left| (half..sockets.len()).flat_map(move |right| [(left, right), (right, left)]))
        .collect();
    // No pod's pairs are all in one burst: its cut is seen at any time of a round.
    let pairs: Vec<(usize, usize)> =
        (0..pairs.len()).map(|place| pairs[place * STRIDE % pairs.len()]).collect();
    let burst = pairs.len().div_ceil(BURSTS as usize);
    while !stop.load(Ordering::Relaxed) {
        for pairs in pairs.chunks(burst) {
            for (from, to) in pairs {
                match sockets[*from].send_to(&[*from as u8, *to as u8], addresses[*to]) {
                    // A full buffer is a datagram that does not come, like one that is dropped.
                    Ok(_) => {}
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {}
                    Err(error) => return Err(error).context("cannot send between pods"),
                }
            }
            thread::sleep(EVERY / BURSTS);
        }
    }
    Ok(())
}

fn listen(sockets: &[UdpSocket], open: &AtomicUsize, stop: &AtomicBool) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        // The kernel says when each came. Waking for each would cost those who are measured half a processor.
        thread::sleep(EVERY / 2);
        for (to, socket) in sockets.iter().enumerate() {
            while let Some(([from, _], came)) = receive::<2>(socket) {
                seen.insert((from, to));
                arrivals.push(Arrival { pair: (from, to as u8), at_ms: came as f64 / 1e6 });
            }
        }
        open.store(seen.len(), Ordering::Relaxed);
    }
    arrivals
}
