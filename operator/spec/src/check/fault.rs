//! Rules of what one fault does: every name is found, everyone's place is clear.

use std::collections::BTreeMap;

use super::{Cast, Roster, links};
use crate::experiment::{Cut, FaultKind, Rest};
use crate::links::LinkChange;
use crate::report::Report;
use crate::suggest;
use crate::units::clip;
use crate::valid::{NodeIndex, ValidFaultKind};

/// `None` if there was a problem.
pub(crate) fn check(
    report: &mut Report,
    path: &str,
    kind: &FaultKind,
    cast: &mut Cast<'_>,
) -> Option<ValidFaultKind> {
    match kind {
        FaultKind::Partition { partition, rest } => {
            partition_of(report, path, partition, rest.as_ref(), cast)
        }
        FaultKind::Cut { cut } => cut_of(report, &format!("{path}.cut"), cut, cast),
        FaultKind::Link { link } => link_of(report, &format!("{path}.link"), link, cast),
        FaultKind::Kill { .. } | FaultKind::Pause { .. } | FaultKind::Restart { .. } => {
            let (what, selectors) = kind.of_nodes()?;
            let nodes = selected(report, &format!("{path}.{}", what.as_str()), selectors, cast)?;
            Some(ValidFaultKind::Nodes { what, nodes })
        }
    }
}

fn link_of(
    report: &mut Report,
    path: &str,
    link: &LinkChange,
    cast: &mut Cast<'_>,
) -> Option<ValidFaultKind> {
    let before = report.problems.len();
    let (from, to) = ends(report, path, &link.from, &link.to, cast);
    links::check(report, path, &link.links);
    if link.links.is_empty() {
        report.problem(path, "changes nothing: write for example `latency: 80ms` or `loss: 2%`");
    }
    let (from, to) = (from?, to?);
    if from.len() == 1 && from == to {
        report.problem(path, format!("is from `{}` to itself: name two nodes", cast.roster.name(from[0])));
    }
    let valid = ValidFaultKind::Link { from, to, one_way: link.one_way, links: link.links };
    (report.problems.len() == before).then_some(valid)
}

fn cut_of(report: &mut Report, path: &str, cut: &Cut, cast: &mut Cast<'_>) -> Option<ValidFaultKind> {
    let (from, to) = ends(report, path, &cut.from, &cut.to, cast);
    let (from, to) = (from?, to?);
    if from.len() == 1 && from == to {
        report.problem(path, format!("cuts `{}` off from itself: name two nodes", cast.roster.name(from[0])));
        return None;
    }
    Some(ValidFaultKind::Cut { from, to, one_way: cut.one_way })
}

type Nodes = Option<Vec<NodeIndex>>;

/// Of links. A random pick for one end is none of the nodes that the other end names one by one, or has picked.
fn ends(
    report: &mut Report,
    path: &str,
    from: &[String],
    to: &[String],
    cast: &mut Cast<'_>,
) -> (Nodes, Nodes) {
    cast.reserve_single(to);
    let from = selected(report, &format!("{path}.from"), from, cast);
    (from, selected(report, &format!("{path}.to"), to, cast))
}

/// Sorted; the same node may be named twice, by itself and by its group.
fn selected(
    report: &mut Report,
    path: &str,
    selectors: &[String],
    cast: &mut Cast<'_>,
) -> Option<Vec<NodeIndex>> {
    if selectors.is_empty() {
        report.problem(path, "names no node");
        return None;
    }
    cast.reserve_single(selectors);
    let mut nodes = Vec::new();
    let mut whole = true;
    for (n, selector) in selectors.iter().enumerate() {
        let place = format!("{path}[{n}]");
        match cast.find(&place, selector) {
            Ok(found) => nodes.extend(found),
            Err(message) => {
                report.problem(&place, message);
                whole = false;
            }
        }
    }
    nodes.sort_unstable();
    nodes.dedup();
    whole.then_some(nodes)
}

fn partition_of(
    report: &mut Report,
    path: &str,
    partition: &[Vec<String>],
    rest: Option<&Rest>,
    cast: &mut Cast<'_>,
) -> Option<ValidFaultKind> {
    let roster = cast.roster;
    let before = report.problems.len();
    // Who has a place already is not picked for another one.
    for side in partition {
        cast.reserve_all(side);
    }
    let mut sides: Vec<Vec<NodeIndex>> = vec![Vec::new(); partition.len()];
    // Where each node stands, and by which word it was put there.
    let mut placed: BTreeMap<NodeIndex, (usize, &str)> = BTreeMap::new();
    for (side, selectors) in partition.iter().enumerate() {
        let path = format!("{path}.partition[{side}]");
        if selectors.is_empty() {
            report.problem(&path, "names no node");
        }
        for (n, selector) in selectors.iter().enumerate() {
            let path = format!("{path}[{n}]");
            match cast.find(&path, selector) {
                Err(message) => report.problem(&path, message),
                Ok(found) => {
                    if let Some(message) = place(&found, side, selector, &mut placed, roster) {
                        report.problem(&path, message);
                    }
                }
            }
        }
    }
    for (node, (side, _)) in &placed {
        sides[*side].push(*node);
    }
    if report.problems.len() > before {
        return None;
    }
    let others: Vec<NodeIndex> =
        (0..roster.nodes().len()).filter(|node| !placed.contains_key(node)).collect();
    match rest {
        None if !others.is_empty() => {
            report.problem(
                &format!("{path}.partition"),
                format!(
                    "does not say where {} stand{}: name every node, or add `rest: isolate`, `rest: bridge` or the side they join",
                    named(&others, roster),
                    if others.len() == 1 { "s" } else { "" }
                ),
            );
        }
        None => {}
        Some(rest) => join(report, path, rest, &others, &mut sides, &placed, roster),
    }
    if report.problems.len() == before && sides.len() < 2 {
        report.problem(&format!("{path}.partition"), "has one side only: nothing would be cut");
    }
    (report.problems.len() == before).then_some(ValidFaultKind::Partition { sides })
}

/// A message if some node stands somewhere already.
fn place<'a>(
    found: &[NodeIndex],
    side: usize,
    selector: &'a str,
    placed: &mut BTreeMap<NodeIndex, (usize, &'a str)>,
    roster: &Roster,
) -> Option<String> {
    let mut message = None;
    for node in found {
        if let Some((first, by)) = placed.get(node) {
            let name = roster.name(*node);
            let how = if *by == name { String::new() } else { format!(", as part of `{by}`") };
            message.get_or_insert(format!("`{name}` stands on side {first} already{how}"));
        } else {
            placed.insert(*node, (side, selector));
        }
    }
    message
}

/// Puts the nodes that no side names where `rest` says.
fn join(
    report: &mut Report,
    path: &str,
    rest: &Rest,
    others: &[NodeIndex],
    sides: &mut Vec<Vec<NodeIndex>>,
    placed: &BTreeMap<NodeIndex, (usize, &str)>,
    roster: &Roster,
) {
    let path = format!("{path}.rest");
    let side = match rest {
        Rest::Word(word) if word == "bridge" => return,
        Rest::Word(word) if word == "isolate" => {
            sides.extend(others.iter().map(|node| vec![*node]));
            return;
        }
        Rest::Side(side) if *side < sides.len() => *side,
        Rest::Side(side) => {
            report.problem(
                &path,
                format!("there is no side {side}: the last is {}", sides.len().saturating_sub(1)),
            );
            return;
        }
        Rest::Word(word) => match side_of(word, placed, roster) {
            Ok(side) => side,
            Err(message) => {
                report.problem(&path, message);
                return;
            }
        },
    };
    sides[side].extend(others);
    sides[side].sort_unstable();
}

/// The side on which all of a group or node stands.
fn side_of(
    word: &str,
    placed: &BTreeMap<NodeIndex, (usize, &str)>,
    roster: &Roster,
) -> Result<usize, String> {
    let nodes = roster.find(word).map_err(|message| {
        let near = suggest::nearest(word, ["bridge", "isolate"]);
        near.map_or(message, |near| format!("unknown place `{}`, did you mean `{near}`?", clip(word)))
    })?;
    let mut sides: Vec<usize> =
        nodes.iter().filter_map(|node| placed.get(node).map(|(side, _)| *side)).collect();
    let all_placed = sides.len() == nodes.len();
    sides.dedup();
    match sides[..] {
        [side] if all_placed => Ok(side),
        [] => Err(format!("`{word}` stands on no side itself: name one that does, or a side's number")),
        _ => Err(format!("`{word}` does not stand on one side: name a node, or a side's number")),
    }
}

fn named(nodes: &[NodeIndex], roster: &Roster) -> String {
    const LISTED: usize = 6;
    let mut names: Vec<String> =
        nodes.iter().take(LISTED).map(|node| format!("`{}`", roster.name(*node))).collect();
    if nodes.len() > LISTED {
        names.push(format!("{} more", nodes.len() - LISTED));
    }
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}
