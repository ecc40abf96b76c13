//! The quality of links, on its way over the control socket.

use std::time::Duration;

use netsplit_proto::control::Quality;
use netsplit_spec::{Links, Share};

pub fn to_proto(links: Links) -> Quality {
    let micros = |duration: Duration| duration.as_micros() as u64;
    Quality {
        latency_us: links.latency.map(micros),
        jitter_us: links.jitter.map(micros),
        loss: links.loss.map(Share::as_millionths),
        rate: links.rate,
        duplicate: links.duplicate.map(Share::as_millionths),
        reorder: links.reorder.map(Share::as_millionths),
        corrupt: links.corrupt.map(Share::as_millionths),
    }
}

pub fn from_proto(quality: &Quality) -> Links {
    Links {
        latency: quality.latency_us.map(Duration::from_micros),
        jitter: quality.jitter_us.map(Duration::from_micros),
        loss: quality.loss.map(Share::millionths),
        rate: quality.rate,
        duplicate: quality.duplicate.map(Share::millionths),
        reorder: quality.reorder.map(Share::millionths),
        corrupt: quality.corrupt.map(Share::millionths),
    }
}
