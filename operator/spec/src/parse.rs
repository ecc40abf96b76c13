//! Documents of a file: read, checked, and tied to each other.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::check::experiment::Ground;
use crate::check::{Roster, experiment as check_experiment, regions, testnet as check_testnet};
use crate::experiment::Experiment;
use crate::files::Files;
use crate::links::Matrix;
use crate::problem::{Problem, Problems};
use crate::read::{choice, fields, text};
use crate::read::{experiment as read_experiment, testnet as read_testnet};
use crate::report::Report;
use crate::testnet::{Consensus, Testnet};
use crate::tree::{self, Node, Value};
use crate::{API_VERSION, Document, suggest};

/// More are not read: a testnet and the experiments on it fit in far fewer.
const MAX_DOCUMENTS: usize = 200;

#[derive(Clone, Copy)]
enum Kind {
    Testnet,
    Experiment,
}

enum Draft {
    Testnet(read_testnet::Draft),
    Experiment(read_experiment::Draft),
}

pub(crate) fn parse(text: &str, file: &str, files: Option<&Files>) -> Result<Vec<Document>, Problems> {
    let (nodes, text_problems) = tree::read(text);
    let mut problems: Vec<Problem> = Vec::new();
    let whole = text_problems.is_empty();
    for (line, message) in text_problems {
        let mut report = Report::reading(file);
        report.at(Some(line), "", message);
        problems.append(&mut report.problems);
    }
    documents_of(file, nodes, problems, whole, files)
}

/// A testnet that is an object of the Kubernetes API; `spec` as its schema has it.
pub(crate) fn testnet_object(name: &str, spec: &impl Serialize) -> Result<Testnet, Problems> {
    match object("Testnet", name, spec)? {
        Document::Testnet(testnet) => Ok(testnet),
        Document::Experiment(_) => unreachable!("it was read as the kind that was given"),
    }
}

/// An experiment that is an object of the Kubernetes API; `spec` as its schema has it.
pub(crate) fn experiment_object(name: &str, spec: &impl Serialize) -> Result<Experiment, Problems> {
    match object("Experiment", name, spec)? {
        Document::Experiment(experiment) => Ok(experiment),
        Document::Testnet(_) => unreachable!("it was read as the kind that was given"),
    }
}

fn object(kind: &str, name: &str, spec: &impl Serialize) -> Result<Document, Problems> {
    let spec = serde_json::to_value(spec).expect("a type with a schema is JSON");
    let document = serde_json::json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    let documents = documents_of("", vec![tree::of_json(&document)], Vec::new(), true, None)?;
    Ok(documents.into_iter().next().expect("one document without a problem is read"))
}

fn documents_of(
    file: &str,
    nodes: Vec<Node>,
    mut problems: Vec<Problem>,
    whole: bool,
    files: Option<&Files>,
) -> Result<Vec<Document>, Problems> {
    let nodes: Vec<Node> = nodes.into_iter().filter(|node| !matches!(node.value, Value::Null)).collect();
    if let Some(extra) = nodes.get(MAX_DOCUMENTS) {
        let mut report = Report::reading(file);
        report.at(Some(extra.line), "", format!("more than {MAX_DOCUMENTS} documents in one file"));
        problems.append(&mut report.problems);
    } else if nodes.is_empty() && whole {
        let mut report = Report::reading(file);
        report.at(None, "", "has no document: write a Testnet, or run `netsplit init` for an example");
        problems.append(&mut report.problems);
    }
    let mut drafts: Vec<(Report, Draft)> = nodes
        .iter()
        .take(MAX_DOCUMENTS)
        .map(|node| read_document(file, node, files))
        .filter_map(|(mut report, draft)| {
            let Some(draft) = draft else {
                problems.append(&mut report.problems);
                return None;
            };
            Some((report, draft))
        })
        .collect();
    unique_names(&mut drafts);
    let testnets = check_testnets(&mut drafts);
    let documents = finish(drafts, &testnets, &mut problems);
    match Problems::new(problems) {
        None => Ok(documents),
        Some(problems) => Err(problems),
    }
}

/// The frame that all kinds share, then the spec.
fn read_document(file: &str, node: &Node, files: Option<&Files>) -> (Report, Option<Draft>) {
    let mut report = Report::reading(file);
    report.stands("", node.line);
    let Some(root) = fields(&mut report, node, "", &["apiVersion", "kind", "metadata", "spec"]) else {
        return (report, None);
    };
    let kind = root.need(&mut report, "kind", "kind: Testnet").and_then(|node| {
        let kinds = [("Testnet", Kind::Testnet), ("Experiment", Kind::Experiment)];
        choice(&mut report, node, "kind", "kind", &kinds)
    });
    let metadata = root.need(&mut report, "metadata", "metadata: {name: quickstart}").and_then(|node| {
        // What Kubernetes adds to a document is taken and left alone.
        fields(&mut report, node, "metadata", &["name", "namespace", "labels", "annotations"])
    });
    let name = metadata
        .and_then(|metadata| metadata.need(&mut report, "name", "name: quickstart"))
        .and_then(|node| text(&mut report, node, "metadata.name", "a name"));
    let name = match name {
        Some(name) if name.is_empty() => {
            report.problem("metadata.name", "is empty: a name has 1 to 40 characters");
            name
        }
        name => name.unwrap_or_default(),
    };
    if let Some(node) = root.need(&mut report, "apiVersion", &format!("apiVersion: {API_VERSION}")) {
        let version = text(&mut report, node, "apiVersion", "a version");
        if version.is_some_and(|version| version != API_VERSION) {
            report.problem("apiVersion", format!("this release reads `{API_VERSION}` only"));
        }
    }
    let draft = kind.map(|kind| {
        let spec = root.need(&mut report, "spec", "spec: {...}");
        match kind {
            Kind::Testnet => {
                report.about("Testnet", &name);
                Draft::Testnet(read_testnet::read(&mut report, spec, name.clone(), files))
            }
            Kind::Experiment => {
                report.about("Experiment", &name);
                Draft::Experiment(read_experiment::read(&mut report, spec, name.clone()))
            }
        }
    });
    // Problems of the frame were found before its kind was known.
    let document = report.document().to_owned();
    for problem in &mut report.problems {
        problem.document.clone_from(&document);
    }
    let origin = report.close();
    let draft = draft.map(|draft| match draft {
        Draft::Testnet(mut draft) => {
            draft.testnet.origin = origin;
            Draft::Testnet(draft)
        }
        experiment @ Draft::Experiment(_) => experiment,
    });
    (report, draft)
}

fn unique_names(drafts: &mut [(Report, Draft)]) {
    let mut seen: BTreeMap<(&str, String), Option<u32>> = BTreeMap::new();
    for (report, draft) in drafts {
        let (kind, name) = match draft {
            Draft::Testnet(draft) => ("testnet", draft.testnet.name.clone()),
            Draft::Experiment(draft) => ("experiment", draft.name.clone()),
        };
        if name.is_empty() {
            continue;
        }
        let line = report.line("metadata.name");
        if let Some(first) = seen.get(&(kind, name.clone())) {
            let first = first.map_or_else(String::new, |line| format!(" (line {line})"));
            report.problem(
                "metadata.name",
                format!("there is a {kind} of this name in the file already{first}"),
            );
        } else {
            seen.insert((kind, name), line);
        }
    }
}

struct Known {
    name: String,
    /// `None` if its nodes could not be read.
    roster: Option<Roster>,
    block_time: std::time::Duration,
    faults: bool,
    load: bool,
}

fn check_testnets(drafts: &mut [(Report, Draft)]) -> Vec<Known> {
    let mut known = Vec::new();
    for (report, draft) in drafts {
        if let Draft::Testnet(draft) = draft {
            let testnet = &draft.testnet;
            check_testnet::check(report, testnet, draft.nodes_known || !testnet.nodes.is_empty());
            let Consensus::Bft { block_time, .. } = testnet.consensus;
            let roster =
                (draft.nodes_known && check_testnet::is_bounded(testnet)).then(|| Roster::of(testnet));
            known.push(Known {
                name: testnet.name.clone(),
                roster,
                block_time,
                faults: testnet.faults,
                load: testnet.load.is_some(),
            });
        }
    }
    known
}

fn finish(drafts: Vec<(Report, Draft)>, testnets: &[Known], problems: &mut Vec<Problem>) -> Vec<Document> {
    let mut documents = Vec::new();
    for (mut report, draft) in drafts {
        match draft {
            Draft::Testnet(mut draft) => {
                regions::trim(&mut draft.testnet);
                documents.push(Document::Testnet(draft.testnet));
            }
            Draft::Experiment(draft) => {
                let known =
                    draft.testnet.as_ref().and_then(|name| testnets.iter().find(|known| known.name == *name));
                if let (Some(name), None) = (&draft.testnet, known) {
                    // It may well stand in another file, unless it is a typo of one that is here.
                    let here = testnets.iter().map(|known| known.name.as_str());
                    if let Some(near) = suggest::nearest(name, here) {
                        let name = crate::units::clip(name);
                        report.problem(
                            "spec.testnet",
                            format!("unknown testnet `{name}`, did you mean `{near}`?"),
                        );
                    }
                }
                let ground = known.and_then(|known| {
                    Some(Ground {
                        roster: known.roster.as_ref()?,
                        block_time: known.block_time,
                        faults: known.faults,
                        load: known.load,
                    })
                });
                check_experiment::check(&mut report, &draft, ground.as_ref());
                documents.extend(draft.finish(report.origin()).map(Document::Experiment));
            }
        }
        problems.append(&mut report.problems);
    }
    documents
}

/// Rules of a testnet that was not read from text.
pub(crate) fn testnet_problems(testnet: &Testnet) -> Vec<Problem> {
    let mut report = Report::checking(&testnet.origin, "Testnet", &testnet.name);
    if testnet.name.is_empty() {
        report.problem("metadata.name", "is empty: a name has 1 to 40 characters");
    }
    if testnet.nodes.len() > check_testnet::MAX_GROUPS {
        report.problem("spec.nodes", format!("more than {} groups", check_testnet::MAX_GROUPS));
    }
    check_testnet::check(&mut report, testnet, true);
    if let Some(Matrix::File(name)) = testnet.links.as_ref().and_then(|links| links.matrix.as_ref()) {
        let name = crate::units::clip(name);
        report.problem("spec.links.matrix", format!("the file `{name}` has not been read"));
    }
    for (n, group) in testnet.nodes.iter().enumerate() {
        if group.name.is_empty() {
            report.problem(&format!("spec.nodes[{n}].name"), "is empty: a name has 1 to 40 characters");
        }
    }
    report.problems
}
