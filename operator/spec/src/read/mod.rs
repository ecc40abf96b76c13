//! From the tree to the types, collecting problems instead of stopping at the first. A part that cannot be read is
//! reported and left out (`None`), and reading goes on.

pub(crate) mod experiment;
mod links;
pub(crate) mod matrix;
pub(crate) mod testnet;

use std::time::Duration;

use crate::report::Report;
use crate::suggest;
use crate::tree::{Entry, Node, Value};
use crate::units::{self, clip};

/// The fields of a map.
pub(crate) struct Fields<'n> {
    pub path: String,
    entries: &'n [Entry],
    /// Known fields that unknown ones were taken for: to call them missing too would be one problem told twice.
    meant: Vec<String>,
}

impl<'n> Fields<'n> {
    pub fn path(&self, field: &str) -> String {
        join(&self.path, field)
    }

    /// A field with a value; `field:` with nothing behind it is absent.
    pub fn get(&self, field: &str) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| entry.key == field)?;
        (!matches!(entry.value.value, Value::Null)).then_some(&entry.value)
    }

    /// A field that must be there; `example` says what would be right.
    pub fn need(&self, report: &mut Report, field: &str, example: &str) -> Option<&'n Node> {
        let found = self.get(field);
        if found.is_none() && !self.meant.iter().any(|meant| meant == field) {
            report.problem(&self.path(field), format!("is missing: write for example `{example}`"));
        }
        found
    }
}

pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A map with no field but `known`.
pub(crate) fn fields<'n>(
    report: &mut Report,
    node: &'n Node,
    path: &str,
    known: &[&str],
) -> Option<Fields<'n>> {
    let Value::Map(entries) = &node.value else {
        wrong_shape(report, node, path, &format!("fields ({})", quoted_list(known)));
        return None;
    };
    let mut meant = Vec::new();
    for entry in entries {
        let at = join(path, &clip(&entry.key));
        report.stands(&at, entry.line);
        if entry.key == "<<" {
            report.at(
                Some(entry.line),
                &at,
                "merge keys are not supported: repeat the fields, or alias one value",
            );
        } else if !known.contains(&entry.key.as_str()) {
            report.at(Some(entry.line), path, suggest::unknown("field", &entry.key, known));
            // Of one known field there is nothing else to mean.
            let only = known.first().copied().filter(|_| known.len() == 1);
            meant.extend(
                only.or_else(|| suggest::nearest(&entry.key, known.iter().copied())).map(str::to_owned),
            );
        }
    }
    Some(Fields { path: path.to_owned(), entries, meant })
}

fn quoted_list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn wrong_shape(report: &mut Report, node: &Node, path: &str, expected: &str) {
    let found = match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Scalar { text, .. } => format!("`{}`", clip(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    };
    report.stands(path, node.line);
    report.at(Some(node.line), path, format!("expected {expected}, found {found}"));
}

pub(crate) fn list<'n>(
    report: &mut Report,
    node: &'n Node,
    path: &str,
    what: &str,
    max: usize,
) -> Option<Vec<(String, &'n Node)>> {
    let Value::List(items) = &node.value else {
        wrong_shape(report, node, path, &format!("a list of {what}"));
        return None;
    };
    if items.len() > max {
        report.problem(path, format!("{} entries: {max} are the most", items.len()));
        return None;
    }
    let items: Vec<_> = items.iter().enumerate().map(|(n, item)| (format!("{path}[{n}]"), item)).collect();
    for (path, item) in &items {
        report.stands(path, item.line);
    }
    Some(items)
}

fn scalar<'n>(report: &mut Report, node: &'n Node, path: &str, expected: &str) -> Option<(&'n str, bool)> {
    let Value::Scalar { text, quoted } = &node.value else {
        wrong_shape(report, node, path, expected);
        return None;
    };
    Some((text, *quoted))
}

pub(crate) fn text(report: &mut Report, node: &Node, path: &str, what: &str) -> Option<String> {
    scalar(report, node, path, what).map(|(text, _)| text.to_owned())
}

pub(crate) fn number(report: &mut Report, node: &Node, path: &str) -> Option<u64> {
    let (text, quoted) = scalar(report, node, path, "a whole number")?;
    match text.parse::<u64>() {
        Ok(number) if !quoted => return Some(number),
        Ok(_) => wrong_shape(report, node, path, "a number without quotes"),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => {
            report.at(Some(node.line), path, format!("`{}` is too large", clip(text)));
        }
        Err(_) => wrong_shape(report, node, path, "a whole number, 0 or more"),
    }
    None
}

/// A number between two bounds.
pub(crate) fn count(report: &mut Report, node: &Node, path: &str) -> Option<u32> {
    let number = number(report, node, path)?;
    let small = u32::try_from(number).ok();
    if small.is_none() {
        report.at(Some(node.line), path, format!("`{number}` is too large"));
    }
    small
}

pub(crate) fn boolean(report: &mut Report, node: &Node, path: &str) -> Option<bool> {
    match scalar(report, node, path, "`true` or `false`")? {
        ("true", false) => Some(true),
        ("false", false) => Some(false),
        _ => {
            wrong_shape(report, node, path, "`true` or `false`");
            None
        }
    }
}

/// `on` or `off`, which some readers of YAML take for `true` and `false`.
pub(crate) fn switch(report: &mut Report, node: &Node, path: &str) -> Option<bool> {
    match scalar(report, node, path, "`on` or `off`")? {
        ("on" | "true", false) => Some(true),
        ("off" | "false", false) => Some(false),
        _ => {
            wrong_shape(report, node, path, "`on` or `off`");
            None
        }
    }
}

pub(crate) fn duration(report: &mut Report, node: &Node, path: &str) -> Option<Duration> {
    unit(report, node, path, "a duration such as `20s`", units::parse_duration)
}

/// A scalar with a unit of its own.
pub(crate) fn unit<T>(
    report: &mut Report,
    node: &Node,
    path: &str,
    expected: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Option<T> {
    let (text, _) = scalar(report, node, path, expected)?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(message) => {
            report.at(Some(node.line), path, message);
            None
        }
    }
}

pub(crate) fn rate(report: &mut Report, node: &Node, path: &str) -> Option<u32> {
    let (text, _) = scalar(report, node, path, "a rate such as `500/s`")?;
    match units::parse_rate(text)
        .and_then(|rate| u32::try_from(rate).map_err(|_| format!("`{rate}` is too large")))
    {
        Ok(rate) => Some(rate),
        Err(message) => {
            report.at(Some(node.line), path, message);
            None
        }
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    report: &mut Report,
    node: &Node,
    path: &str,
    what: &str,
    choices: &[(&str, T)],
) -> Option<T> {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let (text, _) = scalar(report, node, path, &format!("one of {}", quoted_list(&words)))?;
    let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        report.at(Some(node.line), path, suggest::unknown(what, text, &words));
    }
    found
}
