//! Problems in a spec: where, what is wrong, what would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One problem, told so that its reader can repair it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// As given to [`crate::parse`], or one that a document names; empty for specs that were not read from a file.
    pub file: String,
    /// From 1; absent for specs that were not read from a file.
    pub line: Option<u32>,
    /// `kind/name`, once known: paths repeat between the documents of a file.
    pub document: String,
    /// `spec.nodes[1].count`; empty for a whole document or file.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}", self.file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if !self.document.is_empty() {
            write!(f, "{}: ", self.document)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Every problem found, in the order of each file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// At most this many are kept: a file that is wrong everywhere is not worth a longer list.
    pub const MAX: usize = 100;

    /// `None` if there are none.
    pub(crate) fn new(found: Vec<Problem>) -> Option<Self> {
        (!found.is_empty()).then(|| Self::of(found))
    }

    /// Of problems that are known to be there.
    pub(crate) fn of(mut found: Vec<Problem>) -> Self {
        // A document may name another file, in which there are problems too.
        found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        found.dedup();
        if found.len() > Self::MAX {
            let left = found.len() - Self::MAX;
            found.truncate(Self::MAX);
            found.push(Problem {
                file: found[0].file.clone(),
                line: None,
                document: String::new(),
                path: String::new(),
                message: format!("{left} more problems are not listed"),
            });
        }
        Self(found)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Where the fields of a document stand in its file. Two documents that differ only in it are equal.
#[derive(Clone, Default)]
pub struct Origin {
    file: Arc<str>,
    lines: Arc<BTreeMap<String, u32>>,
}

impl Origin {
    pub(crate) fn new(file: &str, lines: BTreeMap<String, u32>) -> Self {
        Self { file: file.into(), lines: Arc::new(lines) }
    }

    /// Empty for a document that was made by a program.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line of a path, or of the nearest enclosing one: a missing field stands nowhere itself.
    pub fn line(&self, path: &str) -> Option<u32> {
        line_of(&self.lines, path)
    }
}

pub(crate) fn line_of(lines: &BTreeMap<String, u32>, path: &str) -> Option<u32> {
    let mut path = path;
    loop {
        if let Some(line) = lines.get(path) {
            return Some(*line);
        }
        match path.rfind(['.', '[']) {
            Some(end) => path = &path[..end],
            None if path.is_empty() => return None,
            None => path = "",
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.file)
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}
