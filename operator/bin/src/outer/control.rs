//! The control socket's service.

use std::{os::unix::fs::PermissionsExt as _, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::Stream;
use netsplit_proto::control::{
    AddFaultRequest, DownRequest, DownResponse, ExperimentEvent, Fault, GetLinksRequest, GetTestnetRequest,
    HealRequest, HealResponse, Links, LoadProgress as ControlLoadProgress, RestartRequest, RestartResponse,
    RunExperimentRequest, RunLoadRequest, Testnet as TestnetState, WatchTestnetRequest,
    control_server::{Control, ControlServer},
};
use netsplit_spec::Document;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use super::{
    experiment,
    testnet::{self, Testnet},
};
use crate::{
    documents, nearest, progress, quality, selector,
    session::{
        LoadProgress,
        faults::{self, Shape},
    },
    shutdown::Shutdown,
};

/// How often a watcher is told of a change.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for the proof of a fault, or of its end.
const PROOF_DEADLINE: Duration = Duration::from_secs(5);

/// Events that may wait for a slow reader.
const PENDING_EVENTS: usize = 64;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until the task is aborted.
pub async fn serve(testnet: Arc<Testnet>, shutdown: Shutdown) -> Result<()> {
    let path = testnet.dir.control_socket();
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    tonic::transport::Server::builder()
        .add_service(ControlServer::new(Service { testnet, shutdown }))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .context("the control socket broke")
}

#[derive(Debug)]
struct Service {
    testnet: Arc<Testnet>,
    shutdown: Shutdown,
}

/// Asks for the testnet's end when the stream that owns it is dropped, however that happened.
struct Owner(Shutdown);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.ask();
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_testnet(&self, _: Request<GetTestnetRequest>) -> Result<Response<TestnetState>, Status> {
        Ok(Response::new(self.testnet.state().await))
    }

    type WatchTestnetStream = Events<TestnetState>;

    async fn watch_testnet(
        &self,
        request: Request<WatchTestnetRequest>,
    ) -> Result<Response<Self::WatchTestnetStream>, Status> {
        let owner = request.into_inner().own.then(|| Owner(self.shutdown.clone()));
        let (sender, receiver) = mpsc::channel(4);
        let testnet = Arc::clone(&self.testnet);
        tokio::spawn(async move {
            let _owner = owner;
            let mut tick = tokio::time::interval(WATCH_EVERY);
            let mut last = None;
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = sender.closed() => return,
                }
                let state = testnet.state().await;
                if last.as_ref() != Some(&state) {
                    last = Some(state.clone());
                    if sender.send(Ok(state)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn add_fault(&self, request: Request<AddFaultRequest>) -> Result<Response<Fault>, Status> {
        self.ready().await?;
        let request = request.into_inner();
        let shape = selector::shape(&self.testnet.session.spec, &request.selector.unwrap_or_default())
            .map_err(Status::invalid_argument)?;
        let shape = match request.quality {
            Some(asked) => {
                selector::changed(shape, quality::from_proto(&asked)).map_err(Status::invalid_argument)?
            }
            None => shape,
        };
        selector::names_every_node(&self.testnet.session.plan, &shape).map_err(Status::invalid_argument)?;
        let lasts = (request.for_ms > 0).then(|| Duration::from_millis(request.for_ms));
        // Probes take as long as the links that they measure.
        let deadline = match &shape {
            Shape::Link { links, .. } => {
                PROOF_DEADLINE + links.latency.unwrap_or_default() + links.jitter.unwrap_or_default()
            }
            Shape::Partition(_) | Shape::Cut { .. } => PROOF_DEADLINE,
        };
        let table = &self.testnet.session.faults;
        let mut seen = table.watch();
        let id = table.add(shape, lasts).await.map_err(failed)?;
        let judged = |all: &Vec<faults::Fault>| {
            all.iter().any(|fault| fault.id == id && (fault.is_proven() || !fault.violations.is_empty()))
        };
        let in_time = tokio::time::timeout(deadline, seen.wait_for(judged)).await.is_ok();
        let found = table.watch().borrow().iter().find(|fault| fault.id == id).cloned();
        let Some(found) = found else { return Err(Status::internal(format!("fault {id} is gone"))) };
        if !in_time || !found.is_proven() {
            let why = found.evidence_text();
            table.heal(|fault| fault.id == id).await.map_err(failed)?;
            return Err(Status::failed_precondition(format!(
                "the fault could not be proven, so it was healed: {why}"
            )));
        }
        Ok(Response::new(testnet::fault(&found)))
    }

    async fn heal(&self, request: Request<HealRequest>) -> Result<Response<HealResponse>, Status> {
        self.ready().await?;
        let sides = match request.into_inner().selector {
            Some(selector) => {
                let shape = selector::shape(&self.testnet.session.spec, &selector)
                    .map_err(Status::invalid_argument)?;
                Some(shape.sides())
            }
            None => None,
        };
        let table = &self.testnet.session.faults;
        let mut seen = table.watch();
        let meant = |fault: &faults::Fault| {
            fault.owner == faults::USER
                && sides
                    .as_ref()
                    .is_none_or(|wanted| fault.shape.as_ref().is_some_and(|shape| shape.sides() == *wanted))
        };
        let healed = table.heal(meant).await.map_err(failed)?;
        if healed.is_empty() && sides.is_some() {
            return Err(Status::not_found("no fault with these arguments is active: see `netsplit status`"));
        }
        let open = |all: &Vec<faults::Fault>| {
            healed.iter().all(|fault| all.iter().any(|seen| seen.id == fault.id && seen.is_open()))
        };
        if tokio::time::timeout(PROOF_DEADLINE, seen.wait_for(open)).await.is_err() {
            return Err(Status::failed_precondition(
                "the rules are gone, but not every link was seen to carry packets again",
            ));
        }
        Ok(Response::new(HealResponse { healed: healed.iter().map(testnet::fault).collect() }))
    }

    async fn get_links(&self, _: Request<GetLinksRequest>) -> Result<Response<Links>, Status> {
        self.ready().await?;
        let links = self.testnet.session.faults.links().await;
        Ok(Response::new(Links { links: links.into_iter().map(testnet::link).collect() }))
    }

    type RunExperimentStream = Events<ExperimentEvent>;

    async fn run_experiment(
        &self,
        request: Request<RunExperimentRequest>,
    ) -> Result<Response<Self::RunExperimentStream>, Status> {
        self.ready().await?;
        let request = request.into_inner();
        let documents =
            documents::parse(&request.document, &request.file).map_err(|error| invalid(&error))?;
        // A file may hold the testnet too; the one that runs is what counts.
        let experiments =
            documents.into_iter().filter(|document| matches!(document, Document::Experiment(_))).collect();
        let name = (!request.name.is_empty()).then_some(request.name.as_str());
        let experiment =
            documents::experiment(experiments, &request.file, name).map_err(|error| invalid(&error))?;
        if experiment.testnet != self.testnet.session.plan.name {
            let text = format!(
                "{} is for testnet {}, not {}",
                experiment.name, experiment.testnet, self.testnet.session.plan.name
            );
            return Err(Status::invalid_argument(text));
        }
        let valid = netsplit_spec::validate(&experiment, &self.testnet.session.spec)
            .map_err(|problems| Status::invalid_argument(problems.to_string()))?;
        let testnet = Arc::clone(&self.testnet);
        Ok(Response::new(stream_of(|sender| experiment::run(testnet, valid, sender), experiment::to_event)))
    }

    type RunLoadStream = Events<ControlLoadProgress>;

    async fn run_load(
        &self,
        request: Request<RunLoadRequest>,
    ) -> Result<Response<Self::RunLoadStream>, Status> {
        self.ready().await?;
        let request = request.into_inner();
        let rate =
            u32::try_from(request.rate).map_err(|_| Status::invalid_argument("the rate is too high"))?;
        if request.for_ms == 0 {
            return Err(Status::invalid_argument("a load needs a duration above zero"));
        }
        let (testnet, lasts) = (Arc::clone(&self.testnet), Duration::from_millis(request.for_ms));
        let run = |sender| async move { testnet.session.load.run(rate, lasts, sender).await };
        let told = |progress: LoadProgress| Ok(progress::to_progress(&progress.report, progress.done));
        Ok(Response::new(stream_of(run, told)))
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Result<Response<RestartResponse>, Status> {
        self.ready().await?;
        let RestartRequest { node, kill } = request.into_inner();
        let names: Vec<String> =
            self.testnet.session.plan.nodes.iter().map(|node| node.name.clone()).collect();
        if !names.contains(&node) {
            let hint = nearest::hint(&node, &names);
            return Err(Status::invalid_argument(format!("no node is called `{node}`{hint}")));
        }
        self.testnet.restart(&node, kill).await.map_err(failed)?;
        Ok(Response::new(RestartResponse {}))
    }

    async fn down(&self, _: Request<DownRequest>) -> Result<Response<DownResponse>, Status> {
        self.shutdown.ask();
        Ok(Response::new(DownResponse {}))
    }
}

impl Service {
    async fn ready(&self) -> Result<(), Status> {
        if self.testnet.session.is_running().await {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "testnet `{}` is not running yet",
            self.testnet.session.plan.name
        )))
    }
}

/// What a job sends, as `told`, and how it failed if it did. When the reader goes away, the job finds its channel closed.
fn stream_of<T, W, J>(job: impl FnOnce(mpsc::Sender<T>) -> J, told: fn(T) -> Result<W>) -> Events<W>
where
    T: Send + 'static,
    W: Send + 'static,
    J: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(PENDING_EVENTS);
    let (out, events) = mpsc::channel(PENDING_EVENTS);
    let job = job(sender);
    tokio::spawn(async move {
        let relay = async {
            loop {
                let event = tokio::select! { event = receiver.recv() => event, () = out.closed() => None };
                let Some(event) = event else { break };
                if out.send(told(event).map_err(failed)).await.is_err() {
                    break;
                }
            }
            drop(receiver);
        };
        let (ended, ()) = tokio::join!(job, relay);
        if let Err(error) = ended {
            out.send(Err(failed(error))).await.ok();
        }
    });
    Box::pin(ReceiverStream::new(events))
}

fn failed(error: impl Into<anyhow::Error>) -> Status {
    Status::failed_precondition(format!("{:#}", error.into()))
}

fn invalid(error: &anyhow::Error) -> Status {
    Status::invalid_argument(format!("{error:#}"))
}
