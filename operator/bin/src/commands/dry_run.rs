//! `netsplit run --dry-run`: what an experiment would do, and when. Nothing is started, nothing is touched.

use anyhow::Result;
use netsplit_plan::{Base, Stretch, preview};
use netsplit_spec::{ValidExperiment, format_duration};
use serde_json::{Value, json};

use super::run;
use crate::{cli::RunArgs, problem::Usage};

pub fn run(args: &RunArgs) -> Result<()> {
    let asked = run::read(args)?;
    let testnet = run::find_testnet(args, &asked)?;
    let valid = netsplit_spec::validate(&asked.experiment, &testnet)
        .map_err(|problems| Usage(problems.to_string()))?;
    let base = Base::of(&testnet);
    let stretches = preview(&valid, &base);
    if args.json {
        let phases: Vec<Value> = stretches.iter().map(|stretch| json(&valid, stretch)).collect();
        println!("{:#}", json!({ "experiment": valid.name, "testnet": valid.testnet, "phases": phases }));
    } else {
        println!("{} on {}, {} nodes", valid.name, valid.testnet, valid.nodes.len());
        for stretch in &stretches {
            println!("{}", text(&valid, &base, stretch));
        }
    }
    Ok(())
}

/// Phases as the state machine calls them, by the clock alone.
fn phase(valid: &ValidExperiment, stretch: &Stretch) -> &'static str {
    let heals = |fault: &netsplit_spec::ValidFault| fault.heals_at().as_millis() as u64;
    let healed_ms = valid.faults.iter().map(heals).max();
    if stretch.to_ms <= valid.baseline.as_millis() as u64 {
        "Baseline"
    } else if healed_ms.is_none_or(|at| stretch.from_ms < at) {
        "Running"
    } else {
        "Recovering"
    }
}

fn text(valid: &ValidExperiment, base: &Base, stretch: &Stretch) -> String {
    let time = |ms| format_duration(std::time::Duration::from_millis(ms));
    let faults = if stretch.faults.is_empty() { "no fault".to_owned() } else { stretch.faults.join(", ") };
    let mut lines = vec![format!(
        "\n{} to {}  {}: {faults}",
        time(stretch.from_ms),
        time(stretch.to_ms),
        phase(valid, stretch)
    )];
    for (fault, ramp) in valid.faults.iter().filter_map(|fault| Some((fault, fault.ramp?))) {
        if stretch.faults.contains(&fault.id) {
            lines.push(format!("  {} reaches this after {}", fault.id, format_duration(ramp.over)));
        }
    }
    let node = |index: usize| valid.nodes[index].as_str();
    for (index, what) in &stretch.nodes {
        lines.push(format!("  {}: {}", node(*index), what.as_str()));
    }
    let cut = stretch.cut.iter().map(|(from, to)| (*from, *to, "cut".to_owned()));
    let changed = stretch.links.iter().filter(|row| row.links != base.link(row.from, row.to));
    let changed = changed.map(|row| (row.from, row.to, row.links.to_string()));
    let mut rows: Vec<(usize, usize, String)> = cut.chain(changed).collect();
    rows.sort();
    for (from, to, does) in &rows {
        lines.push(format!("  {} -> {}: {does}", node(*from), node(*to)));
    }
    let others = valid.nodes.len() * (valid.nodes.len() - 1) - rows.len();
    if others > 0 {
        let rest = if rows.is_empty() { "all" } else { "the other" };
        let does = match base.all_alike() {
            Some(links) => links.to_string(),
            None => "as their regions have it".to_owned(),
        };
        lines.push(format!("  {rest} {others} links: {does}"));
    }
    lines.join("\n")
}

/// Every directed link that does anything. Keys are stable: add, never rename.
fn json(valid: &ValidExperiment, stretch: &Stretch) -> Value {
    let node = |index: usize| valid.nodes[index].as_str();
    let cut =
        stretch.cut.iter().map(|(from, to)| json!({ "from": node(*from), "to": node(*to), "cut": true }));
    let changed = stretch
        .links
        .iter()
        .map(|row| json!({ "from": node(row.from), "to": node(row.to), "asked": row.links }));
    let links: Vec<Value> = cut.chain(changed).collect();
    let held =
        |(index, what): &(usize, netsplit_plan::NodeFault)| json!({ "node": node(*index), "fault": what });
    json!({
        "phase": phase(valid, stretch), "fromMs": stretch.from_ms, "toMs": stretch.to_ms, "faults": stretch.faults,
        "links": links, "nodes": stretch.nodes.iter().map(held).collect::<Vec<_>>(),
    })
}
