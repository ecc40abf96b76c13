//! Rules of links that depend on where nodes are.

use std::collections::{BTreeMap, BTreeSet};

use super::{links, region_name};
use crate::links::{BaseLinks, Matrix, MatrixRow};
use crate::report::Report;
use crate::suggest;
use crate::testnet::Testnet;
use crate::wan;

/// Pairs that are named when there are no figures for them.
const LISTED: usize = 4;

/// Without `with_nodes` the nodes are left alone: they could not be read, which was reported.
pub(crate) fn check(report: &mut Report, testnet: &Testnet, with_nodes: bool) {
    let Some(base) = &testnet.links else { return };
    let field = match (&base.regions, &base.matrix) {
        (None, None) => {
            links::check_base(report, "spec.links", &base.links);
            return;
        }
        (Some(_), None) => "regions",
        (_, Some(_)) => "matrix",
    };
    links::check_beside_rows(report, "spec.links", &base.links);
    if base.links.latency.is_some() {
        report.problem(
            "spec.links.latency",
            format!("is given beside `{field}`, which says how long each link takes: remove one of them"),
        );
    }
    let Some(rows) = rows(report, base) else { return };
    if with_nodes {
        nodes(report, testnet, field, &rows);
    }
}

/// `None` if they are not known, which was reported or is to be found out by the caller.
fn rows(report: &mut Report, base: &BaseLinks) -> Option<Vec<MatrixRow>> {
    match (&base.regions, &base.matrix) {
        (Some(_), Some(_)) => {
            report.problem("spec.links.matrix", "is given beside `regions`: remove one of them");
            None
        }
        (Some(name), None) => {
            let rows = wan::rows(name);
            if rows.is_none() {
                report.problem("spec.links.regions", suggest::unknown("pack", name, &wan::names()));
            }
            rows
        }
        (None, Some(Matrix::Rows(rows))) => {
            let before = report.problems.len();
            check_rows(report, rows);
            (report.problems.len() == before).then(|| rows.clone())
        }
        (None, Some(Matrix::File(_)) | None) => None,
    }
}

fn check_rows(report: &mut Report, rows: &[MatrixRow]) {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (n, row) in rows.iter().enumerate() {
        let path = format!("spec.links.matrix[{n}]");
        for (field, name) in [("from", &row.from), ("to", &row.to)] {
            if let Err(problem) = region_name(name) {
                report.problem(&format!("{path}.{field}"), problem);
            }
        }
        for (field, problem) in links::row_problems(&row.links) {
            report.problem(&format!("{path}.{field}"), problem);
        }
        if let Some(first) = seen.insert((&row.from, &row.to), n) {
            report
                .problem(&path, format!("is from and to the regions of spec.links.matrix[{first}] already"));
        }
    }
}

/// Every node is somewhere, and every link between two of them is known.
fn nodes(report: &mut Report, testnet: &Testnet, field: &str, rows: &[MatrixRow]) {
    let known: BTreeSet<&str> = rows.iter().flat_map(|row| [row.from.as_str(), row.to.as_str()]).collect();
    let listed: Vec<&str> = known.iter().copied().collect();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for (n, group) in testnet.nodes.iter().enumerate() {
        let path = format!("spec.nodes[{n}]");
        // A region that could not be read is not missing.
        let known_to_be_wrong = |told: &str| told == path || told.starts_with(&format!("{path}.region"));
        if group.regions.is_empty() && !report.problems.iter().any(|problem| known_to_be_wrong(&problem.path))
        {
            let example = listed.first().copied().unwrap_or("NAME");
            report.problem(
                &path,
                format!("has no `region`, which `links: {{{field}: ...}}` needs: write for example `region: {example}`"),
            );
        }
        let one = group.regions.len() == 1;
        for (k, name) in group.regions.iter().enumerate() {
            if known.contains(name.as_str()) {
                used.insert(name);
            } else {
                let place = if one { "region".to_owned() } else { format!("regions[{k}]") };
                report.problem(&format!("{path}.{place}"), suggest::unknown("region", name, &listed));
            }
        }
    }
    let pairs: BTreeSet<(&str, &str)> = rows.iter().map(|row| (row.from.as_str(), row.to.as_str())).collect();
    let ends = used.iter().flat_map(|from| used.iter().map(move |to| (*from, *to)));
    let missing: Vec<String> = ends
        .filter(|(from, to)| from != to && !pairs.contains(&(*from, *to)))
        .take(LISTED + 1)
        .map(|(from, to)| format!("from `{from}` to `{to}`"))
        .collect();
    if !missing.is_empty() {
        let more = if missing.len() > LISTED { ", and more" } else { "" };
        let missing = missing[..missing.len().min(LISTED)].join(", ");
        report.problem(
            &format!("spec.links.{field}"),
            format!("does not say how long packets take {missing}{more}: a row is one direction"),
        );
    }
}

/// Leaves out the rows of regions that no group names: what is kept of a testnet is no larger than it.
pub(crate) fn trim(testnet: &mut Testnet) {
    let Some(BaseLinks { matrix: Some(Matrix::Rows(rows)), .. }) = &mut testnet.links else { return };
    let named: BTreeSet<&String> = testnet.nodes.iter().flat_map(|group| &group.regions).collect();
    rows.retain(|row| named.contains(&row.from) && named.contains(&row.to));
}
