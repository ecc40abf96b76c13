//! Collects the problems of one document, with their places.

use std::collections::BTreeMap;

use crate::problem::{Origin, Problem, line_of};
use crate::units::clip;

pub(crate) struct Report {
    origin: Origin,
    /// Grows while the document is read; `origin` holds it for one that was read before.
    lines: BTreeMap<String, u32>,
    document: String,
    pub problems: Vec<Problem>,
}

impl Report {
    pub fn reading(file: &str) -> Self {
        Self {
            origin: Origin::new(file, BTreeMap::new()),
            lines: BTreeMap::new(),
            document: String::new(),
            problems: Vec::new(),
        }
    }

    pub fn checking(origin: &Origin, kind: &str, name: &str) -> Self {
        let mut report = Self {
            origin: origin.clone(),
            lines: BTreeMap::new(),
            document: String::new(),
            problems: Vec::new(),
        };
        report.about(kind, name);
        report
    }

    /// Names the document in the problems that follow.
    pub fn about(&mut self, kind: &str, name: &str) {
        self.document = if name.is_empty() { kind.to_owned() } else { format!("{kind}/{}", clip(name)) };
    }

    /// Remembers where a path stands.
    pub fn stands(&mut self, path: &str, line: u32) {
        self.lines.entry(path.to_owned()).or_insert(line);
    }

    /// All places remembered; problems that follow find theirs in it.
    pub fn close(&mut self) -> Origin {
        let origin = Origin::new(self.origin.file(), std::mem::take(&mut self.lines));
        self.origin = origin.clone();
        origin
    }

    pub fn document(&self) -> &str {
        &self.document
    }

    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    pub fn line(&self, path: &str) -> Option<u32> {
        if self.lines.is_empty() { self.origin.line(path) } else { line_of(&self.lines, path) }
    }

    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        let line = self.line(path);
        self.at(line, path, message);
    }

    /// In another file, which the document names.
    pub fn elsewhere(&mut self, file: &str, line: u32, path: &str, message: impl Into<String>) {
        self.at(Some(line), path, message);
        if let Some(problem) = self.problems.last_mut() {
            file.clone_into(&mut problem.file);
        }
    }

    pub fn at(&mut self, line: Option<u32>, path: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            file: self.origin.file().to_owned(),
            // What was not read from text stands on no line.
            line: line.filter(|line| *line > 0),
            document: self.document.clone(),
            path: path.to_owned(),
            message: message.into(),
        });
    }
}
