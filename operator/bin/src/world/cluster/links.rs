//! The links of a testnet as its status tells them: counts, and the worst ones.

use anyhow::{Context as _, Result};
use netsplit_proto::control::{Link, link::Measured};
use netsplit_spec::crd::{LinkStatus, LinksStatus};

use crate::{quality, world::Links};

pub fn read(status: LinksStatus) -> Result<Links> {
    let LinksStatus { total, measured, as_asked, worst } = status;
    Ok(Links {
        total: total.unsigned_abs(),
        measured: measured.unsigned_abs(),
        as_asked: as_asked.unsigned_abs(),
        told: worst.into_iter().map(link).collect::<Result<_>>()?,
    })
}

fn link(status: LinkStatus) -> Result<Link> {
    let asked = status.asked.read().context("the status of a link is of another version of netsplit")?;
    Ok(Link {
        from: status.from,
        to: status.to,
        asked: Some(quality::to_proto(asked)),
        measured: Some(Measured {
            latency_us: status.latency_us,
            sent: status.sent.unsigned_abs(),
            received: status.received.unsigned_abs(),
            ..Measured::default()
        }),
        problem: status.problem.unwrap_or_default(),
    })
}
