//! `netsplit exec`: a command in a node's network.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::ExecArgs,
    nearest,
    problem::Usage,
    world::{self, World},
};

pub async fn run(world: &dyn World, args: &ExecArgs) -> Result<ExitCode> {
    let found = world::find(world, args.testnet.testnet.as_deref()).await?;
    let names: Vec<String> = found.state.nodes.iter().map(|node| node.name.clone()).collect();
    if !names.contains(&args.node) {
        let hint = nearest::hint(&args.node, &names);
        return Err(Usage(format!("testnet `{}` has no node `{}`{hint}", found.name(), args.node)).into());
    }
    found.handle.exec(&args.node, &args.command).await
}
