//! `netsplit run`: an experiment, its timeline, its verdict.

use std::time::Duration;

use anyhow::{Context as _, Result};
use netsplit_plan::experiment::{ExitCode, Phase};
use netsplit_proto::control::{ExperimentEvent, RunExperimentRequest};
use netsplit_spec::{Experiment, Testnet};

use super::down;
use crate::{
    cli::RunArgs,
    client::{self, Client, Running},
    documents,
    launch::{self, Launched},
    outcome::RunOutcome,
    paths::TestnetDir,
    problem::{self, Usage},
};

/// Longest wait for the first final block of a testnet that this command starts.
const START_TIMEOUT: Duration = Duration::from_mins(1);

pub async fn run(args: &RunArgs) -> Result<ExitCode> {
    let file = args.experiment.display().to_string();
    let text = std::fs::read_to_string(&args.experiment)
        .map_err(|error| Usage(format!("cannot read {file}: {error} (`netsplit init` writes examples)")))?;
    let experiment = documents::experiment(documents::parse(&text, &file)?, &file, args.name.as_deref())?;
    let dir = TestnetDir::of(&experiment.testnet)?;
    let request =
        RunExperimentRequest { document: text.clone(), file: file.clone(), name: experiment.name.clone() };
    if let Some(running) = client::running(&dir).await.filter(Running::is_alive) {
        eprintln!("running {} on {}, which runs already", experiment.name, dir.name);
        return follow(running.client, request, args.json).await;
    }
    let testnet = find_testnet(args, &experiment, &text)?;
    // A file that cannot run is refused before anything starts.
    netsplit_spec::validate(&experiment, &testnet).map_err(|problems| Usage(problems.to_string()))?;
    eprintln!("starting {} ({} nodes)", testnet.name, netsplit_spec::node_names(&testnet).len());
    let mut launched = launch::launch(&testnet, !args.keep).await?;
    let verdict = start_and_follow(&mut launched, request, args.json).await;
    if args.keep {
        eprintln!("{} stays up: `netsplit down -t {0}`", testnet.name);
    } else {
        down::take_down(&launched.dir, false).await?;
    }
    verdict
}

async fn start_and_follow(
    launched: &mut Launched,
    request: RunExperimentRequest,
    json: bool,
) -> Result<ExitCode> {
    tokio::select! {
        state = launch::first_final(launched, START_TIMEOUT) => {
            let state = state?;
            eprintln!("{} is up: first block final after {:.1} s", state.name, launched.since.elapsed().as_secs_f64());
        }
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::Invalid),
    }
    follow(launched.client.clone(), request, json).await
}

/// The testnet of an experiment: from its own file, from the file that was given, from the files beside it.
fn find_testnet(args: &RunArgs, experiment: &Experiment, text: &str) -> Result<Testnet> {
    let name = experiment.testnet.as_str();
    let file = args.experiment.display().to_string();
    if let Some(given) = &args.file {
        return documents::testnet(documents::read(given)?, &given.display().to_string(), Some(name));
    }
    if let Ok(testnet) = documents::testnet(documents::parse(text, &file)?, &file, Some(name)) {
        return Ok(testnet);
    }
    if let Some((path, testnet)) = documents::beside(&args.experiment, name)? {
        eprintln!("testnet {name} from {}", path.display());
        return Ok(testnet);
    }
    Err(Usage(format!(
        "{file} wants testnet `{name}`, which neither runs nor stands in this file or in a YAML file beside it: \
         name its file with -f"
    ))
    .into())
}

/// Runs the experiment and prints its timeline as it happens. Ctrl-C aborts it.
async fn follow(mut client: Client, request: RunExperimentRequest, json: bool) -> Result<ExitCode> {
    let mut events = client.run_experiment(request).await.map_err(problem::from_status)?.into_inner();
    loop {
        let event = tokio::select! {
            event = events.message() => event.map_err(problem::from_status)?,
            _ = tokio::signal::ctrl_c() => {
                // Dropping the stream makes the supervisor heal what it has applied.
                eprintln!("aborted");
                return Ok(ExitCode::Invalid);
            }
        };
        let event = event.context("the testnet went away before the verdict")?;
        if event.verdict.is_empty() {
            print_event(&event, json);
            continue;
        }
        let outcome: RunOutcome = serde_json::from_str(&event.verdict).context("the verdict is malformed")?;
        if json {
            println!(
                "{}",
                serde_json::to_string_pretty(&outcome).context("cannot write the verdict as JSON")?
            );
        } else {
            println!("\n{}", outcome.summary());
        }
        return Ok(match outcome.verdict.phase {
            Phase::Passed => ExitCode::Passed,
            Phase::Failed => ExitCode::Failed,
            _ => ExitCode::Invalid,
        });
    }
}

fn print_event(event: &ExperimentEvent, json: bool) {
    let line = format!("{:>7.1}s  {:<18} {}", event.at_ms as f64 / 1000.0, event.kind, event.text);
    if json { eprintln!("{line}") } else { println!("{line}") }
}
