//! `netsplit up`.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Result;
use futures::TryStreamExt as _;
use netsplit_proto::control::Testnet as State;

use super::{start, status};
use crate::{
    cli::UpArgs,
    documents,
    world::{Launched, World},
};

/// How often a foreground testnet without a terminal prints a line.
const REPORT_EVERY: Duration = Duration::from_secs(10);

pub async fn run(world: &dyn World, args: &UpArgs) -> Result<()> {
    let file = args.file.display().to_string();
    let testnet = documents::testnet(documents::read(&args.file)?, &file, args.testnet.as_deref())?;
    let timeout = args.timeout.map_or(world.patience(), |given| given.0);
    let mut launched = world.launch(&testnet, !args.detach).await?;
    let state = tokio::select! {
        state = start::first_final(&mut launched, timeout) => state,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            let advice = world.give_up(&testnet.name).await?;
            return Err(error.context(advice));
        }
    };
    println!("{} is up: first block final after {:.1} s", state.name, launched.since.elapsed().as_secs_f64());
    if args.detach {
        print!("{}", status::text(&state));
        println!("\nnext: netsplit run split-brain.yaml, or netsplit down");
        return Ok(());
    }
    let watched = watch(&mut launched, state).await;
    eprintln!("taking {} down", testnet.name);
    world.take_down(&testnet.name, false).await?;
    watched
}

/// Shows the state until Ctrl-C.
async fn watch(launched: &mut Launched, first: State) -> Result<()> {
    let live = std::io::stdout().is_terminal();
    let mut lines = draw(&first, 0, live);
    let mut reported = tokio::time::Instant::now();
    loop {
        tokio::select! {
            state = launched.states.try_next() => {
                let Some(state) = state? else {
                    anyhow::bail!("the testnet went away:\n{}", launched.handle.diagnosis().await);
                };
                anyhow::ensure!(state.state != "failed", "{}", state.problem);
                if live || reported.elapsed() >= REPORT_EVERY {
                    reported = tokio::time::Instant::now();
                    lines = draw(&state, lines, live);
                }
            }
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Prints the state over the last `lines` lines; returns how many it took.
fn draw(state: &State, lines: usize, live: bool) -> usize {
    let text = status::text(state);
    if live && lines > 0 {
        print!("\x1b[{lines}A\x1b[J");
    }
    println!("{text}Ctrl-C takes it down");
    text.lines().count() + 1
}
