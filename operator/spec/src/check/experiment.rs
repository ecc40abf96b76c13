//! Rules of an experiment, and of it with its testnet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cast, Roster, fault, label};
use crate::experiment::{Experiment, FaultKind, Ramp};
use crate::read::experiment::{Draft, ExpectDraft, FaultDraft};
use crate::report::Report;
use crate::suggest;
use crate::units::{clip, format_duration};
use crate::valid::{Pick, ValidExpectation, ValidExperiment, ValidFault};

/// Those that come again count each time.
pub(crate) const MAX_FAULTS: usize = 100;
pub(crate) const MAX_EXPECTATIONS: usize = 100;
pub(crate) const MAX_SIDES: usize = 1_000;
pub(crate) const MAX_SELECTORS: usize = 1_000;

/// A fault must last long enough to be proven, and end within a day.
pub(crate) const LASTS: (Duration, Duration) = (Duration::from_secs(1), Experiment::LONGEST_FAULT);
const LATEST_START: Duration = Duration::from_hours(24);
/// From the heal of a fault to its next start: it must be seen to be over.
const REST: Duration = Duration::from_secs(1);
/// From the end of a ramp to the heal: what it leads to must be proven.
const PROOF: Duration = Duration::from_secs(2);
/// A stall must be watched for at least as many block times.
const BLOCKS_OF_SILENCE: u32 = 4;
const LONGEST_WATCH: Duration = Duration::from_hours(1);

/// The testnet of an experiment, as far as it is known.
pub(crate) struct Ground<'a> {
    pub roster: &'a Roster,
    pub block_time: Duration,
    /// Whether links can be broken.
    pub faults: bool,
    /// Whether it has one of its own.
    pub load: bool,
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
    let occurrences = occurrences(report, draft, &ids);
    let mut faults = Vec::new();
    let mut picks = Vec::new();
    let mut whole = true;
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
        if let Some(ramp) = &fault.ramp {
            ramp_of(report, &format!("{path}.ramp"), ramp, fault);
        }
        let (Some(lasts), Some(kind)) = (fault.lasts, kind) else {
            whole = false;
            continue;
        };
        for occurrence in occurrences.iter().filter(|occurrence| occurrence.fault == n) {
            let (id, kind) = (occurrence.id.clone(), kind.clone());
            faults.extend(occurrence.at.map(|at| ValidFault { id, at, lasts, ramp: fault.ramp, kind }));
        }
    }
    let mut expect = Vec::new();
    for (n, expectation) in draft.expect.iter().enumerate() {
        let path = format!("spec.expect[{n}]");
        match expectation_of(report, &path, expectation, draft, &occurrences, ground) {
            Some(found) => expect.extend(found),
            None => whole = false,
        }
    }
    let ground = ground?;
    if report.problems.len() > before || !whole || faults.len() < occurrences.len() {
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
        expect,
        abort: experiment.abort,
    })
}

fn ramp_of(report: &mut Report, path: &str, ramp: &Ramp, fault: &FaultDraft) {
    let link = match &fault.kind {
        Some(FaultKind::Link { link }) => link,
        Some(_) => {
            report.problem(path, "only a `link` has a `ramp`: remove it");
            return;
        }
        None => return,
    };
    bounded(report, &format!("{path}.over"), Some(ramp.over), (Duration::from_secs(1), LONGEST_WATCH));
    if let Some(lasts) = fault.lasts.filter(|lasts| *lasts < ramp.over + PROOF) {
        let (over, lasts, least) =
            (format_duration(ramp.over), format_duration(lasts), format_duration(ramp.over + PROOF));
        let message = format!(
            "{over} leaves no time to prove what it leads to, of the {lasts} that the fault lasts: make that {least} or more"
        );
        report.problem(&format!("{path}.over"), message);
    }
    let wanted = [
        ("latency", ramp.latency.is_some(), link.links.latency.is_some()),
        ("loss", ramp.loss.is_some(), link.links.loss.is_some()),
    ];
    for (name, _, _) in wanted.iter().filter(|(_, is_begun, is_asked)| *is_begun && !is_asked) {
        let message = format!("leads nowhere: say what `{name}` the link is to have");
        report.problem(&format!("{path}.{name}"), message);
    }
    if wanted.iter().all(|(_, is_begun, is_asked)| !is_begun && !is_asked) {
        report.problem(path, "has nothing to change: only `latency` and `loss` grow");
    }
    bounded(report, &format!("{path}.latency"), ramp.latency, (Duration::ZERO, super::links::LONGEST));
}

/// A fault at one time. One that comes again has several.
struct Occurrence {
    /// Place in the spec.
    fault: usize,
    id: String,
    at: Option<Duration>,
}

/// In the order of the spec: what is expected of a fault means its place here.
fn occurrences(report: &mut Report, draft: &Draft, ids: &[String]) -> Vec<Occurrence> {
    let mut all = Vec::new();
    for (n, fault) in draft.faults.iter().enumerate() {
        let (Some(every), Some(repeat)) = (fault.every, fault.repeat) else {
            all.push(Occurrence { fault: n, id: ids[n].clone(), at: fault.at });
            continue;
        };
        let path = format!("spec.faults[{n}]");
        if repeat == 0 || repeat as usize > MAX_FAULTS {
            report.problem(&format!("{path}.repeat"), format!("must be between 1 and {MAX_FAULTS}"));
            continue;
        }
        if let Some(lasts) = fault.lasts.filter(|lasts| every < lasts.saturating_add(REST)) {
            let least = format_duration(lasts.saturating_add(REST));
            let (every, lasts) = (format_duration(every), format_duration(lasts));
            let message = format!(
                "{every} is too short: it lasts {lasts} and must be seen to be over before it comes again, {least} is the \
                 least"
            );
            report.problem(&format!("{path}.every"), message);
        }
        let start = |time: u32| fault.at.map(|at| at.saturating_add(every.saturating_mul(time)));
        if let Some(last) = start(repeat - 1).filter(|last| *last > LATEST_START) {
            let (last, most) = (format_duration(last), format_duration(LATEST_START));
            let message = format!("the last would start at {last}, {most} is the most");
            report.problem(&format!("{path}.repeat"), message);
        }
        let occurrence =
            |time: u32| Occurrence { fault: n, id: format!("{}/{}", ids[n], time + 1), at: start(time) };
        all.extend((0..repeat).map(occurrence));
    }
    if all.len() > MAX_FAULTS {
        let message = format!(
            "come {} times in all, each as often as it is repeated: {MAX_FAULTS} are the most",
            all.len()
        );
        report.problem("spec.faults", message);
    }
    all
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
    if let Some(abort) = draft.abort {
        bounded(report, "spec.abort.silent", abort.silent, (Duration::from_secs(1), LONGEST_WATCH));
    }
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
    occurrences: &[Occurrence],
    ground: Option<&Ground<'_>>,
) -> Option<Vec<ValidExpectation>> {
    let path = format!("{path}.{}", draft.word);
    bounded(report, &format!("{path}.within"), draft.within, (Duration::from_millis(1), LONGEST_WATCH));
    match draft.word {
        "agreement" => Some(vec![ValidExpectation::Agreement]),
        "validity" => Some(vec![ValidExpectation::Validity]),
        "latency" | "throughput" if ground.is_some_and(|ground| !ground.load) => {
            report.problem(
                &path,
                format!("`{}` is about a load, and the testnet has none: add `load` to it", draft.word),
            );
            None
        }
        "latency" => {
            for (name, _, limit) in draft.latency.given() {
                let range = (Duration::from_millis(1), LONGEST_WATCH);
                bounded(report, &format!("{path}.{name}"), Some(limit), range);
            }
            Some(vec![ValidExpectation::Latency(draft.latency)])
        }
        "throughput" => Some(vec![ValidExpectation::Throughput { at_least: draft.at_least? }]),
        "progress" => {
            slower_than_blocks(report, &path, draft, ground);
            Some(vec![ValidExpectation::Progress { within: draft.within? }])
        }
        "stall" => {
            let faults = faults_meant(report, &path, draft, experiment, occurrences)?;
            let lasts = faults.first().and_then(|n| experiment.faults[occurrences[*n].fault].lasts);
            if let (Some(within), Some(lasts)) = (draft.within, lasts) {
                silence(report, &format!("{path}.within"), within, lasts, ground);
            }
            let within = draft.within?;
            Some(faults.into_iter().map(|fault| ValidExpectation::Stall { within, fault }).collect())
        }
        "recover" => {
            let faults = faults_meant(report, &path, draft, experiment, occurrences)?;
            slower_than_blocks(report, &path, draft, ground);
            let within = draft.within?;
            Some(faults.into_iter().map(|fault| ValidExpectation::Recover { within, fault }).collect())
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

/// The fault that `after` names, each time it comes; else the last start for `stall`, the last heal for `recover`. All of
/// them last equally long.
fn faults_meant(
    report: &mut Report,
    path: &str,
    draft: &ExpectDraft,
    experiment: &Draft,
    occurrences: &[Occurrence],
) -> Option<Vec<usize>> {
    if experiment.faults.is_empty() {
        report.problem(path, format!("`{}` needs a fault: add one to `faults`", draft.word));
        return None;
    }
    if let Some(after) = &draft.after {
        let is_meant = |occurrence: &Occurrence| {
            let name = occurrence.id.split_once('/').map_or(occurrence.id.as_str(), |(name, _)| name);
            occurrence.id == *after || name == after
        };
        let found: Vec<usize> = (0..occurrences.len()).filter(|n| is_meant(&occurrences[*n])).collect();
        if found.is_empty() {
            let known: Vec<&str> = occurrences.iter().map(|occurrence| occurrence.id.as_str()).collect();
            report.problem(&format!("{path}.after"), suggest::unknown("fault", after, &known));
        }
        return (!found.is_empty()).then_some(found);
    }
    let moment = |n: usize| {
        let occurrence = &occurrences[n];
        match draft.word {
            "stall" => occurrence.at,
            _ => occurrence
                .at
                .zip(experiment.faults[occurrence.fault].lasts)
                .map(|(at, lasts)| at.saturating_add(lasts)),
        }
    };
    (0..occurrences.len()).max_by_key(|n| moment(*n)).map(|n| vec![n])
}

impl Ground<'_> {
    pub fn check(&self, report: &mut Report, experiment: &Experiment) -> Option<ValidExperiment> {
        check(report, &Draft::from(experiment), Some(self))
    }
}
