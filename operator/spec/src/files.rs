//! Files that a document names: read by the caller, since this crate reads none.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{self, Node, Value};

/// A file that a document names, as the caller found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Where it was found, for problems in it.
    pub path: String,
    /// What it holds, or why it cannot be read.
    pub text: Result<String, String>,
}

/// By their names in the document.
pub type Files = BTreeMap<String, NamedFile>;

/// The files that the documents of `text` name, relative to the place of that text.
pub fn named_files(text: &str) -> BTreeSet<String> {
    let (documents, _) = tree::read(text);
    documents.iter().filter_map(matrix_file).collect()
}

fn matrix_file(document: &Node) -> Option<String> {
    let mut node = document;
    for field in ["spec", "links", "matrix"] {
        let Value::Map(entries) = &node.value else { return None };
        node = &entries.iter().find(|entry| entry.key == field)?.value;
    }
    match &node.value {
        Value::Scalar { text, .. } => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}
