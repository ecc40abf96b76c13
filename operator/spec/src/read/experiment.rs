//! Reads an `Experiment`'s spec into a draft, in which each part may be missing.

use std::time::Duration;

use super::{Fields, boolean, count, duration, fields, links, list, number, rate, text, unit};
use crate::check::experiment::{MAX_EXPECTATIONS, MAX_FAULTS, MAX_SELECTORS, MAX_SIDES};
use crate::experiment::{Abort, Cut, Expectation, Experiment, Fault, FaultKind, LatencyLimits, Ramp, Rest};
use crate::links::LinkChange;
use crate::report::Report;
use crate::tree::{Node, Value};
use crate::units::{self, clip};

pub(crate) const FIELDS: &[&str] = &["testnet", "faults", "expect", "baseline", "settle", "abort"];

/// What could be read; `None` was reported, unless the field is optional and absent.
#[derive(Default)]
pub(crate) struct Draft {
    pub name: String,
    pub testnet: Option<String>,
    pub faults: Vec<FaultDraft>,
    pub expect: Vec<ExpectDraft>,
    pub baseline: Option<Duration>,
    pub settle: Option<Duration>,
    pub abort: Option<Abort>,
    /// Nothing was left out: rules over the whole may be checked.
    pub whole: bool,
}

pub(crate) struct FaultDraft {
    pub name: Option<String>,
    pub at: Option<Duration>,
    pub lasts: Option<Duration>,
    pub every: Option<Duration>,
    pub repeat: Option<u32>,
    pub ramp: Option<Ramp>,
    pub kind: Option<FaultKind>,
}

pub(crate) struct ExpectDraft {
    /// One of [`WORDS`]; empty if it could not be read.
    pub word: &'static str,
    pub within: Option<Duration>,
    pub after: Option<String>,
    pub latency: LatencyLimits,
    pub at_least: Option<u32>,
}

impl ExpectDraft {
    fn new(word: &'static str) -> Self {
        Self { word, within: None, after: None, latency: LatencyLimits::default(), at_least: None }
    }
}

impl From<&Experiment> for Draft {
    fn from(experiment: &Experiment) -> Self {
        Self {
            name: experiment.name.clone(),
            testnet: Some(experiment.testnet.clone()),
            faults: experiment.faults.iter().map(FaultDraft::from).collect(),
            expect: experiment.expect.iter().map(ExpectDraft::from).collect(),
            baseline: experiment.baseline,
            settle: experiment.settle,
            abort: experiment.abort,
            whole: true,
        }
    }
}

impl From<&Fault> for FaultDraft {
    fn from(fault: &Fault) -> Self {
        Self {
            name: fault.name.clone(),
            at: Some(fault.at),
            lasts: Some(fault.lasts),
            every: fault.every,
            repeat: fault.repeat,
            ramp: fault.ramp,
            kind: Some(fault.kind.clone()),
        }
    }
}

impl From<&Expectation> for ExpectDraft {
    fn from(expectation: &Expectation) -> Self {
        match expectation {
            Expectation::Stall { within, after } => {
                Self { within: Some(*within), after: after.clone(), ..Self::new("stall") }
            }
            Expectation::Recover { within, after } => {
                Self { within: Some(*within), after: after.clone(), ..Self::new("recover") }
            }
            Expectation::Progress { within } => Self { within: Some(*within), ..Self::new("progress") },
            Expectation::Agreement {} => Self::new("agreement"),
            Expectation::Validity {} => Self::new("validity"),
            Expectation::Latency(limits) => Self { latency: *limits, ..Self::new("latency") },
            Expectation::Throughput { at_least } => {
                Self { at_least: Some(*at_least), ..Self::new("throughput") }
            }
        }
    }
}

impl Draft {
    /// The experiment, if every part of it could be read.
    pub fn finish(&self, origin: crate::Origin) -> Option<Experiment> {
        let fault = |draft: &FaultDraft| {
            Some(Fault {
                name: draft.name.clone(),
                at: draft.at?,
                lasts: draft.lasts?,
                every: draft.every,
                repeat: draft.repeat,
                ramp: draft.ramp,
                kind: draft.kind.clone()?,
            })
        };
        let expectation = |draft: &ExpectDraft| {
            Some(match draft.word {
                "stall" => Expectation::Stall { within: draft.within?, after: draft.after.clone() },
                "recover" => Expectation::Recover { within: draft.within?, after: draft.after.clone() },
                "progress" => Expectation::Progress { within: draft.within? },
                "agreement" => Expectation::Agreement {},
                "validity" => Expectation::Validity {},
                "latency" => Expectation::Latency(draft.latency),
                "throughput" => Expectation::Throughput { at_least: draft.at_least? },
                _ => return None,
            })
        };
        Some(Experiment {
            name: self.name.clone(),
            testnet: self.testnet.clone()?,
            faults: self.faults.iter().map(fault).collect::<Option<_>>()?,
            expect: self.expect.iter().map(expectation).collect::<Option<_>>()?,
            baseline: self.baseline,
            settle: self.settle,
            abort: self.abort,
            origin,
        })
    }
}

/// `spec` is `None` if it is missing, which was reported.
pub(crate) fn read(report: &mut Report, spec: Option<&Node>, name: String) -> Draft {
    let mut draft = Draft { name, ..Draft::default() };
    let before = report.problems.len();
    let Some(spec) = spec.and_then(|spec| fields(report, spec, "spec", FIELDS)) else {
        return draft;
    };
    draft.testnet = spec
        .need(report, "testnet", "testnet: quickstart")
        .and_then(|node| text(report, node, "spec.testnet", "a testnet's name"));
    draft.baseline = spec.get("baseline").and_then(|node| duration(report, node, "spec.baseline"));
    draft.settle = spec.get("settle").and_then(|node| duration(report, node, "spec.settle"));
    draft.abort = spec.get("abort").and_then(|node| read_abort(report, node));
    if let Some(node) = spec.get("faults") {
        let items = list(report, node, "spec.faults", "faults", MAX_FAULTS).unwrap_or_default();
        draft.faults = items.into_iter().map(|(path, item)| read_fault(report, item, &path)).collect();
    }
    if let Some(node) = spec.get("expect") {
        let items = list(report, node, "spec.expect", "expectations", MAX_EXPECTATIONS).unwrap_or_default();
        draft.expect = items.into_iter().map(|(path, item)| read_expectation(report, item, &path)).collect();
    }
    draft.whole = report.problems.len() == before;
    draft
}

fn read_abort(report: &mut Report, node: &Node) -> Option<Abort> {
    let abort = fields(report, node, "spec.abort", &["silent"])?;
    let silent = abort.get("silent").and_then(|node| duration(report, node, &abort.path("silent")));
    if abort.get("silent").is_none() {
        report.problem("spec.abort", "ends nothing: write for example `silent: 60s`");
    }
    Some(Abort { silent })
}

fn read_fault(report: &mut Report, node: &Node, path: &str) -> FaultDraft {
    let mut draft =
        FaultDraft { name: None, at: None, lasts: None, every: None, repeat: None, ramp: None, kind: None };
    let known = [
        "name",
        "at",
        "for",
        "every",
        "repeat",
        "ramp",
        "partition",
        "rest",
        "cut",
        "link",
        "kill",
        "pause",
        "restart",
    ];
    let Some(fault) = fields(report, node, path, &known) else {
        return draft;
    };
    draft.name = fault.get("name").and_then(|node| text(report, node, &fault.path("name"), "a name"));
    draft.at = fault.need(report, "at", "at: 5s").and_then(|node| duration(report, node, &fault.path("at")));
    draft.lasts =
        fault.need(report, "for", "for: 15s").and_then(|node| duration(report, node, &fault.path("for")));
    draft.every = fault.get("every").and_then(|node| duration(report, node, &fault.path("every")));
    draft.repeat = fault.get("repeat").and_then(|node| count(report, node, &fault.path("repeat")));
    draft.ramp = fault.get("ramp").and_then(|node| read_ramp(report, node, &fault.path("ramp")));
    for (given, wanted, example) in [("every", "repeat", "repeat: 5"), ("repeat", "every", "every: 30s")] {
        if fault.get(given).is_some() && fault.get(wanted).is_none() {
            report.problem(
                &fault.path(given),
                format!("needs `{wanted}` beside it: write for example `{example}`"),
            );
        }
    }
    let kinds = ["partition", "cut", "link", "kill", "pause", "restart"];
    let kinds = kinds.map(|kind| fault.get(kind).map(|node| (kind, node)));
    let given: Vec<(&str, &Node)> = kinds.into_iter().flatten().collect();
    if fault.get("rest").is_some() && fault.get("partition").is_none() && !given.is_empty() {
        report.problem(&fault.path("rest"), "only a `partition` has a `rest`: remove it");
    }
    draft.kind = match given[..] {
        [("partition", node)] => read_partition(report, &fault, node),
        [("cut", node)] => read_cut(report, node, &fault.path("cut")).map(|cut| FaultKind::Cut { cut }),
        [("kill", node)] => selectors(report, node, &fault.path("kill")).map(|kill| FaultKind::Kill { kill }),
        [("pause", node)] => {
            selectors(report, node, &fault.path("pause")).map(|pause| FaultKind::Pause { pause })
        }
        [("restart", node)] => {
            selectors(report, node, &fault.path("restart")).map(|restart| FaultKind::Restart { restart })
        }
        [(_, node)] => read_link(report, node, &fault.path("link")).map(|link| FaultKind::Link { link }),
        [(first, _), (second, _), ..] => {
            report.problem(path, format!("has both `{first}` and `{second}`: make two faults of it"));
            None
        }
        [] => {
            report.problem(
                path,
                "does nothing: write `partition: [[a, b], [c, d]]`, `cut: {from: [a], to: [b]}`, \
                 `link: {from: [a], to: [b], latency: 80ms}`, `kill: [a]`, `pause: [a]` or `restart: [a]`",
            );
            None
        }
    };
    draft
}

fn read_ramp(report: &mut Report, node: &Node, path: &str) -> Option<Ramp> {
    let ramp = fields(report, node, path, &["over", "latency", "loss"])?;
    let over = ramp.need(report, "over", "over: 10s");
    let over = over.and_then(|node| duration(report, node, &ramp.path("over")));
    let latency = ramp.get("latency").and_then(|node| duration(report, node, &ramp.path("latency")));
    let loss = ramp
        .get("loss")
        .and_then(|node| unit(report, node, &ramp.path("loss"), "a share such as `2%`", units::parse_share));
    Some(Ramp { over: over?, latency, loss })
}

fn read_partition(report: &mut Report, fault: &Fields<'_>, node: &Node) -> Option<FaultKind> {
    let path = fault.path("partition");
    let sides = list(report, node, &path, "sides, each a list of nodes", MAX_SIDES)?;
    let sides: Vec<_> = sides.into_iter().map(|(path, side)| selectors(report, side, &path)).collect();
    let rest = match fault.get("rest") {
        None => Some(None),
        Some(node) => read_rest(report, node, &fault.path("rest")).map(Some),
    };
    Some(FaultKind::Partition { partition: sides.into_iter().collect::<Option<_>>()?, rest: rest? })
}

fn read_rest(report: &mut Report, node: &Node, path: &str) -> Option<Rest> {
    if let Value::Scalar { text, quoted: false } = &node.value
        && text.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some(Rest::Side(number(report, node, path)? as usize));
    }
    text(report, node, path, "`bridge`, `isolate` or the side that the others join").map(Rest::Word)
}

fn read_cut(report: &mut Report, node: &Node, path: &str) -> Option<Cut> {
    let cut = fields(report, node, path, &["from", "to", "oneWay"])?;
    let (from, to, one_way) = read_ends(report, &cut)?;
    Some(Cut { from, to, one_way })
}

fn read_link(report: &mut Report, node: &Node, path: &str) -> Option<LinkChange> {
    let known: Vec<&str> = ["from", "to", "oneWay"].into_iter().chain(links::FIELDS).collect();
    let link = fields(report, node, path, &known)?;
    let before = report.problems.len();
    let links = links::read(report, &link);
    let whole = report.problems.len() == before;
    let (from, to, one_way) = read_ends(report, &link)?;
    // A value that could not be read must not make the change look empty.
    whole.then_some(LinkChange { from, to, one_way, links })
}

type Ends = (Vec<String>, Vec<String>, bool);

fn read_ends(report: &mut Report, fields: &Fields<'_>) -> Option<Ends> {
    let from = fields
        .need(report, "from", "from: [validator-0]")
        .and_then(|node| selectors(report, node, &fields.path("from")));
    let to = fields
        .need(report, "to", "to: [validator-1]")
        .and_then(|node| selectors(report, node, &fields.path("to")));
    let one_way = match fields.get("oneWay") {
        None => Some(false),
        Some(node) => boolean(report, node, &fields.path("oneWay")),
    };
    Some((from?, to?, one_way?))
}

fn selectors(report: &mut Report, node: &Node, path: &str) -> Option<Vec<String>> {
    let items = list(report, node, path, "node or group names", MAX_SELECTORS)?;
    let names: Vec<_> = items.into_iter().map(|(path, item)| selector(report, item, &path)).collect();
    names.into_iter().collect()
}

fn selector(report: &mut Report, node: &Node, path: &str) -> Option<String> {
    // YAML takes `region: x` for a map, and `region:x` for text.
    if let Value::Map(entries) = &node.value
        && let [entry] = &entries[..]
        && let Value::Scalar { text, .. } = &entry.value.value
    {
        let (word, text) = (clip(&entry.key), clip(text));
        report.at(Some(node.line), path, format!("write `{word}:{text}`, without a space: it is one word"));
        return None;
    }
    text(report, node, path, "a node's or a group's name")
}

const WORDS: [&str; 7] = ["stall", "recover", "progress", "agreement", "validity", "latency", "throughput"];

/// Of those that are about a load.
fn example_of(word: &str) -> Option<&'static str> {
    match word {
        "latency" => Some("{p99: 500ms}"),
        "throughput" => Some("{atLeast: 90/s}"),
        _ => None,
    }
}

/// What the load must show.
fn read_limits(report: &mut Report, node: &Node, path: &str, draft: &mut ExpectDraft) {
    if draft.word == "throughput" {
        let Some(inner) = fields(report, node, path, &["atLeast"]) else { return };
        let node = inner.need(report, "atLeast", "atLeast: 90/s");
        draft.at_least = node.and_then(|node| rate(report, node, &inner.path("atLeast")));
        return;
    }
    let Some(inner) = fields(report, node, path, &["p50", "p90", "p99"]) else { return };
    let before = report.problems.len();
    let mut limit = |name: &str| {
        let node = inner.get(name)?;
        duration(report, node, &inner.path(name))
    };
    draft.latency = LatencyLimits { p50: limit("p50"), p90: limit("p90"), p99: limit("p99") };
    if draft.latency.given().next().is_none() && report.problems.len() == before {
        report.problem(path, "has no limit: write for example `p99: 500ms`");
    }
}

fn read_expectation(report: &mut Report, node: &Node, path: &str) -> ExpectDraft {
    let mut draft = ExpectDraft::new("");
    // `- agreement` reads as `- agreement: {}`.
    if let Value::Scalar { text, quoted: false } = &node.value
        && let Some(word) = WORDS.into_iter().find(|word| word == text)
    {
        draft.word = word;
        if matches!(word, "stall" | "recover") {
            report.problem(path, format!("`{word}` needs a time: write `{word}: {{within: 5s}}`"));
        } else if let Some(example) = example_of(word) {
            report.problem(path, format!("`{word}` needs a limit: write `{word}: {example}`"));
        } else if word == "progress" {
            draft.within = Some(Expectation::DEFAULT_PROGRESS);
        }
        return draft;
    }
    let Some(outer) = fields(report, node, path, &WORDS) else {
        return draft;
    };
    let given: Vec<&'static str> = match &node.value {
        Value::Map(entries) => {
            WORDS.into_iter().filter(|word| entries.iter().any(|entry| entry.key == *word)).collect()
        }
        _ => Vec::new(),
    };
    let word = match given[..] {
        [word] => word,
        [] => {
            if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
                report.problem(path, "is empty: write for example `agreement: {}`");
            }
            return draft;
        }
        _ => {
            report.problem(path, "has several expectations: make a list entry of each");
            return draft;
        }
    };
    draft.word = word;
    let at = outer.path(word);
    if let Some(example) = example_of(word) {
        match outer.get(word) {
            Some(node) => read_limits(report, node, &at, &mut draft),
            None => report.problem(&at, format!("needs a limit: write for example `{example}`")),
        }
        return draft;
    }
    let known: &[&str] = match word {
        "stall" | "recover" => &["within", "after"],
        "progress" => &["within"],
        _ => &[],
    };
    let inner = match outer.get(word) {
        None => None,
        Some(Node { value: Value::Map(entries), .. }) if entries.is_empty() => None,
        Some(node) if known.is_empty() => {
            report.at(Some(node.line), &at, format!("takes no fields: write `{word}: {{}}`"));
            return draft;
        }
        Some(node) => match fields(report, node, &at, known) {
            Some(inner) => Some(inner),
            None => return draft,
        },
    };
    let within = inner.as_ref().and_then(|inner| inner.get("within"));
    draft.within = match (within, word) {
        (Some(node), _) => duration(report, node, &format!("{at}.within")),
        (None, "progress") => Some(Expectation::DEFAULT_PROGRESS),
        (None, "agreement" | "validity") => None,
        (None, _) => {
            report.problem(&format!("{at}.within"), "is missing: write for example `within: 5s`");
            None
        }
    };
    draft.after = inner
        .and_then(|inner| inner.get("after"))
        .and_then(|node| text(report, node, &format!("{at}.after"), "a fault's name"));
    draft
}
