//! Links, asked for and measured, as a matrix or as a list of the worst.

use maud::{Markup, html};
use netsplit_spec::{Links, format_bits, format_duration};

use crate::outcome::{LinkOutcome, LinkSnapshot};

/// A matrix of more nodes fits no page.
const LARGEST_MATRIX: usize = 12;
const WORST: usize = 10;

pub fn render(snapshot: &LinkSnapshot) -> Markup {
    let mut nodes: Vec<&str> =
        snapshot.links.iter().flat_map(|link| [link.from.as_str(), link.to.as_str()]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let off = snapshot.links.iter().filter(|link| link.problem.is_some()).count();
    html! {
        h3 { (snapshot.moment) }
        p.note {
            (snapshot.links.len()) " directed links measured at " (format!("{:.1}", snapshot.at_ms as f64 / 1_000.0)) " s, "
            @if off == 0 { "each as asked" } @else { (off) " not as asked" }
        }
        @if nodes.len() <= LARGEST_MATRIX { (matrix(snapshot, &nodes)) } @else { (worst(snapshot)) }
    }
}

fn matrix(snapshot: &LinkSnapshot, nodes: &[&str]) -> Markup {
    let find = |from: &str, to: &str| snapshot.links.iter().find(|link| link.from == from && link.to == to);
    html! {
        div.wide {
            table.matrix {
                tr { th { "from \\ to" } @for to in nodes { th { (to) } } }
                @for from in nodes {
                    tr {
                        th { (from) }
                        @for to in nodes {
                            @match find(from, to) {
                                Some(link) => { (cell(link)) }
                                None => { td.none { "-" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(link: &LinkOutcome) -> Markup {
    let class = if link.problem.is_some() { "off" } else { "fine" };
    html! {
        td class=(class) title=[link.problem.as_ref()] {
            (link.measured_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.2} ms")))
            @let shares = [(link.lost_percent, "lost"), (link.duplicated_percent, "twice"), (link.reordered_percent, "overtook")];
            @for (share, what) in shares {
                @if let Some(share) = share.filter(|share| *share > 0.0) { br; (format!("{share:.1} % {what}")) }
            }
            @if let Some(rate) = link.rate { br; (format_bits(rate)) }
            small { (brief(link.asked)) }
        }
    }
}

/// Short enough for a cell: `20ms \u{b1} 2ms, loss 1%`.
fn brief(asked: Links) -> String {
    let rest = Links { latency: None, jitter: None, ..asked };
    let latency = asked.latency.map(format_duration);
    let jitter = asked.jitter.map(|jitter| format!("\u{b1} {}", format_duration(jitter)));
    let time: Vec<String> = latency.into_iter().chain(jitter).collect();
    let rest = (!rest.is_empty()).then(|| rest.to_string());
    let parts: Vec<String> =
        Some(time.join(" ")).filter(|time| !time.is_empty()).into_iter().chain(rest).collect();
    if parts.is_empty() { "nothing asked".to_owned() } else { parts.join(", ") }
}

fn worst(snapshot: &LinkSnapshot) -> Markup {
    let asked_ms = |link: &LinkOutcome| link.asked.latency.unwrap_or_default().as_secs_f64() * 1_000.0;
    let error =
        |link: &&LinkOutcome| link.measured_ms.map_or(f64::INFINITY, |ms| (ms - asked_ms(link)).abs());
    let mut links: Vec<&LinkOutcome> = snapshot.links.iter().collect();
    links.sort_by(|a, b| error(b).total_cmp(&error(a)));
    html! {
        table {
            tr { th { "the worst" } th { "asked" } th { "measured" } th { "" } }
            @for link in links.into_iter().take(WORST) {
                tr {
                    td { (link.from) " \u{2192} " (link.to) }
                    td { (link.asked) }
                    td { (link.measured_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.2} ms"))) }
                    td { (link.problem.as_deref().unwrap_or_default()) }
                }
            }
        }
    }
}
