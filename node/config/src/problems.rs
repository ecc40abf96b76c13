//! What is wrong with a file, in terms of the person who wrote it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As in `consensus.block_time_ms` or `validators[2].power`.
    pub field: String,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.text)
    }
}

/// A genesis or configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{} cannot be read", .file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not valid TOML for a node:\n{source}", .file.display())]
    Toml {
        file: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{} is not valid JSON for a genesis: {source}", .file.display())]
    Json {
        file: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} breaks these rules:{}", .file.display(), list(.problems))]
    Rules { file: PathBuf, problems: Vec<Problem> },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |list, problem| format!("{list}\n  {problem}"))
}

/// Collects the problems of one file.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Problem>);

impl Checks {
    /// Notes `text` against `field` unless `holds`.
    pub(crate) fn require(&mut self, holds: bool, field: impl Into<String>, text: impl Into<String>) {
        if !holds {
            self.0.push(Problem { field: field.into(), text: text.into() });
        }
    }

    pub(crate) fn finish(self) -> Result<(), Vec<Problem>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

pub(crate) fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })
}
