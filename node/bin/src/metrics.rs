//! What the node counts. Names are `netsplit_<area>_<what>_<unit>`; labels come from closed sets.

use netsplit_bft::{Misbehaviour, RoundState};
use netsplit_net::{Class, PeerStatus};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::admission::Refused;

#[derive(Debug)]
pub(crate) struct Metrics {
    pub height: IntGauge,
    pub first_height: IntGauge,
    pub transactions: IntCounter,
    pub blocks: IntCounter,
    pub block_bytes: Histogram,
    pub finality: Histogram,
    pub step: Histogram,
    pub wal_syncs: IntCounter,
    pub wal_sync: Histogram,
    pub wal_bytes: IntCounter,
    pub evidence: IntCounter,
    pub send_dropped: IntCounterVec,
    pub malformed: IntCounter,
    pub relay_dropped: IntCounter,
    consensus_height: IntGauge,
    consensus_round: IntGauge,
    misbehaviour: IntCounterVec,
    accepted: IntCounter,
    refused: IntCounterVec,
    mempool_transactions: IntGauge,
    mempool_bytes: IntGauge,
    peers: IntGauge,
    connections: IntGaugeVec,
}

/// From 0.1 ms, the time of a sync, to 5 s, the longest round.
const SECONDS: [f64; 14] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.7, 1.2, 2.5, 5.0];
const BYTES: [f64; 8] = [1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let connections = IntGaugeVec::new(
            Opts::new("netsplit_peer_connections", "Connections to peers that are up, by class of traffic."),
            &["class"],
        )?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self {
            height: gauge("netsplit_chain_height", "Height of the last final block.")?,
            first_height: gauge("netsplit_chain_first_height", "Height of the oldest block that is kept.")?,
            transactions: counter("netsplit_chain_transactions_total", "Transactions in blocks made final.")?,
            blocks: counter("netsplit_chain_blocks_total", "Blocks made final since the start.")?,
            block_bytes: histogram("netsplit_chain_block_bytes", "Size of final blocks.", &BYTES)?,
            finality: histogram(
                "netsplit_consensus_finality_seconds",
                "From a block's own time to this node seeing it final.",
                &SECONDS,
            )?,
            step: histogram("netsplit_consensus_step_seconds", "Time of one step of the engine.", &SECONDS)?,
            wal_syncs: counter("netsplit_wal_syncs_total", "Syncs of the consensus log.")?,
            wal_sync: histogram(
                "netsplit_wal_sync_seconds",
                "Time of one sync of the consensus log.",
                &SECONDS,
            )?,
            wal_bytes: counter("netsplit_wal_written_bytes_total", "Bytes appended to the consensus log.")?,
            evidence: counter("netsplit_consensus_evidence_total", "Proofs of double signing found.")?,
            send_dropped: counters(
                "netsplit_peer_send_dropped_total",
                "Messages not sent because a peer's queue was full or its session gone, by class.",
                "class",
            )?,
            malformed: counter("netsplit_peer_malformed_total", "Frames from peers that could not be read.")?,
            relay_dropped: counter("netsplit_relay_dropped_total", "Batches that the relay could not take.")?,
            consensus_height: gauge("netsplit_consensus_height", "Height that consensus works on.")?,
            consensus_round: gauge("netsplit_consensus_round", "Round that consensus works on.")?,
            misbehaviour: counters(
                "netsplit_consensus_misbehaviour_total",
                "Messages that no correct peer sends, by kind.",
                "kind",
            )?,
            accepted: counter("netsplit_mempool_accepted_total", "Transactions taken into the mempool.")?,
            refused: counters(
                "netsplit_mempool_refused_total",
                "Transactions refused, by reason.",
                "reason",
            )?,
            mempool_transactions: gauge("netsplit_mempool_transactions", "Transactions in the mempool.")?,
            mempool_bytes: gauge("netsplit_mempool_bytes", "Encoded bytes in the mempool.")?,
            peers: gauge("netsplit_peer_sessions", "Peers with a session.")?,
            connections,
        })
    }

    pub(crate) fn admitted<'a>(&self, accepted: usize, refused: impl Iterator<Item = &'a Refused>) {
        self.accepted.inc_by(accepted as u64);
        for refused in refused {
            self.refused.with_label_values(&[refused.reason()]).inc();
        }
    }

    pub(crate) fn misbehaved(&self, kind: Misbehaviour) {
        self.misbehaviour.with_label_values(&[kind.label()]).inc();
    }

    pub(crate) fn dropped(&self, class: Class) {
        self.send_dropped.with_label_values(&[class.name()]).inc();
    }

    /// Gauges that are only worth reading when someone asks.
    pub(crate) fn refresh(&self, round: &RoundState, mempool: (usize, usize), peers: &[PeerStatus]) {
        self.consensus_height.set(round.height as i64);
        self.consensus_round.set(i64::from(round.round.unwrap_or(0)));
        self.mempool_transactions.set(mempool.0 as i64);
        self.mempool_bytes.set(mempool.1 as i64);
        self.peers.set(peers.iter().filter(|peer| peer.address.is_some()).count() as i64);
        for class in Class::ALL {
            let up = peers.iter().filter(|peer| peer.classes.contains(&class)).count();
            self.connections.with_label_values(&[class.name()]).set(up as i64);
        }
    }
}
