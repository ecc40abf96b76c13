//! Rules of an experiment, and of it with its testnet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cast, Roster, fault, label};
use crate::experiment::Experiment;
use crate::read::experiment::{Draft, ExpectDraft};
use crate::report::Report;
use crate::suggest;
use crate::units::{clip, format_duration};
use crate::valid::{Pick, ValidExpectation, ValidExperiment, ValidFault};

pub(crate) const MAX_FAULTS: usize = 100;
pub(crate) const MAX_EXPECTATIONS: usize = 100;
pub(crate) const MAX_SIDES: usize = 1_000;
pub(crate) const MAX_SELECTORS: usize = 1_000;

/// A fault must last long enough to be proven, and end within a day.
pub(crate) const LASTS: (Duration, Duration) = (Duration::from_secs(1), Experiment::LONGEST_FAULT);
const LATEST_START: Duration = Duration::from_hours(24);
/// A stall must be watched for at least as many block times.
const BLOCKS_OF_SILENCE: u32 = 4;
const LONGEST_WATCH: Duration = Duration::from_hours(1);

/// The testnet of an experiment, as far as it is known.
pub(crate) struct Ground<'a> {
    pub roster: &'a Roster,
    pub block_time: Duration,
    /// Whether links can be broken.
    pub faults: bool,
}

/// `None` if there was a problem, or if `ground` is not known.
pub(crate) fn check(
    report: &mut Report,
    draft: &Draft,
    ground: Option<&Ground<'_>>,
) -> Option<ValidExperiment> {
    let before = report.problems.len();
    if !draft.name.is_empty() {
        label(report, "metadata.name", &draft.name);
    }
    if draft.whole && draft.faults.is_empty() && draft.expect.is_empty() {
        report.problem("spec", "has neither `faults` nor `expect`: there is nothing to do");
    }
    if !draft.faults.is_empty() && ground.is_some_and(|ground| !ground.faults) {
        report.problem("spec.faults", "the testnet has `faults: off`: its links cannot be broken");
    }
    let ids = fault_ids(report, draft);
    times(report, draft);
    let mut faults = Vec::new();
    let mut picks = Vec::new();
    for (n, fault) in draft.faults.iter().enumerate() {
        let path = format!("spec.faults[{n}]");
        bounded(report, &format!("{path}.at"), fault.at, (Duration::ZERO, LATEST_START));
        bounded(report, &format!("{path}.for"), fault.lasts, LASTS);
        let kind = match (&fault.kind, ground) {
            (Some(kind), Some(ground)) => {
                let mut cast = Cast::new(ground.roster, &draft.name);
                let valid = fault::check(report, &path, kind, &mut cast);
                let pick = |(selector, nodes)| Pick { fault: ids[n].clone(), selector, nodes };
                picks.extend(cast.picks.into_iter().map(pick));
                valid
            }
            _ => None,
        };
        if let (Some(at), Some(lasts), Some(kind)) = (fault.at, fault.lasts, kind) {
            faults.push(ValidFault { id: ids[n].clone(), at, lasts, kind });
        }
    }
    let expect: Vec<_> = draft
        .expect
        .iter()
        .enumerate()
        .map(|(n, expectation)| {
            expectation_of(report, &format!("spec.expect[{n}]"), expectation, draft, &ids, ground)
        })
        .collect();
    let ground = ground?;
    if report.problems.len() > before || faults.len() < draft.faults.len() {
        return None;
    }
    let experiment = draft.finish(crate::Origin::default())?;
    Some(ValidExperiment {
        baseline: experiment.baseline(),
        settle: experiment.settle(),
        name: experiment.name,
        testnet: experiment.testnet,
        nodes: ground.roster.nodes().to_vec(),
        block_time: ground.block_time,
        faults,
        picks,
        expect: expect.into_iter().collect::<Option<_>>()?,
    })
}

/// By place. Names and the ones given by default share one space.
fn fault_ids(report: &mut Report, draft: &Draft) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut ids = Vec::new();
    for (n, fault) in draft.faults.iter().enumerate() {
        let id = fault.name.clone().unwrap_or_else(|| format!("fault-{n}"));
        let path = format!("spec.faults[{n}].name");
        if fault.name.is_some() {
            label(report, &path, &id);
        }
        if let Some(first) = seen.insert(id.clone(), n) {
            report.problem(&path, format!("`{}` is the name of spec.faults[{first}] already", clip(&id)));
        }
        ids.push(id);
    }
    ids
}

fn times(report: &mut Report, draft: &Draft) {
    bounded(report, "spec.baseline", draft.baseline, (Duration::ZERO, LONGEST_WATCH));
    bounded(report, "spec.settle", draft.settle, (Duration::ZERO, LONGEST_WATCH));
    let first = draft.faults.iter().filter_map(|fault| fault.at).min();
    if let (Some(baseline), Some(first)) = (draft.baseline, first)
        && baseline > first
    {
        let (baseline, first) = (format_duration(baseline), format_duration(first));
        report.problem(
            "spec.baseline",
            format!(
                "{baseline} is longer than the time before the first fault (`at: {first}`): start it later"
            ),
        );
    }
}

fn bounded(report: &mut Report, path: &str, value: Option<Duration>, (least, most): (Duration, Duration)) {
    let Some(value) = value else { return };
    if value < least {
        let why = if least == LASTS.0 { ": a fault that is shorter cannot be proven" } else { "" };
        let message =
            format!("{} is too short, {} is the least{why}", format_duration(value), format_duration(least));
        report.problem(path, message);
    } else if value > most {
        report.problem(
            path,
            format!("{} is too long, {} is the most", format_duration(value), format_duration(most)),
        );
    }
}

fn expectation_of(
    report: &mut Report,
    path: &str,
    draft: &ExpectDraft,
    experiment: &Draft,
    ids: &[String],
    ground: Option<&Ground<'_>>,
) -> Option<ValidExpectation> {
    let path = format!("{path}.{}", draft.word);
    bounded(report, &format!("{path}.within"), draft.within, (Duration::from_millis(1), LONGEST_WATCH));
    match draft.word {
        "agreement" => Some(ValidExpectation::Agreement),
        "progress" => {
            slower_than_blocks(report, &path, draft, ground);
            Some(ValidExpectation::Progress { within: draft.within? })
        }
        "stall" => {
            let fault = fault_meant(report, &path, draft, experiment, ids)?;
            if let (Some(within), Some(lasts)) = (draft.within, experiment.faults[fault].lasts) {
                silence(report, &format!("{path}.within"), within, lasts, ground);
            }
            Some(ValidExpectation::Stall { within: draft.within?, fault })
        }
        "recover" => {
            let fault = fault_meant(report, &path, draft, experiment, ids)?;
            slower_than_blocks(report, &path, draft, ground);
            Some(ValidExpectation::Recover { within: draft.within?, fault })
        }
        _ => None,
    }
}

/// A silence says something only if blocks would have come meanwhile.
fn silence(report: &mut Report, path: &str, within: Duration, lasts: Duration, ground: Option<&Ground<'_>>) {
    let seen = lasts.saturating_sub(within);
    let (within, lasts) = (format_duration(within), format_duration(lasts));
    if seen.is_zero() {
        report.problem(
            path,
            format!(
                "{within} is not shorter than the fault (`for: {lasts}`): it heals before that can be judged"
            ),
        );
    } else if let Some(ground) = ground
        && seen < ground.block_time * BLOCKS_OF_SILENCE
    {
        let block_time = format_duration(ground.block_time);
        report.problem(
            path,
            format!(
                "{within} leaves less than {BLOCKS_OF_SILENCE} blocks (blockTime {block_time}) of the fault's {lasts} \
                 to see a silence: make the fault longer"
            ),
        );
    }
}

fn slower_than_blocks(report: &mut Report, path: &str, draft: &ExpectDraft, ground: Option<&Ground<'_>>) {
    if let (Some(within), Some(ground)) = (draft.within, ground)
        && within <= ground.block_time
    {
        let block_time = format_duration(ground.block_time);
        report.problem(
            &format!("{path}.within"),
            format!("{} is not longer than the testnet's blockTime ({block_time})", format_duration(within)),
        );
    }
}

/// The fault that `after` names; else the last start for `stall`, the last heal for `recover`.
fn fault_meant(
    report: &mut Report,
    path: &str,
    draft: &ExpectDraft,
    experiment: &Draft,
    ids: &[String],
) -> Option<usize> {
    if ids.is_empty() {
        report.problem(path, format!("`{}` needs a fault: add one to `faults`", draft.word));
        return None;
    }
    if let Some(after) = &draft.after {
        let found = ids.iter().position(|id| id == after);
        if found.is_none() {
            let known: Vec<&str> = ids.iter().map(String::as_str).collect();
            report.problem(&format!("{path}.after"), suggest::unknown("fault", after, &known));
        }
        return found;
    }
    let moment = |n: usize| {
        let fault = &experiment.faults[n];
        match draft.word {
            "stall" => fault.at,
            _ => fault.at.zip(fault.lasts).map(|(at, lasts)| at.saturating_add(lasts)),
        }
    };
    (0..ids.len()).max_by_key(|n| moment(*n))
}

impl Ground<'_> {
    pub fn check(&self, report: &mut Report, experiment: &Experiment) -> Option<ValidExperiment> {
        check(report, &Draft::from(experiment), Some(self))
    }
}
