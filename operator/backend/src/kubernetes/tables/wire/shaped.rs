//! The part of tables and reports that is about shaped links.

use std::time::Duration;

use netsplit_links::{
    pod::{LinkReceived, LinkSent, Probed, ShapedLink, ShapedReport, Shaping},
    shape::{Counters, LinkState, Share},
};
use netsplit_proto::agent as wire;

use super::{WireError, address};

pub(super) fn shaping(shaping: &Shaping) -> wire::Shaping {
    let probed = |probed: &Probed| wire::ProbedLink {
        link: probed.link,
        to: probed.to.to_string(),
        patience_ms: probed.patience.as_millis() as u64,
        wanted: probed.wanted as u32,
        rate: probed.rate,
    };
    wire::Shaping {
        epoch: shaping.epoch,
        seed: shaping.seed,
        base: shaping.base.iter().map(link).collect(),
        faulted: shaping.faulted.iter().map(link).collect(),
        lease_ms: shaping.lease.as_millis() as u64,
        probed: shaping.probed.iter().map(probed).collect(),
    }
}

fn link(link: &ShapedLink) -> wire::ShapedLink {
    let LinkState { latency, jitter, loss, rate, duplicate, reorder, corrupt } = link.state;
    wire::ShapedLink {
        from: link.from.to_string(),
        number: link.number,
        latency_ns: latency.as_nanos() as u64,
        jitter_ns: jitter.as_nanos() as u64,
        loss: loss.as_millionths(),
        rate,
        duplicate: duplicate.as_millionths(),
        reorder: reorder.as_millionths(),
        corrupt: corrupt.as_millionths(),
    }
}

/// A table without this part comes from an operator that shapes nothing.
pub(super) fn read_shaping(message: Option<&wire::Shaping>) -> Result<Shaping, WireError> {
    let Some(message) = message else { return Ok(Shaping::default()) };
    let probed = |probed: &wire::ProbedLink| {
        Ok(Probed {
            link: probed.link,
            to: address(&probed.to)?,
            patience: Duration::from_millis(probed.patience_ms),
            wanted: probed.wanted as usize,
            rate: probed.rate,
        })
    };
    Ok(Shaping {
        epoch: message.epoch,
        seed: message.seed,
        base: message.base.iter().map(read_link).collect::<Result<_, _>>()?,
        faulted: message.faulted.iter().map(read_link).collect::<Result<_, _>>()?,
        lease: Duration::from_millis(message.lease_ms),
        probed: message.probed.iter().map(probed).collect::<Result<_, WireError>>()?,
    })
}

fn read_link(link: &wire::ShapedLink) -> Result<ShapedLink, WireError> {
    Ok(ShapedLink {
        from: address(&link.from)?,
        number: link.number,
        state: LinkState {
            latency: Duration::from_nanos(link.latency_ns),
            jitter: Duration::from_nanos(link.jitter_ns),
            loss: Share::millionths(link.loss),
            rate: link.rate,
            duplicate: Share::millionths(link.duplicate),
            reorder: Share::millionths(link.reorder),
            corrupt: Share::millionths(link.corrupt),
        },
    })
}

pub(super) fn report(report: &ShapedReport) -> wire::ShapedReport {
    let received = |seen: &LinkReceived| wire::LinkReceived {
        link: seen.link,
        first: seen.first,
        last: seen.last,
        received: seen.received,
        latency_us: seen.latency_us,
        samples: seen.samples as u32,
        packets: seen.counters.packets,
        bytes: seen.counters.bytes,
        lost: seen.counters.lost,
        overflowed: seen.counters.overflowed,
        cut: seen.counters.cut,
        duplicated: seen.counters.duplicated,
        reordered: seen.counters.reordered,
        corrupted: seen.counters.corrupted,
        probes_duplicated: seen.duplicated,
        probes_reordered: seen.reordered,
        rate: seen.rate,
    };
    let sent = |sent: &LinkSent| wire::LinkSent { link: sent.link, last: sent.last };
    wire::ShapedReport {
        received: report.received.iter().map(received).collect(),
        sent: report.sent.iter().map(sent).collect(),
        faults: report.faults.clone(),
        lease_ended: report.lease_ended,
    }
}

pub(super) fn read_report(message: wire::ShapedReport) -> ShapedReport {
    let received = |seen: wire::LinkReceived| LinkReceived {
        link: seen.link,
        first: seen.first,
        last: seen.last,
        received: seen.received,
        duplicated: seen.probes_duplicated,
        reordered: seen.probes_reordered,
        latency_us: seen.latency_us,
        samples: seen.samples as usize,
        rate: seen.rate,
        counters: Counters {
            packets: seen.packets,
            bytes: seen.bytes,
            lost: seen.lost,
            overflowed: seen.overflowed,
            cut: seen.cut,
            duplicated: seen.duplicated,
            reordered: seen.reordered,
            corrupted: seen.corrupted,
        },
    };
    let sent = |sent: wire::LinkSent| LinkSent { link: sent.link, last: sent.last };
    ShapedReport {
        received: message.received.into_iter().map(received).collect(),
        sent: message.sent.into_iter().map(sent).collect(),
        faults: message.faults,
        lease_ended: message.lease_ended,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// No field has its default, and no two have the same value.
    pub(in super::super) fn shaping(from: Ipv4Addr) -> Shaping {
        let state = LinkState {
            latency: Duration::from_micros(20_500),
            jitter: Duration::from_millis(2),
            loss: Share::millionths(3),
            rate: Some(4),
            duplicate: Share::millionths(5),
            reorder: Share::millionths(6),
            corrupt: Share::millionths(7),
        };
        let link = |number, state| ShapedLink { from, number, state };
        Shaping {
            epoch: 8,
            seed: u64::MAX - 9,
            base: vec![link(10, LinkState::default())],
            faulted: vec![link(11, state)],
            lease: Duration::from_secs(12),
            probed: vec![Probed {
                link: 13,
                to: from,
                patience: Duration::from_millis(14),
                wanted: 15,
                rate: Some(16),
            }],
        }
    }

    pub(in super::super) fn report() -> ShapedReport {
        let counters = Counters {
            packets: 1,
            bytes: 2,
            lost: 3,
            overflowed: 4,
            cut: 5,
            duplicated: 6,
            reordered: 7,
            corrupted: 8,
        };
        ShapedReport {
            received: vec![LinkReceived {
                link: 9,
                first: 10,
                last: 11,
                received: 12,
                duplicated: 17,
                reordered: 18,
                latency_us: Some(-13),
                samples: 14,
                rate: Some(19),
                counters,
            }],
            sent: vec![LinkSent { link: 15, last: 16 }],
            faults: vec!["it stood still".to_owned()],
            lease_ended: true,
        }
    }
}
