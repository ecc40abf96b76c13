//! Drives one experiment: observe, step the pure state machine, persist, act.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use netsplit_backend::CutRect;
use netsplit_chains::LoadReport;
use netsplit_observe::NodeView;
use netsplit_plan::experiment::{self, Action, State, TimelineEvent, Verdict};
use netsplit_proto::control::ExperimentEvent;
use netsplit_spec::ValidExperiment;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{clock::unix_ms, faults::Fault, testnet::Testnet};
use crate::outcome::{FaultOutcome, NodeOutcome, RunOutcome};

/// Well below the shortest `within` that a person would ask for.
const STEP_EVERY: Duration = Duration::from_millis(50);

/// Runs the experiment to its verdict. Dropping the receiver of `events` aborts it; what it applied is healed
/// either way.
pub async fn run(
    testnet: Arc<Testnet>,
    valid: ValidExperiment,
    events: mpsc::Sender<ExperimentEvent>,
) -> Result<()> {
    let _turn = take_turn(&testnet, &valid.name, &events).await;
    testnet.set_experiment(&valid.name).await;
    testnet.faults.forget(&valid.name).await;
    let mut hands = Hands::default();
    let ended = drive(&testnet, &valid, &events, &mut hands).await;
    hands.rest().await;
    testnet.set_experiment("").await;
    // Whatever went wrong, nothing that it applied stays.
    testnet.faults.heal(|fault| fault.owner == valid.name).await?;
    ended
}

/// One experiment runs per testnet; others wait and say so.
async fn take_turn<'a>(
    testnet: &'a Testnet,
    name: &str,
    events: &mpsc::Sender<ExperimentEvent>,
) -> tokio::sync::MutexGuard<'a, ()> {
    if let Ok(turn) = testnet.experiment.try_lock() {
        return turn;
    }
    let text = format!("{name} waits for the experiment that runs now");
    events.send(ExperimentEvent { kind: "note".to_owned(), text, ..ExperimentEvent::default() }).await.ok();
    testnet.experiment.lock().await
}

async fn drive(
    testnet: &Arc<Testnet>,
    valid: &ValidExperiment,
    events: &mpsc::Sender<ExperimentEvent>,
    hands: &mut Hands,
) -> Result<()> {
    let started_ms = unix_ms();
    let mut watch = testnet.watch()?;
    let mut state = experiment::start(valid, started_ms);
    let mut tick = tokio::time::interval(STEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut observed = testnet.observe(&mut watch, &valid.name).await;
        if events.is_closed() {
            observed.abort = Some("aborted by the user".to_owned());
        }
        let (next, actions) = experiment::step(&state, unix_ms(), &observed);
        persist(testnet, &state, &next)?;
        state = next;
        for action in actions {
            match action {
                // Both are given again until their effect is seen, so one that finds the hands full may be skipped.
                Action::ApplyFault { .. } | Action::HealFault { .. } => {
                    hands.act(testnet, &valid.name, action);
                }
                Action::Note(event) => {
                    events.send(to_event(&event, started_ms)).await.ok();
                }
                Action::Finish(verdict) => {
                    let load = testnet.load.report().await;
                    let outcome = outcome(testnet, valid, &state, started_ms, verdict, load)?;
                    let verdict =
                        serde_json::to_string(&outcome).context("cannot write the verdict as JSON")?;
                    let at_ms = unix_ms().saturating_sub(started_ms);
                    let event =
                        ExperimentEvent { at_ms, kind: "verdict".to_owned(), text: String::new(), verdict };
                    events.send(event).await.ok();
                    return Ok(());
                }
            }
        }
    }
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
    fn act(&mut self, testnet: &Arc<Testnet>, owner: &str, action: Action) {
        if self.0.as_ref().is_some_and(|busy| !busy.is_finished()) {
            return;
        }
        let (testnet, owner) = (Arc::clone(testnet), owner.to_owned());
        self.0 = Some(tokio::spawn(async move {
            let done = match action {
                Action::ApplyFault { id, rects, lasts_ms } => {
                    let rects = by_name(&testnet, &rects);
                    let lasts = Duration::from_millis(lasts_ms);
                    testnet.faults.ensure(&owner, &id, describe(&rects), rects, lasts).await
                }
                Action::HealFault { id } => {
                    testnet.faults.heal(|fault| fault.owner == owner && fault.name == id).await.map(drop)
                }
                Action::Note(_) | Action::Finish(_) => Ok(()),
            };
            if let Err(error) = done {
                tracing::error!("cannot do what the experiment asks: {error:#}");
            }
        }));
    }
}

/// Written before anything is done about it, so that a successor knows what may be in flight.
fn persist(testnet: &Testnet, old: &State, new: &State) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let file = testnet.dir.experiment_file();
    let next = file.with_extension("json.new");
    let bytes = serde_json::to_vec(new).context("cannot write the experiment's state as JSON")?;
    std::fs::write(&next, bytes).with_context(|| format!("cannot write {}", next.display()))?;
    std::fs::rename(&next, &file).with_context(|| format!("cannot replace {}", file.display()))
}

fn by_name(testnet: &Testnet, rects: &[netsplit_plan::CutRect]) -> Vec<CutRect> {
    let names = |indices: &[usize]| -> Vec<String> {
        indices.iter().filter_map(|index| Some(testnet.plan.nodes.get(*index)?.name.clone())).collect()
    };
    rects.iter().map(|rect| CutRect { from: names(&rect.from), to: names(&rect.to) }).collect()
}

fn describe(rects: &[CutRect]) -> String {
    let sides: Vec<String> =
        rects.iter().map(|rect| format!("{} -> {}", rect.from.join(","), rect.to.join(","))).collect();
    sides.join("; ")
}

fn to_event(event: &TimelineEvent, started_ms: u64) -> ExperimentEvent {
    let kind = serde_json::to_value(event.kind).ok().and_then(|kind| Some(kind.as_str()?.to_owned()));
    ExperimentEvent {
        at_ms: event.at_ms.saturating_sub(started_ms),
        kind: kind.unwrap_or_default(),
        text: event.text.clone(),
        verdict: String::new(),
    }
}

fn outcome(
    testnet: &Testnet,
    valid: &ValidExperiment,
    state: &State,
    started_ms: u64,
    verdict: Verdict,
    load: Option<LoadReport>,
) -> Result<RunOutcome> {
    let seen = testnet.faults.watch();
    let fault = |fault: &Fault| FaultOutcome {
        id: fault.id.clone(),
        links: fault.links(),
        dropped: fault.evidence.as_ref().map_or(0, |evidence| evidence.drops),
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
        testnet: testnet.plan.name.clone(),
        started_ms,
        verdict,
        faults,
        nodes: testnet.views().into_iter().map(node).collect(),
        load,
        timeline: state
            .timeline()
            .iter()
            .map(|event| TimelineEvent { at_ms: event.at_ms.saturating_sub(started_ms), ..event.clone() })
            .collect(),
    })
}
