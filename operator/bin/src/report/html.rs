//! The page: self-contained, no script, readable on a phone and in the dark.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use netsplit_plan::experiment::Outcome;

use super::{
    chart::{Band, Chart, Line},
    links,
};
use crate::outcome::{FaultOutcome, RunOutcome};

const STYLE: &str = include_str!("style.css");

pub fn render(outcome: &RunOutcome) -> String {
    let phase = outcome.verdict.phase.as_str();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (phase) ": " (outcome.experiment) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    span class={ "verdict " (phase.to_lowercase()) } { (phase.to_uppercase()) }
                    h1 { (outcome.experiment) }
                    p.note {
                        "on " (outcome.testnet) ", " (outcome.nodes.len()) " nodes, "
                        (format!("{:.1}", outcome.verdict.lasted_ms as f64 / 1_000.0)) " s"
                    }
                    @for reason in &outcome.verdict.reasons { p.reason { (reason) } }
                }
                (expectations(outcome))
                (faults(outcome))
                (charts(outcome))
                @if !outcome.links.is_empty() {
                    section {
                        h2 { "Links" }
                        @for snapshot in &outcome.links { (links::render(snapshot)) }
                    }
                }
                (timeline(outcome))
                (nodes(outcome))
            }
        }
    };
    page.into_string()
}

fn expectations(outcome: &RunOutcome) -> Markup {
    if outcome.verdict.expectations.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Expected" }
            table {
                @for result in &outcome.verdict.expectations {
                    tr {
                        td class=(class(result.outcome)) { (result.outcome) }
                        td { (result.text) }
                        td { (result.detail) }
                    }
                }
            }
        }
    }
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "fine",
        Outcome::Failed => "off",
        Outcome::Invalid | Outcome::NotJudged => "unsure",
    }
}

fn faults(outcome: &RunOutcome) -> Markup {
    if outcome.faults.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Faults" }
            table {
                @for fault in &outcome.faults {
                    tr {
                        td class=(if fault.proven { "fine" } else { "off" }) {
                            (if fault.proven { "proven" } else { "not proven" })
                        }
                        td { b { (fault.id) } br; (fault.description) small {
                            @if fault.nodes.is_empty() { (fault.links) " directed links" } @else { (fault.nodes.len()) " nodes" }
                        } }
                        td { (fault.evidence) }
                    }
                }
            }
        }
    }
}

fn charts(outcome: &RunOutcome) -> Markup {
    let points = &outcome.series.points;
    let lasts = points.last().map_or(0.0, |point| seconds(point.at_ms));
    let bands: Vec<Band> = outcome.faults.iter().filter_map(|fault| band(fault, lasts)).collect();
    let node = |(place, node): (usize, &crate::outcome::NodeOutcome)| Line {
        name: node.name.clone(),
        points: points
            .iter()
            .map(|point| (seconds(point.at_ms), point.final_heights.get(place).map(|height| *height as f64)))
            .collect(),
    };
    let chart = |title, unit, lines| Chart { title, unit, lasts, lines, bands: &bands }.render();
    // Between one point and the next.
    let rate: Vec<(f64, Option<f64>)> = points
        .windows(2)
        .map(|pair| {
            let span = seconds(pair[1].at_ms) - seconds(pair[0].at_ms);
            let count = pair[1].committed?.checked_sub(pair[0].committed?)?;
            (span > 0.0).then(|| count as f64 / span)
        })
        .zip(points.iter().skip(1))
        .map(|(rate, point)| (seconds(point.at_ms), rate))
        .collect();
    let latency = points.iter().map(|point| (seconds(point.at_ms), point.latency_ms)).collect();
    let transfers =
        if outcome.is_load_unchecked() { "Transfers final, none signed" } else { "Transfers final" };
    html! {
        section {
            h2 { "What happened" }
            (chart("Final height of each node", "", outcome.nodes.iter().enumerate().map(node).collect()))
            (chart(transfers, "a second", vec![Line { name: "final".to_owned(), points: rate }]))
            (chart("From submit to final, mean", "ms", vec![Line { name: "latency".to_owned(), points: latency }]))
        }
    }
}

fn band(fault: &FaultOutcome, lasts: f64) -> Option<Band> {
    let from = seconds(fault.applied_at_ms?);
    Some(Band { name: fault.id.clone(), from, to: fault.healed_at_ms.map_or(lasts, seconds) })
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn timeline(outcome: &RunOutcome) -> Markup {
    html! {
        section {
            h2 { "Timeline" }
            table.timeline {
                @for event in &outcome.timeline {
                    tr { td { (format!("{:.2} s", seconds(event.at_ms))) } td { (event.text) } }
                }
            }
        }
    }
}

fn nodes(outcome: &RunOutcome) -> Markup {
    html! {
        section {
            h2 { "Nodes at the end" }
            table {
                tr { th { "node" } th { "final height" } th { "block" } }
                @for node in &outcome.nodes {
                    tr { td { (node.name) } td { (node.final_height) } td.id { (node.final_id) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::sample;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_is_given() {
        let mut outcome = sample::failed();
        outcome.verdict.reasons.push("<script>alert(1)</script>".to_owned());
        let page = render(&outcome);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "it needs nothing from outside: {outside}");
        }
        assert!(page.contains("FAILED") && page.contains("class=\"band\""));
    }

    #[test]
    fn transfers_that_nobody_signs_are_told_apart() {
        let mut outcome = sample::passed();
        for (load, unsigned) in [(None, false), (Some(true), false), (Some(false), true)] {
            outcome.load = load.map(|checked| serde_json::json!({ "signaturesChecked": checked }));
            assert_eq!(render(&outcome).contains("Transfers final, none signed"), unsigned);
        }
    }

    #[test]
    fn a_run_without_load_or_links_has_no_empty_charts() {
        let mut outcome = sample::passed();
        outcome.series.points.iter_mut().for_each(|point| (point.committed, point.latency_ms) = (None, None));
        outcome.links.clear();
        let page = render(&outcome);
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(!page.contains("<h2>Links</h2>"));
    }
}
