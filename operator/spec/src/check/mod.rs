//! The rules, on what could be read. A rule over a part that is missing is not checked: that was reported already.

mod cast;
pub(crate) mod experiment;
mod fault;
pub(crate) mod links;
pub(crate) mod regions;
mod roster;
pub(crate) mod testnet;

pub(crate) use cast::Cast;
pub use cast::select;
pub(crate) use roster::Roster;
pub(crate) use testnet::region_name;

use crate::report::Report;
use crate::units::clip;

/// Longest name that people choose; ordinals and prefixes come on top.
pub(crate) const MAX_NAME: usize = 40;

/// A DNS label: names become host names, file names and object names.
pub(crate) fn label(report: &mut Report, path: &str, name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let shown = clip(name);
    let problem = if name.is_empty() {
        "is empty: a name has 1 to 40 characters".to_owned()
    } else if name.len() > MAX_NAME {
        format!("`{shown}` has {} characters: {MAX_NAME} are the most", name.chars().count())
    } else if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        format!("`{shown}` contains `{}`: only a-z, 0-9 and `-` are allowed", bad.escape_debug())
    } else if name.starts_with('-') || name.ends_with('-') {
        format!("`{shown}` must begin and end with a letter or a digit")
    } else {
        return true;
    };
    report.problem(path, problem);
    false
}
