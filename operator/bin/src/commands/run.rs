//! `netsplit run`: an experiment, its timeline, its verdict.

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use netsplit_plan::experiment::ExitCode;
use netsplit_proto::control::ExperimentEvent;
use netsplit_spec::Testnet;

use super::start;
use crate::{
    cli::RunArgs,
    documents,
    outcome::RunOutcome,
    problem::Usage,
    report,
    world::{Asked, Found, Handle, Launched, Told, World},
};

/// The experiment that is meant.
pub(super) fn read(args: &RunArgs) -> Result<Asked> {
    let file = args.experiment.display().to_string();
    let text = std::fs::read_to_string(&args.experiment)
        .map_err(|error| Usage(format!("cannot read {file}: {error} (`netsplit init` writes examples)")))?;
    let experiment =
        documents::experiment(documents::parse_at(&text, &args.experiment)?, &file, args.name.as_deref())?;
    Ok(Asked { experiment, document: text, file })
}

pub async fn run(world: &dyn World, args: &RunArgs) -> Result<ExitCode> {
    let asked = read(args)?;
    if let Some(found) = world.get(&asked.experiment.testnet).await?.filter(Found::is_alive) {
        eprintln!("running {} on {}, which runs already", asked.experiment.name, found.name());
        return follow(&*found.handle, &asked, args).await;
    }
    let testnet = find_testnet(args, &asked)?;
    // A file that cannot run is refused before anything starts.
    netsplit_spec::validate(&asked.experiment, &testnet).map_err(|problems| Usage(problems.to_string()))?;
    eprintln!("starting {} ({} nodes)", testnet.name, netsplit_spec::node_names(&testnet).len());
    let mut launched = world.launch(&testnet, !args.keep).await?;
    let verdict = start_and_follow(world, &mut launched, &asked, args).await;
    if args.keep {
        eprintln!("{} stays up: `netsplit down -t {0}`", testnet.name);
    } else {
        world.take_down(&testnet.name, false).await?;
    }
    verdict
}

async fn start_and_follow(
    world: &dyn World,
    launched: &mut Launched,
    asked: &Asked,
    args: &RunArgs,
) -> Result<ExitCode> {
    tokio::select! {
        state = start::first_final(launched, world.patience()) => {
            let state = state?;
            eprintln!("{} is up: first block final after {:.1} s", state.name, launched.since.elapsed().as_secs_f64());
        }
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::Invalid),
    }
    follow(&*launched.handle, asked, args).await
}

/// The testnet of an experiment: from its own file, from the file that was given, from the files beside it.
pub(super) fn find_testnet(args: &RunArgs, asked: &Asked) -> Result<Testnet> {
    let Asked { experiment, document, file } = asked;
    let name = experiment.testnet.as_str();
    if let Some(given) = &args.file {
        return documents::testnet(documents::read(given)?, &given.display().to_string(), Some(name));
    }
    if let Ok(testnet) =
        documents::testnet(documents::parse_at(document, &args.experiment)?, file, Some(name))
    {
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

/// Runs the experiment and prints its timeline as it happens. Without a verdict (Ctrl-C) it is aborted.
async fn follow(handle: &dyn Handle, asked: &Asked, args: &RunArgs) -> Result<ExitCode> {
    let mut events = handle.run(asked).await?;
    let ended = tokio::select! {
        ended = tell(&mut events, args) => ended,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("aborted");
            Ok(None)
        }
    };
    drop(events);
    match ended {
        Ok(Some(outcome)) => Ok(outcome.verdict.exit_code()),
        Ok(None) => handle.abort(asked).await.map(|()| ExitCode::Invalid),
        Err(error) => {
            handle.abort(asked).await?;
            Err(error)
        }
    }
}

/// Prints what is told, to the verdict.
async fn tell(events: &mut Told<ExperimentEvent>, args: &RunArgs) -> Result<Option<RunOutcome>> {
    loop {
        let event = events.try_next().await?.context("the testnet went away before the verdict")?;
        if event.verdict.is_empty() {
            print_event(&event, args.json);
            continue;
        }
        let outcome: RunOutcome = serde_json::from_str(&event.verdict).context("the verdict is malformed")?;
        if let Some(dir) = &args.report {
            report::write(dir, &outcome)?;
            eprintln!("report: {}", dir.join("report.html").display());
        }
        if args.json {
            let text = serde_json::to_string_pretty(&outcome.brief());
            println!("{}", text.context("cannot write the verdict as JSON")?);
        } else {
            println!("\n{}", outcome.summary());
        }
        return Ok(Some(outcome));
    }
}

fn print_event(event: &ExperimentEvent, json: bool) {
    let line = format!("{:>7.1}s  {:<18} {}", event.at_ms as f64 / 1000.0, event.kind, event.text);
    if json { eprintln!("{line}") } else { println!("{line}") }
}
