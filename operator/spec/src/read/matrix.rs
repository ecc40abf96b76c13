//! Reads a matrix of links between regions from text with commas: one line names the columns, each further one is a row.

use std::collections::BTreeMap;
use std::time::Duration;

use super::links::FIELDS;
use crate::check::{links, region_name};
use crate::links::MatrixRow;
use crate::suggest;
use crate::tree::MAX_BYTES;
use crate::units::{clip, parse_bits, parse_duration, parse_milliseconds, parse_share};

/// 100 regions.
pub(crate) const MAX_ROWS: usize = 10_000;

const ENDS: [&str; 2] = ["from", "to"];
/// In place of `latency`: there and back.
const ROUND_TRIP: &str = "rtt_ms";

/// The rows without a problem; each problem is told with its line.
pub(crate) fn read(text: &str, tell: &mut dyn FnMut(u32, String)) -> Vec<MatrixRow> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        tell(1, format!("the file is larger than {} KiB", MAX_BYTES >> 10));
        return Vec::new();
    }
    let lines = text.lines().zip(1u32..).map(|(line, number)| (number, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let Some((number, head)) = lines.next() else {
        tell(1, "is empty: the first line names the columns, such as `from,to,rtt_ms`".to_owned());
        return Vec::new();
    };
    let columns: Vec<&str> = head.split(',').map(str::trim).collect();
    let problems = wrong_columns(&columns);
    if !problems.is_empty() {
        for problem in problems {
            tell(number, problem);
        }
        return Vec::new();
    }
    let mut rows = Vec::new();
    let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
    for (number, line) in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() != columns.len() {
            tell(number, format!("has {} values, but there are {} columns", cells.len(), columns.len()));
            continue;
        }
        if rows.len() == MAX_ROWS {
            tell(number, format!("more than {MAX_ROWS} rows"));
            break;
        }
        let Some(row) = read_row(&columns, &cells, &mut |problem| tell(number, problem)) else { continue };
        if let Some(first) = seen.insert((row.from.clone(), row.to.clone()), number) {
            tell(
                number,
                format!("the row from `{}` to `{}` is there already (line {first})", row.from, row.to),
            );
        }
        rows.push(row);
    }
    rows
}

fn wrong_columns(columns: &[&str]) -> Vec<String> {
    let known: Vec<&str> = ENDS.into_iter().chain([ROUND_TRIP]).chain(FIELDS).collect();
    let has = |name: &str| columns.contains(&name);
    let mut problems: Vec<String> = columns
        .iter()
        .filter(|column| !known.contains(column))
        .map(|column| suggest::unknown("column", column, &known))
        .collect();
    let twice = known.iter().filter(|name| columns.iter().filter(|column| column == name).count() > 1);
    problems.extend(twice.map(|name| format!("column `{name}` is given twice")));
    if problems.is_empty() {
        let missing = ENDS.into_iter().filter(|name| !has(name));
        problems.extend(
            missing.map(|name| format!("column `{name}` is missing: a row is from one region to another")),
        );
        if has("latency") == has(ROUND_TRIP) {
            problems.push(
                "must have one of the columns `latency` (one way, such as `20ms`) and `rtt_ms` (there and back, in \
                 milliseconds)"
                    .to_owned(),
            );
        }
    }
    problems
}

/// An empty value is not given.
fn read_row(columns: &[&str], cells: &[&str], tell: &mut dyn FnMut(String)) -> Option<MatrixRow> {
    let mut row = MatrixRow::default();
    let mut whole = true;
    for (column, cell) in columns.iter().copied().zip(cells.iter().copied()) {
        let links = &mut row.links;
        let read = match column {
            "from" => region_name(cell).map(|()| cell.clone_into(&mut row.from)),
            "to" => region_name(cell).map(|()| cell.clone_into(&mut row.to)),
            _ if cell.is_empty() => Ok(()),
            ROUND_TRIP => parse_milliseconds(cell).map(|rtt| links.latency = Some(half(rtt))),
            "latency" => parse_duration(cell).map(|value| links.latency = Some(value)),
            "jitter" => parse_duration(cell).map(|value| links.jitter = Some(value)),
            "loss" => parse_share(cell).map(|value| links.loss = Some(value)),
            "rate" => parse_bits(cell).map(|value| links.rate = Some(value)),
            "duplicate" => parse_share(cell).map(|value| links.duplicate = Some(value)),
            "reorder" => parse_share(cell).map(|value| links.reorder = Some(value)),
            "corrupt" => parse_share(cell).map(|value| links.corrupt = Some(value)),
            other => Err(format!("unknown column `{}`", clip(other))),
        };
        if let Err(problem) = read {
            tell(format!("{column}: {problem}"));
            whole = false;
        }
    }
    if !whole {
        return None;
    }
    let problems = links::row_problems(&row.links);
    for (field, problem) in &problems {
        tell(format!("{field}: {problem}"));
    }
    problems.is_empty().then_some(row)
}

/// One way: no source tells more of a round trip. Whole microseconds.
fn half(rtt: Duration) -> Duration {
    Duration::from_micros(rtt.as_micros() as u64 / 2)
}
