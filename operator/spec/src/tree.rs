//! YAML text as a small tree with lines. Scalars stay text: what they mean is up to the field that reads them, so
//! `name: no` is a name and not a boolean.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use crate::units::clip;

/// Longest text that is read.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting; the spec needs 7. Bounds every recursion over a tree, dropping it included.
const MAX_DEPTH: usize = 32;
/// Most nodes in one file, those that aliases repeat included: nested aliases would grow without bound.
const MAX_NODES: usize = 50_000;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub line: u32,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar {
        text: String,
        /// It stood in quotes, so it is no number.
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub line: u32,
    pub value: Node,
}

/// A problem of the text itself: line and message.
pub(crate) type TextProblem = (u32, String);

/// The documents up to the first syntax error, and every problem seen on the way.
pub(crate) fn read(text: &str) -> (Vec<Node>, Vec<TextProblem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        return (Vec::new(), vec![(1, format!("the file is larger than {} KiB", MAX_BYTES >> 10))]);
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.event(event, span.start.line() as u32),
            Err(error) => Err(syntax(text, &error)),
        };
        if let Err(problem) = outcome {
            builder.problems.push(problem);
            break;
        }
    }
    (builder.documents, builder.problems)
}

fn syntax(text: &str, error: &ScanError) -> TextProblem {
    let line = error.marker().line().max(1);
    // The parser stops at the line after a tab, or on it.
    let indented_by_tab = |number: usize| {
        let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default();
        line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t')
    };
    if let Some(at) = [line, line.saturating_sub(1)].into_iter().find(|at| *at > 0 && indented_by_tab(*at)) {
        return (at as u32, "a tab cannot indent YAML: use spaces".to_owned());
    }
    (line as u32, format!("not valid YAML: {}", error.info()))
}

/// An object of the Kubernetes API. Its text stands on no line (0).
pub(crate) fn of_json(value: &serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let plain = |text: String| Value::Scalar { text, quoted: false };
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => plain(value.to_string()),
        Json::Number(number) => plain(number.to_string()),
        Json::String(text) => Value::Scalar { text: text.clone(), quoted: true },
        Json::Array(items) => Value::List(items.iter().map(of_json).collect()),
        Json::Object(fields) => {
            let entry =
                |(key, value): (&String, &Json)| Entry { key: key.clone(), line: 0, value: of_json(value) };
            Value::Map(fields.iter().map(entry).collect())
        }
    };
    Node { line: 0, value }
}

struct Frame {
    line: u32,
    anchor: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: BTreeSet<String>, key: Option<Key> },
}

/// `text` is `None` for a key that is no text, or that is there twice: its value is read and dropped.
struct Key {
    text: Option<String>,
    line: u32,
}

struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    problems: Vec<TextProblem>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), TextProblem> {
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), line);
                self.count(1, line)?;
                let plain = style == ScalarStyle::Plain;
                let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar { text: text.into_owned(), quoted: !plain }
                };
                self.place(Node { line, value }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), line);
                self.open(Open::List(Vec::new()), anchor, line)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), line);
                self.open(Open::Map { entries: Vec::new(), seen: BTreeSet::new(), key: None }, anchor, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let value = match frame.open {
                        Open::List(items) => Value::List(items),
                        Open::Map { entries, .. } => Value::Map(entries),
                    };
                    self.place(Node { line: frame.line, value }, frame.anchor);
                }
            }
            Event::Alias(anchor) => self.alias(anchor, line)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tagged: bool, line: u32) {
        if tagged {
            self.problems.push((line, "tags such as `!name` have no meaning here: remove it".to_owned()));
        }
    }

    fn count(&mut self, nodes: usize, line: u32) -> Result<(), TextProblem> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err((
                line,
                format!("more than {MAX_NODES} values in one file, those that aliases repeat included"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, open: Open, anchor: usize, line: u32) -> Result<(), TextProblem> {
        self.count(1, line)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err((line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.stack.push(Frame { line, anchor, open });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, line: u32) -> Result<(), TextProblem> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err((line, "an alias inside the value that it names".to_owned()));
        };
        let (nodes, depth) = (anchored.nodes, anchored.depth);
        if self.stack.len() + depth > MAX_DEPTH {
            return Err((line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.count(nodes, line)?;
        // Lines of a repeated value stay those of its text: that is where a problem in it is repaired.
        if let Some(anchored) = self.anchors.get(&anchor) {
            let node = anchored.node.clone();
            self.place(node, 0);
        }
        Ok(())
    }

    fn place(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            let (nodes, depth) = measure(&node);
            // An anchor's own copy counts too, but a problem of size is found at the next node.
            self.nodes += nodes;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
        }
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, seen, key } => match key.take() {
                None => {
                    let line = node.line;
                    let text = match node.value {
                        Value::Scalar { text, .. } => Some(text),
                        _ => None,
                    };
                    let text = match text {
                        None => {
                            self.problems.push((line, "a field's name must be text".to_owned()));
                            None
                        }
                        Some(text) if !seen.insert(text.clone()) => {
                            self.problems.push((line, format!("field `{}` is given twice", clip(&text))));
                            None
                        }
                        some => some,
                    };
                    *key = Some(Key { text, line });
                }
                Some(Key { text: Some(text), line }) => entries.push(Entry { key: text, line, value: node }),
                Some(Key { text: None, .. }) => {}
            },
        }
    }
}

/// Nodes and depth; recursion is bounded by [`MAX_DEPTH`].
fn measure(node: &Node) -> (usize, usize) {
    let children: Vec<&Node> = match &node.value {
        Value::Null | Value::Scalar { .. } => return (1, 0),
        Value::List(items) => items.iter().collect(),
        Value::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
    };
    children.into_iter().map(measure).fold((1, 1), |(nodes, depth), (n, d)| (nodes + n, depth.max(d + 1)))
}
