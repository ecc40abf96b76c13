//! `netsplit links`.

use anyhow::Result;
use netsplit_proto::control::{Link, Quality};
use netsplit_spec::{Share, format_bits, format_duration};
use serde_json::{Value, json};

use crate::{
    cli::StatusArgs,
    quality, table,
    world::{self, Links, World},
};

pub async fn run(world: &dyn World, args: &StatusArgs) -> Result<()> {
    let found = world::find(world, args.testnet.testnet.as_deref()).await?;
    let Links { total, measured, as_asked, told: links } = found.handle.links().await?;
    if args.json {
        let links: Vec<Value> = links.iter().map(json).collect();
        let told = json!({
            "testnet": found.name(), "total": total, "measured": measured, "asAsked": as_asked, "links": links,
        });
        println!("{told:#}");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = links.iter().map(row).collect();
    if !rows.is_empty() {
        print!("{}", table::render(&["FROM", "TO", "ASKED", ">MEASURED", ">LOST", "STATE"], &rows));
    }
    if measured == 0 {
        println!("nothing is asked of any link, so none is measured: see `netsplit link --help`");
    } else if (links.len() as u64) < total {
        println!(
            "{as_asked} of {measured} measured links are as asked; these are the furthest from it, the report of a run has more"
        );
    }
    Ok(())
}

fn row(link: &Link) -> Vec<String> {
    let asked = quality::from_proto(&link.asked.unwrap_or_default());
    let measured = link.measured.as_ref();
    let latency = measured.and_then(|measured| measured.latency_us);
    let lost = measured.filter(|measured| measured.sent > 0);
    let state = match measured {
        None => "-",
        Some(_) if link.problem.is_empty() => "as asked",
        Some(_) => link.problem.as_str(),
    };
    vec![
        link.from.clone(),
        link.to.clone(),
        if asked.is_empty() { "-".to_owned() } else { asked.to_string() },
        latency.map_or_else(|| "-".to_owned(), |us| format!("{:.2} ms", us as f64 / 1_000.0)),
        lost.map_or_else(
            || "-".to_owned(),
            |seen| {
                format!(
                    "{:.1} %",
                    (seen.sent - seen.received.min(seen.sent)) as f64 / seen.sent as f64 * 100.0
                )
            },
        ),
        state.to_owned(),
    ]
}

/// A link as scripts read it. Keys are stable: add, never rename.
fn json(link: &Link) -> Value {
    let measured = link.measured.as_ref().map(|seen| {
        json!({
            "latencyMs": seen.latency_us.map(|us| us as f64 / 1_000.0), "probesSent": seen.sent,
            "probesReceived": seen.received, "probesDuplicated": seen.probes_duplicated,
            "probesReordered": seen.probes_reordered, "rate": seen.rate.map(format_bits), "packets": seen.packets, "lost": seen.lost,
            "duplicated": seen.duplicated, "reordered": seen.reordered, "corrupted": seen.corrupted,
        })
    });
    json!({
        "from": link.from, "to": link.to, "asked": quality_json(&link.asked.unwrap_or_default()), "measured": measured,
        "asAsked": link.measured.as_ref().map(|_| link.problem.is_empty()),
        "problem": (!link.problem.is_empty()).then_some(&link.problem),
    })
}

/// In the words of the YAML.
fn quality_json(quality: &Quality) -> Value {
    let links = quality::from_proto(quality);
    let share = |share: Option<Share>| share.map(|share| share.to_string());
    let fields = [
        ("latency", links.latency.map(format_duration)),
        ("jitter", links.jitter.map(format_duration)),
        ("loss", share(links.loss)),
        ("rate", links.rate.map(format_bits)),
        ("duplicate", share(links.duplicate)),
        ("reorder", share(links.reorder)),
        ("corrupt", share(links.corrupt)),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect()
}
