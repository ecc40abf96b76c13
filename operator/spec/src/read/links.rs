//! Reads a link's quality.

use super::{Fields, duration, unit};
use crate::links::Links;
use crate::report::Report;
use crate::units;

pub(crate) const FIELDS: [&str; 7] = ["latency", "jitter", "loss", "rate", "duplicate", "reorder", "corrupt"];

/// What could be read; the rest was reported.
pub(crate) fn read(report: &mut Report, fields: &Fields<'_>) -> Links {
    let mut time = |name: &str| {
        let node = fields.get(name)?;
        duration(report, node, &fields.path(name))
    };
    let (latency, jitter) = (time("latency"), time("jitter"));
    let mut share = |name: &str| {
        let node = fields.get(name)?;
        unit(report, node, &fields.path(name), "a share such as `2%`", units::parse_share)
    };
    let (loss, duplicate, reorder, corrupt) =
        (share("loss"), share("duplicate"), share("reorder"), share("corrupt"));
    let rate = fields.get("rate").and_then(|node| {
        unit(report, node, &fields.path("rate"), "a rate such as `10mbit`", units::parse_bits)
    });
    Links { latency, jitter, loss, rate, duplicate, reorder, corrupt }
}
