//! `Testnet` and `Experiment` as a user writes them.
//!
//! [`parse`] reads the YAML documents of a file and reports every problem at once, each with its line, its path,
//! what is wrong and what would be right. [`validate`] ties an experiment to a testnet: after it, planning cannot
//! fail. This crate is pure: no clock, no files, no network.

mod check;
pub mod crd;
mod experiment;
mod files;
mod links;
mod parse;
mod problem;
mod read;
mod report;
mod suggest;
mod testnet;
mod tree;
pub mod units;
mod valid;
pub mod wan;

pub use check::select;
pub use experiment::{
    Abort, Cut, Expectation, Experiment, Fault, FaultKind, LatencyLimits, NodeFault, Ramp, Rest,
};
pub use files::{Files, NamedFile, named_files};
pub use links::{BaseLinks, LinkChange, Links, Matrix, MatrixRow};
pub use problem::{Origin, Problem, Problems};
pub use testnet::{Chain, Consensus, Load, NodeGroup, Retention, Role, Testnet, Timeouts, Topology, seed_of};
pub use units::{Share, format_bits, format_duration, parse_bits, parse_duration, parse_rate, parse_share};
pub use valid::{NodeIndex, Pick, ValidExpectation, ValidExperiment, ValidFault, ValidFaultKind};

use serde::{Deserialize, Serialize};

use report::Report;

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "netsplit.dev/v1alpha1";

/// One YAML document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Document {
    Testnet(Testnet),
    Experiment(Experiment),
}

/// Reads and checks all documents of `text`, up to 1 MiB; `file` is only repeated in problems. Experiments are also
/// tied to their testnet where it stands in the same text; else that is left to [`validate`]. A file that is named is
/// left unread ([`Matrix::File`]).
pub fn parse(text: &str, file: &str) -> Result<Vec<Document>, Problems> {
    parse::parse(text, file, None)
}

/// The same, with what the [`named_files`] of the text hold put in their place.
pub fn parse_with(text: &str, file: &str, files: &Files) -> Result<Vec<Document>, Problems> {
    parse::parse(text, file, Some(files))
}

/// Ties an experiment to its testnet, which [`parse`] or [`validate_testnet`] has passed: every name is found, every
/// rule between the two holds.
pub fn validate(experiment: &Experiment, testnet: &Testnet) -> Result<ValidExperiment, Problems> {
    let mut report = Report::checking(&experiment.origin, "Experiment", &experiment.name);
    if experiment.name.is_empty() {
        report.problem("metadata.name", "is empty: a name has 1 to 40 characters");
    }
    if experiment.testnet != testnet.name {
        let (found, known) = (units::clip(&experiment.testnet), [testnet.name.as_str()]);
        report.problem("spec.testnet", suggest::unknown("testnet", &found, &known));
    }
    if !check::testnet::is_bounded(testnet) {
        report.problem("spec.testnet", "the testnet itself is not valid: it has too many nodes");
        return Err(Problems::of(report.problems));
    }
    let roster = check::Roster::of(testnet);
    let Consensus::Bft { block_time, .. } = testnet.consensus;
    let valid = check::experiment::Ground {
        roster: &roster,
        block_time,
        faults: testnet.faults,
        load: testnet.load.is_some(),
    }
    .check(&mut report, experiment);
    match valid {
        Some(valid) if report.problems.is_empty() => Ok(valid),
        _ => Err(Problems::of(report.problems)),
    }
}

/// Checks a testnet that did not come from [`parse`], which checks what it reads.
pub fn validate_testnet(testnet: &Testnet) -> Result<(), Problems> {
    let problems = parse::testnet_problems(testnet);
    if problems.is_empty() { Ok(()) } else { Err(Problems::of(problems)) }
}

/// The names of all nodes, by index.
pub fn node_names(testnet: &Testnet) -> Vec<String> {
    testnet.nodes.iter().flat_map(|group| (0..group.count).map(|n| format!("{}-{n}", group.name))).collect()
}
