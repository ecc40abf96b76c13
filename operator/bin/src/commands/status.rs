//! `netsplit status`.

use anyhow::Result;
use netsplit_proto::control::{Fault, Testnet};
use serde_json::{Value, json};

use crate::{
    cli::StatusArgs,
    session::unix_ms,
    table,
    world::{self, World},
};

pub async fn run(world: &dyn World, args: &StatusArgs) -> Result<()> {
    if args.testnet.testnet.is_none() && !args.json {
        let all = world.all().await?;
        if all.len() > 1 {
            for found in all {
                println!("{}", text(&found.state));
            }
            return Ok(());
        }
    }
    let found = world::find(world, args.testnet.testnet.as_deref()).await?;
    if args.json {
        println!("{:#}", json(&found.state));
    } else {
        print!("{}", text(&found.state));
    }
    Ok(())
}

/// The status as people read it.
pub fn text(testnet: &Testnet) -> String {
    let mut out = format!("testnet {}  {}", testnet.name, testnet.state);
    if !testnet.experiment.is_empty() {
        out.push_str("  experiment ");
        out.push_str(&testnet.experiment);
    }
    if let Some(load) = &testnet.load {
        let (rate, p50, p99) = (load.committed_per_second, load.latency_p50_ms, load.latency_p99_ms);
        let load = format!("  load {rate:.0}/s final, p50 {p50:.0} ms, p99 {p99:.0} ms");
        out.push_str(&load);
    }
    out.push('\n');
    if !testnet.problem.is_empty() {
        out.push_str("problem: ");
        out.push_str(&testnet.problem);
        out.push('\n');
    }
    let rows: Vec<Vec<String>> = testnet
        .nodes
        .iter()
        .map(|node| {
            vec![
                node.name.clone(),
                node.role.clone(),
                node.state.clone(),
                if node.pid == 0 { "-".to_owned() } else { node.pid.to_string() },
                node.address.clone(),
                node.final_height.to_string(),
                node.peers.to_string(),
                node.api.clone(),
            ]
        })
        .collect();
    out += &table::render(&["NODE", "ROLE", "STATE", ">PID", "ADDRESS", ">FINAL", ">PEERS", "API"], &rows);
    if !testnet.faults.is_empty() {
        let rows: Vec<Vec<String>> = testnet.faults.iter().map(fault_row).collect();
        out.push('\n');
        out += &table::render(&["FAULT", "LINKS", "STATE", "ENDS", "WHAT", "EVIDENCE"], &rows);
    }
    out
}

fn fault_row(fault: &Fault) -> Vec<String> {
    let ends = match fault.until_ms {
        0 => "on heal".to_owned(),
        until => format!("in {} s", until.saturating_sub(unix_ms()).div_ceil(1000)),
    };
    vec![
        fault.id.clone(),
        fault.links.to_string(),
        fault.state.clone(),
        ends,
        fault.description.clone(),
        fault.evidence.clone(),
    ]
}

/// The status as scripts read it. Keys are stable: add, never rename.
pub fn json(testnet: &Testnet) -> Value {
    let node = |node: &netsplit_proto::control::Node| {
        json!({
            "name": node.name, "role": node.role, "state": node.state, "pid": node.pid, "address": node.address,
            "height": node.height, "finalHeight": node.final_height, "peers": node.peers, "restarts": node.restarts,
            "api": node.api, "http": node.http,
        })
    };
    let fault = |fault: &Fault| {
        json!({
            "id": fault.id, "description": fault.description, "owner": fault.owner, "sinceMs": fault.since_ms,
            "untilMs": (fault.until_ms != 0).then_some(fault.until_ms), "state": fault.state, "links": fault.links,
            "dropped": fault.dropped, "evidence": fault.evidence,
        })
    };
    json!({
        "name": testnet.name,
        "state": testnet.state,
        "problem": (!testnet.problem.is_empty()).then_some(&testnet.problem),
        "startedMs": testnet.started_ms,
        "experiment": (!testnet.experiment.is_empty()).then_some(&testnet.experiment),
        "nodes": testnet.nodes.iter().map(node).collect::<Vec<_>>(),
        "faults": testnet.faults.iter().map(fault).collect::<Vec<_>>(),
        "load": testnet.load.as_ref().map(super::load::json),
    })
}
