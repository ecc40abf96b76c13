//! Reads a `Testnet`'s spec.

use std::time::Duration;

use super::{Fields, choice, count, duration, fields, links, list, number, rate, switch, text};
use crate::check::testnet::{MAX_GROUPS, MAX_REGIONS};
use crate::files::Files;
use crate::report::Report;
use crate::testnet::{Chain, Consensus, Load, NodeGroup, Retention, Role, Testnet, Timeouts, Topology};
use crate::tree::{Node, Value};

pub(crate) const FIELDS: &[&str] =
    &["chain", "consensus", "nodes", "topology", "links", "load", "seed", "retention", "faults", "storage"];

/// A testnet with harmless values in place of unreadable ones, so that the rest can still be checked.
pub(crate) struct Draft {
    pub testnet: Testnet,
    /// The nodes were read in full: names can be looked up in them.
    pub nodes_known: bool,
}

/// Stands in for a block time that could not be read: any valid one.
const STAND_IN: Duration = Duration::from_millis(500);

/// `spec` is `None` if it is missing, which was reported.
pub(crate) fn read(report: &mut Report, spec: Option<&Node>, name: String, files: Option<&Files>) -> Draft {
    let mut draft = Draft {
        testnet: Testnet {
            name,
            seed: None,
            chain: Chain::default(),
            consensus: Consensus::Bft { block_time: STAND_IN, timeouts: Timeouts::default() },
            nodes: Vec::new(),
            topology: Topology::default(),
            links: None,
            load: None,
            retention: None,
            faults: true,
            storage: None,
            origin: crate::Origin::default(),
        },
        nodes_known: false,
    };
    let Some(spec) = spec.and_then(|spec| fields(report, spec, "spec", FIELDS)) else {
        return draft;
    };
    let testnet = &mut draft.testnet;
    if let Some(node) = spec.get("chain") {
        testnet.chain = read_chain(report, node, &spec.path("chain")).unwrap_or_default();
    }
    if let Some(node) = spec.need(report, "consensus", "consensus: {bft: {blockTime: 500ms}}") {
        read_consensus(report, node, &mut testnet.consensus);
    }
    if let Some(node) = spec.need(report, "nodes", "nodes: [{name: validator, role: validator, count: 4}]") {
        draft.nodes_known = read_nodes(report, node, &mut testnet.nodes);
    }
    if let Some(node) = spec.get("topology") {
        let choices = [("mesh", Topology::Mesh), ("ring", Topology::Ring), ("star", Topology::Star)];
        testnet.topology =
            choice(report, node, &spec.path("topology"), "topology", &choices).unwrap_or_default();
    }
    testnet.links = spec.get("links").and_then(|node| links::read_base(report, node, files));
    testnet.load = spec.get("load").and_then(|node| read_load(report, node));
    testnet.seed = spec.get("seed").and_then(|node| number(report, node, &spec.path("seed")));
    testnet.retention = spec.get("retention").and_then(|node| {
        let retention = fields(report, node, "spec.retention", &["blocks"])?;
        let blocks = retention.need(report, "blocks", "blocks: 10000")?;
        Some(Retention { blocks: number(report, blocks, "spec.retention.blocks")? })
    });
    if let Some(node) = spec.get("faults") {
        testnet.faults = switch(report, node, &spec.path("faults")).unwrap_or(true);
    }
    testnet.storage = spec
        .get("storage")
        .and_then(|node| text(report, node, &spec.path("storage"), "a size such as `1Gi`"));
    draft
}

/// `netsplit`, or a map of one other chain and its options: none has any yet.
fn read_chain(report: &mut Report, node: &Node, path: &str) -> Option<Chain> {
    if let Value::Scalar { .. } = node.value {
        let chain = choice(report, node, path, "chain", &Chain::ALL.map(|chain| (chain.as_str(), chain)))?;
        if chain != Chain::default() {
            let message = format!("`{0}` takes options: write `{{{0}: {{}}}}`", chain.as_str());
            report.at(Some(node.line), path, message);
        }
        return Some(chain);
    }
    let cometbft = Chain::Cometbft {};
    let named = fields(report, node, path, &[cometbft.as_str()])?;
    let options = named.need(report, cometbft.as_str(), "chain: {cometbft: {}}")?;
    if !matches!(&options.value, Value::Map(entries) if entries.is_empty()) {
        let path = named.path(cometbft.as_str());
        report.at(Some(options.line), &path, "has no options yet: write `{cometbft: {}}`");
    }
    Some(cometbft)
}

fn read_consensus(report: &mut Report, node: &Node, consensus: &mut Consensus) {
    let Some(outer) = fields(report, node, "spec.consensus", &["bft"]) else {
        return;
    };
    let Some(bft) = outer.need(report, "bft", "bft: {blockTime: 500ms}") else {
        return;
    };
    let Some(bft) = fields(report, bft, "spec.consensus.bft", &["blockTime", "timeouts"]) else {
        return;
    };
    let Consensus::Bft { block_time, timeouts } = consensus;
    if let Some(node) = bft.need(report, "blockTime", "blockTime: 500ms") {
        *block_time = duration(report, node, &bft.path("blockTime")).unwrap_or(STAND_IN);
    }
    let Some(node) = bft.get("timeouts") else {
        return;
    };
    let known = ["propose", "prevote", "precommit"];
    if let Some(given) = fields(report, node, &bft.path("timeouts"), &known) {
        let mut read = |field| given.get(field).and_then(|node| duration(report, node, &given.path(field)));
        *timeouts =
            Timeouts { propose: read("propose"), prevote: read("prevote"), precommit: read("precommit") };
    }
}

/// Whether every group was read in full.
fn read_nodes(report: &mut Report, node: &Node, groups: &mut Vec<NodeGroup>) -> bool {
    let Some(items) = list(report, node, "spec.nodes", "node groups", MAX_GROUPS) else {
        return false;
    };
    let mut whole = true;
    for (path, item) in items {
        let Some(group) = fields(report, item, &path, &["name", "role", "count", "region", "regions"]) else {
            whole = false;
            groups.push(NodeGroup {
                name: String::new(),
                role: Role::Validator,
                count: 1,
                regions: Vec::new(),
            });
            continue;
        };
        let name = group
            .need(report, "name", "name: validator")
            .and_then(|node| text(report, node, &group.path("name"), "a name"));
        let roles = [("validator", Role::Validator), ("full", Role::Full)];
        let role = group
            .need(report, "role", "role: validator")
            .and_then(|node| choice(report, node, &group.path("role"), "role", &roles));
        let size = group.get("count").map_or(Some(1), |node| count(report, node, &group.path("count")));
        let regions = read_regions(report, &group);
        whole &= name.is_some() && size.is_some() && regions.is_some();
        groups.push(NodeGroup {
            name: name.unwrap_or_default(),
            role: role.unwrap_or(Role::Validator),
            count: size.unwrap_or(1),
            regions: regions.unwrap_or_default(),
        });
    }
    whole
}

/// `region: a` is `regions: [a]`.
fn read_regions(report: &mut Report, group: &Fields<'_>) -> Option<Vec<String>> {
    match (group.get("region"), group.get("regions")) {
        (None, None) => Some(Vec::new()),
        (Some(node), None) => Some(vec![text(report, node, &group.path("region"), "a region's name")?]),
        (None, Some(node)) => {
            let items = list(report, node, &group.path("regions"), "regions", MAX_REGIONS)?;
            if items.is_empty() {
                report.problem(&group.path("regions"), "names no region");
            }
            let names: Vec<_> =
                items.into_iter().map(|(path, item)| text(report, item, &path, "a region's name")).collect();
            names.into_iter().collect()
        }
        (Some(_), Some(_)) => {
            let both = "is given beside `region`: all nodes in one `region`, or dealt over `regions`";
            report.problem(&group.path("regions"), both);
            None
        }
    }
}

fn read_load(report: &mut Report, node: &Node) -> Option<Load> {
    let load = fields(report, node, "spec.load", &["transfersPerSecond", "accounts"])?;
    let transfers_per_second = load
        .need(report, "transfersPerSecond", "transfersPerSecond: 100")
        .and_then(|node| rate(report, node, &load.path("transfersPerSecond")));
    let accounts = load
        .get("accounts")
        .map_or(Some(Load::DEFAULT_ACCOUNTS), |node| count(report, node, &load.path("accounts")));
    Some(Load {
        transfers_per_second: transfers_per_second.unwrap_or(1),
        accounts: accounts.unwrap_or(Load::DEFAULT_ACCOUNTS),
    })
}
