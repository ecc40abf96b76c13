//! Reads a link's quality.

use super::matrix::MAX_ROWS;
use super::{Fields, duration, fields, list, text, unit};
use crate::files::Files;
use crate::links::{BaseLinks, Links, Matrix, MatrixRow};
use crate::report::Report;
use crate::tree::{Node, Value};
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

/// Of a testnet. `files`: what the files hold that the text names, if they are to be read now. `None` if it cannot be told
/// what the links depend on, which was reported.
pub(crate) fn read_base(report: &mut Report, node: &Node, files: Option<&Files>) -> Option<BaseLinks> {
    let known: Vec<&str> = ["regions", "matrix"].into_iter().chain(FIELDS).collect();
    let base = fields(report, node, "spec.links", &known)?;
    let links = read(report, &base);
    let regions =
        base.get("regions").and_then(|node| text(report, node, &base.path("regions"), "a pack's name"));
    let matrix = base.get("matrix").and_then(|node| read_matrix(report, node, &base.path("matrix"), files));
    // What the other fields may be depends on these two: without one of them that is not known.
    let whole = regions.is_some() == base.get("regions").is_some()
        && matrix.is_some() == base.get("matrix").is_some();
    whole.then_some(BaseLinks { regions, matrix, links })
}

fn read_matrix(report: &mut Report, node: &Node, path: &str, files: Option<&Files>) -> Option<Matrix> {
    if let Value::Scalar { text, .. } = &node.value {
        let rows = files.and_then(|files| read_file(report, node, path, text, files));
        return Some(rows.map_or_else(|| Matrix::File(text.clone()), Matrix::Rows));
    }
    let items = list(report, node, path, "rows, or the name of a file", MAX_ROWS)?;
    let before = report.problems.len();
    let rows: Vec<_> = items.into_iter().filter_map(|(path, item)| read_row(report, item, &path)).collect();
    // Whom a row that could not be read was about is not known: nothing is said of what is missing.
    (report.problems.len() == before).then_some(Matrix::Rows(rows))
}

fn read_row(report: &mut Report, node: &Node, path: &str) -> Option<MatrixRow> {
    let known: Vec<&str> = ["from", "to"].into_iter().chain(FIELDS).collect();
    let row = fields(report, node, path, &known)?;
    let links = read(report, &row);
    let mut region = |field: &str| {
        let node = row.need(report, field, &format!("{field}: eu-west-1"))?;
        text(report, node, &row.path(field), "a region's name")
    };
    let (from, to) = (region("from"), region("to"));
    Some(MatrixRow { from: from?, to: to?, links })
}

/// `None` if it has a problem, which was reported.
fn read_file(
    report: &mut Report,
    node: &Node,
    path: &str,
    name: &str,
    files: &Files,
) -> Option<Vec<MatrixRow>> {
    let before = report.problems.len();
    let found = files.get(name).map(|file| (&file.path, &file.text));
    let Some((file, Ok(text))) = found else {
        let why =
            found.and_then(|(_, text)| text.as_ref().err()).map_or("it was not looked for", String::as_str);
        report.at(Some(node.line), path, format!("cannot read `{}`: {why}", units::clip(name)));
        return None;
    };
    let rows = super::matrix::read(text, &mut |line, problem| report.elsewhere(file, line, path, problem));
    (report.problems.len() == before).then_some(rows)
}
