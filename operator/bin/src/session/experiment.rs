//! Drives one experiment: observe, step the pure state machine, persist, act.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use netsplit_backend::CutRect;
use netsplit_chains::LoadReport;
use netsplit_observe::NodeView;
use netsplit_plan::{
    HeldNodes, Ramp,
    experiment::{self, Action, FaultStands, LoadObserved, State, TimelineEvent, Verdict},
};
use netsplit_spec::{Links, ValidExpectation, ValidExperiment, format_duration};
use tokio::{
    sync::{MutexGuard, mpsc},
    task::JoinHandle,
};

use super::{
    Session,
    faults::{Fault, Held, Recalled, Wanted},
    record::Recorder,
    unix_ms,
};
use crate::outcome::{FaultOutcome, NodeOutcome, RunOutcome};

/// Well below the shortest `within` that a person would ask for.
const STEP_EVERY: Duration = Duration::from_millis(50);

/// What a follower of a run is told.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Another experiment runs; this one is next, or later.
    Waits,
    /// `at_ms` counts from the run's start.
    Event(TimelineEvent),
    /// The last word.
    Ended(Box<RunOutcome>),
}

/// Keeps a run's state where a successor finds it.
#[async_trait]
pub trait Journal: Send {
    /// Keeps the state, before anything is done about it. `acts`: the run is about to change something outside. Not kept
    /// (false): no fault is begun on it, and the run goes on. An error ends the run, and what it applied is healed.
    async fn save(&mut self, state: &State, acts: bool) -> Result<bool>;
}

/// Runs the experiment to its verdict, from the beginning or from where another process left it, whose faults were
/// [recalled](super::faults::FaultTable::recall). Dropping the receiver of `events` aborts it; what it applied is healed
/// either way.
pub async fn run(
    session: Arc<Session>,
    valid: ValidExperiment,
    left: Option<State>,
    mut journal: impl Journal,
    events: mpsc::Sender<Progress>,
) -> Result<()> {
    // Any number of plain faults may be active; an experiment that expects something is alone with them.
    let is_alone = !valid.expect.is_empty();
    let _turn = if is_alone { take_turn(&session, &events).await } else { None };
    if events.is_closed() {
        return Ok(());
    }
    if is_alone {
        session.set_experiment(&valid.name).await;
    }
    let state = if let Some(state) = left {
        experiment::resume(state)
    } else {
        session.faults.forget(&valid.name).await;
        experiment::start(&valid, unix_ms())
    };
    let mut hands = Hands::default();
    let ended = drive(&session, &valid, state, &mut journal, &events, &mut hands).await;
    hands.rest().await;
    if is_alone {
        session.set_experiment("").await;
    }
    // Whatever went wrong, nothing that it applied stays.
    session.faults.heal(|fault| fault.owner == valid.name).await?;
    ended
}

/// One experiment runs per testnet; others wait and say so.
async fn take_turn<'a>(session: &'a Session, events: &mpsc::Sender<Progress>) -> Option<MutexGuard<'a, ()>> {
    if let Some(turn) = session.try_turn() {
        return Some(turn);
    }
    events.send(Progress::Waits).await.ok();
    tokio::select! {
        turn = session.turn() => Some(turn),
        () = events.closed() => None,
    }
}

async fn drive(
    session: &Arc<Session>,
    valid: &ValidExperiment,
    mut state: State,
    journal: &mut impl Journal,
    events: &mpsc::Sender<Progress>,
    hands: &mut Hands,
) -> Result<()> {
    let started_ms = state.started_ms();
    let mut watch = session.watch()?;
    let mut recorder = Recorder::new();
    let mut tick = tokio::time::interval(STEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut observed = session.observe(&mut watch, &valid.name).await;
        if is_about_load(valid) {
            let observe =
                |load: LoadReport| LoadObserved { committed: load.committed, latencies: load.latencies };
            observed.load = session.load.report().await.map(observe);
        }
        if events.is_closed() {
            observed.abort = Some("aborted by the user".to_owned());
        }
        let at_ms = unix_ms().saturating_sub(started_ms);
        if recorder.is_due(at_ms) {
            let load = session.load.report().await;
            recorder.look(at_ms, &session.views(), load.as_ref());
            if let Some(links) = session.faults.measured_links() {
                recorder.see_links(at_ms, moment(&session.faults.watch().borrow(), &valid.name), links);
            }
        }
        let (next, actions) = experiment::step(&state, unix_ms(), &observed);
        let kept = next == state || journal.save(&next, actions.iter().any(acts)).await?;
        state = next;
        for action in actions {
            match action {
                // Both are given again until their effect is seen, so one that finds the hands full may be skipped.
                // A successor would not know of a fault that begins on a state that was not kept; it heals in any case.
                Action::ApplyFault { .. } if !kept => {}
                Action::ApplyFault { .. } | Action::HealFault { .. } => {
                    hands.act(session, &valid.name, action);
                }
                Action::Note(event) => {
                    events.send(Progress::Event(since(event, started_ms))).await.ok();
                }
                Action::Finish(verdict) => {
                    let load = session.load.report().await;
                    let outcome = outcome(session, valid, &state, recorder, verdict, load)?;
                    events.send(Progress::Ended(Box::new(outcome))).await.ok();
                    return Ok(());
                }
            }
        }
    }
}

/// Whether anything is expected of the load.
fn is_about_load(valid: &ValidExperiment) -> bool {
    let is = |expected: &ValidExpectation| {
        matches!(expected, ValidExpectation::Latency(_) | ValidExpectation::Throughput { .. })
    };
    valid.expect.iter().any(is)
}

fn acts(action: &Action) -> bool {
    !matches!(action, Action::Note(_))
}

/// Times of a run's story count from its start.
fn since(event: TimelineEvent, started_ms: u64) -> TimelineEvent {
    TimelineEvent { at_ms: event.at_ms.saturating_sub(started_ms), ..event }
}

/// Acts beside the steps, one action at a time: a link agent that hangs must not stop the clock of those who judge.
#[derive(Default)]
struct Hands(Option<JoinHandle<()>>);

impl Hands {
    /// Waits for what is under way, so that nothing is applied after the end.
    async fn rest(&mut self) {
        if let Some(busy) = self.0.take()
            && let Err(error) = busy.await
        {
            tracing::error!(%error, "an action of the experiment broke off");
        }
    }

    /// Failing is an observation: the fault stays unproven or unhealed, and the state machine judges that.
    fn act(&mut self, session: &Arc<Session>, owner: &str, action: Action) {
        if self.0.as_ref().is_some_and(|busy| !busy.is_finished()) {
            return;
        }
        let (session, owner) = (Arc::clone(session), owner.to_owned());
        self.0 = Some(tokio::spawn(async move {
            let done = match action {
                Action::ApplyFault { id, rects, links, ramp, held, lasts_ms } => {
                    let does = Does { rects: &rects, links, ramp, held: held.as_ref() };
                    session.faults.ensure(wanted(&session, &owner, &id, &does, lasts_ms)).await
                }
                Action::HealFault { id } => {
                    session.faults.heal(|fault| fault.owner == owner && fault.name == id).await.map(drop)
                }
                Action::Note(_) | Action::Finish(_) => Ok(()),
            };
            if let Err(error) = done {
                tracing::error!("cannot do what the experiment asks: {error:#}");
            }
        }));
    }
}

/// What is to be [recalled](super::faults::FaultTable::recall) of a run that another process began.
pub fn left_by(owner: &str, session: &Session, state: &State) -> Vec<Recalled> {
    let fault = |fault: FaultStands<'_>| Recalled {
        wanted: wanted(
            session,
            owner,
            fault.id,
            &Does { rects: fault.rects, links: fault.links, ramp: fault.ramp, held: fault.held },
            fault.lasts_ms,
        ),
        applied_at_ms: fault.applied_at_ms,
        kept_at_ms: state.last_step_ms(),
        proven: fault.proven,
        is_over: fault.heal_asked_at_ms.is_some(),
        healed_at_ms: fault.healed_at_ms,
    };
    state.faults().map(fault).collect()
}

/// What a fault does, by index.
struct Does<'a> {
    rects: &'a [netsplit_plan::CutRect],
    links: Option<Links>,
    ramp: Option<Ramp>,
    held: Option<&'a HeldNodes>,
}

fn wanted(session: &Session, owner: &str, id: &str, does: &Does<'_>, lasts_ms: u64) -> Wanted {
    let names = |indices: &[usize]| -> Vec<String> {
        indices.iter().filter_map(|index| Some(session.plan.nodes.get(*index)?.name.clone())).collect()
    };
    let rects: Vec<CutRect> =
        does.rects.iter().map(|rect| CutRect { from: names(&rect.from), to: names(&rect.to) }).collect();
    let held = does.held.map(|held| Held { what: held.what, nodes: names(&held.nodes) });
    let links = does.links;
    Wanted {
        owner: owner.to_owned(),
        name: id.to_owned(),
        description: held.as_ref().map_or_else(|| describe(&rects, links, does.ramp), Held::to_string),
        shape: None,
        rects,
        links,
        ramp: does.ramp,
        held,
        lasts: Some(Duration::from_millis(lasts_ms)),
    }
}

fn describe(rects: &[CutRect], links: Option<Links>, ramp: Option<Ramp>) -> String {
    let sides: Vec<String> =
        rects.iter().map(|rect| format!("{} -> {}", rect.from.join(","), rect.to.join(","))).collect();
    let sides = sides.join("; ");
    let grows = ramp.map(|ramp| format!(", over {}", format_duration(ramp.over))).unwrap_or_default();
    links.map_or_else(|| sides.clone(), |links| format!("{sides}: {links}{grows}"))
}

fn outcome(
    session: &Session,
    valid: &ValidExperiment,
    state: &State,
    recorder: Recorder,
    verdict: Verdict,
    load: Option<LoadReport>,
) -> Result<RunOutcome> {
    let started_ms = state.started_ms();
    let (series, links) = recorder.finish();
    let seen = session.faults.watch();
    let fault = |fault: &Fault| FaultOutcome {
        id: fault.id.clone(),
        description: fault.description.clone(),
        applied_at_ms: fault.applied_at_ms.map(|at_ms| at_ms.saturating_sub(started_ms)),
        healed_at_ms: fault.healed_at_ms.map(|at_ms| at_ms.saturating_sub(started_ms)),
        links: fault.links(),
        nodes: fault.held.as_ref().map(|held| held.nodes.clone()).unwrap_or_default(),
        dropped: fault.dropped(),
        proven: fault.was_proven,
        evidence: fault.proof_text(),
    };
    let faults = seen.borrow().iter().filter(|f| f.owner == valid.name).map(fault).collect();
    let node = |view: NodeView| NodeOutcome {
        name: view.name,
        final_height: view.final_height,
        final_id: view.final_id.unwrap_or_default(),
    };
    let load = load.map(serde_json::to_value).transpose().context("cannot write the load as JSON")?;
    Ok(RunOutcome {
        experiment: valid.name.clone(),
        testnet: session.plan.name.clone(),
        started_ms,
        verdict,
        faults,
        nodes: session.views().into_iter().map(node).collect(),
        load,
        timeline: state.timeline().iter().map(|event| since(event.clone(), started_ms)).collect(),
        links,
        series,
    })
}

/// What the measured links of this moment are called.
fn moment(faults: &[Fault], owner: &str) -> String {
    let of_run = || faults.iter().filter(|fault| fault.owner == owner);
    let active: Vec<&str> =
        of_run().filter(|fault| fault.healed_at_ms.is_none()).map(|fault| fault.name.as_str()).collect();
    if !active.is_empty() {
        format!("while {} lasted", active.join(" and "))
    } else if of_run().next().is_none() {
        "before the first fault".to_owned()
    } else {
        "after the last heal".to_owned()
    }
}
