//! Rules of a testnet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{MAX_NAME, label, regions};
use crate::report::Report;
use crate::testnet::{Chain, Consensus, Role, Testnet};
use crate::units::{clip, format_duration};

pub(crate) const MAX_GROUPS: usize = 100;
/// Of one group.
const MAX_COUNT: u32 = 200;
/// Of one group.
pub(crate) const MAX_REGIONS: usize = 64;
/// Of a testnet.
const MAX_NODES: u64 = 1_000;
/// `<testnet>-<group>` names a StatefulSet on Kubernetes, which adds to it up to the 63 of a label.
const MAX_SET_NAME: usize = 52;
const MAX_RATE: u32 = 1_000_000;
const MAX_ACCOUNTS: u32 = 100_000;
/// Fewer blocks would be pruned before a node that was cut off for seconds has fetched them.
const MIN_RETAINED_BLOCKS: u64 = 100;
const TIMES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(10));

/// Without `with_nodes` the nodes are left alone: they could not be read, which was reported.
pub(crate) fn check(report: &mut Report, testnet: &Testnet, with_nodes: bool) {
    if !testnet.name.is_empty() {
        label(report, "metadata.name", &testnet.name);
    }
    let Consensus::Bft { block_time, timeouts } = &testnet.consensus;
    time(report, "spec.consensus.bft.blockTime", Some(*block_time));
    time(report, "spec.consensus.bft.timeouts.propose", timeouts.propose);
    time(report, "spec.consensus.bft.timeouts.prevote", timeouts.prevote);
    time(report, "spec.consensus.bft.timeouts.precommit", timeouts.precommit);
    if with_nodes {
        nodes(report, testnet);
    }
    regions::check(report, testnet, with_nodes);
    if testnet.links.is_some() && !testnet.faults {
        report.problem("spec.links", "`faults: off` leaves out the link agents, which shape links");
    }
    if let Some(load) = &testnet.load {
        between(report, "spec.load.transfersPerSecond", load.transfers_per_second.into(), 1, MAX_RATE.into());
        between(report, "spec.load.accounts", load.accounts.into(), 1, MAX_ACCOUNTS.into());
    }
    if let Some(size) = &testnet.storage {
        storage(report, size);
    }
    if let Some(retention) = &testnet.retention {
        between(report, "spec.retention.blocks", retention.blocks, MIN_RETAINED_BLOCKS, u64::MAX);
        if testnet.chain == (Chain::Cometbft {}) {
            report.problem("spec.retention", "CometBFT's key-value store keeps every block: remove it");
        }
    }
}

/// A region's name is free, but for what would make a selector or a row of a file mean something else.
pub(crate) fn region_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("`{}` is no region's name: it has 1 to {MAX_NAME} characters", clip(name)));
    }
    match name.chars().find(|c| !allowed(*c)) {
        Some(bad) => Err(format!(
            "`{}` contains `{}`: only letters, digits, `-`, `_`, `.` and `:` are allowed",
            clip(name),
            bad.escape_debug()
        )),
        None => Ok(()),
    }
}

fn time(report: &mut Report, path: &str, value: Option<Duration>) {
    let (least, most) = TIMES;
    if value.is_some_and(|value| value < least || value > most) {
        let (least, most) = (format_duration(least), format_duration(most));
        report.problem(path, format!("must be between {least} and {most}"));
    }
}

fn storage(report: &mut Report, size: &str) {
    let number = ["Mi", "Gi", "Ti"].iter().find_map(|unit| size.strip_suffix(unit));
    let valid = number
        .is_some_and(|number| number.len() <= 6 && !number.starts_with('0') && number.parse::<u32>().is_ok());
    if !valid {
        let size = clip(size);
        report.problem(
            "spec.storage",
            format!("`{size}` is not a size: write a number and a unit, as in `512Mi` or `1Gi`"),
        );
    }
}

fn between(report: &mut Report, path: &str, value: u64, least: u64, most: u64) {
    if value < least {
        report.problem(path, format!("{value} is too small: {least} is the least"));
    } else if value > most {
        report.problem(path, format!("{value} is too large: {most} is the most"));
    }
}

fn nodes(report: &mut Report, testnet: &Testnet) {
    if testnet.nodes.is_empty() {
        report
            .problem("spec.nodes", "a testnet needs nodes: `[{name: validator, role: validator, count: 4}]`");
        return;
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, group) in testnet.nodes.iter().enumerate() {
        let path = format!("spec.nodes[{n}].name");
        between(report, &format!("spec.nodes[{n}].count"), group.count.into(), 1, MAX_COUNT.into());
        let one = group.regions.len() == 1;
        for (k, name) in group.regions.iter().enumerate() {
            let field = if one { "region".to_owned() } else { format!("regions[{k}]") };
            if let Err(problem) = region_name(name) {
                report.problem(&format!("spec.nodes[{n}].{field}"), problem);
            }
        }
        if group.name.is_empty() || !label(report, &path, &group.name) {
            continue;
        }
        if let Some(first) = names.insert(&group.name, n) {
            report.problem(&path, format!("`{}` is the name of spec.nodes[{first}] already", group.name));
        }
        let set = testnet.name.len() + 1 + group.name.len();
        if set > MAX_SET_NAME {
            let message = format!(
                "`{}-{}` has {set} characters: {MAX_SET_NAME} are the most",
                testnet.name, group.name
            );
            report.problem(&path, message);
        }
    }
    for (n, group) in testnet.nodes.iter().enumerate() {
        // A group called as another's node would make a selector mean two things.
        if let Some((other, ordinal)) = group.name.rsplit_once('-')
            && let Some(place) = names.get(other)
            && ordinal.parse::<u32>().is_ok_and(|ordinal| ordinal < testnet.nodes[*place].count)
        {
            let message =
                format!("`{}` is a node of group `{other}` already: choose another name", group.name);
            report.problem(&format!("spec.nodes[{n}].name"), message);
        }
    }
    let total: u64 = testnet.nodes.iter().map(|group| u64::from(group.count)).sum();
    if total > MAX_NODES {
        report.problem("spec.nodes", format!("{total} nodes in all: {MAX_NODES} are the most"));
    }
    if !testnet.nodes.iter().any(|group| group.role == Role::Validator) {
        report.problem("spec.nodes", "no group has `role: validator`: nobody would make blocks");
    }
}

/// Whether the nodes can be listed without harm.
pub(crate) fn is_bounded(testnet: &Testnet) -> bool {
    testnet.nodes.iter().map(|group| u64::from(group.count)).sum::<u64>() <= MAX_NODES
}
