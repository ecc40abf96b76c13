//! `netsplit logs`.

use anyhow::Result;

use crate::{
    cli::LogsArgs,
    world::{self, Logs, World},
};

pub async fn run(world: &dyn World, args: &LogsArgs) -> Result<()> {
    let testnet = testnet(world, args.testnet.testnet.as_deref()).await?;
    let wanted = Logs { node: args.node.clone(), lines: args.lines, follow: args.follow };
    world.logs(&testnet, &wanted).await
}

/// The testnet meant: running or not.
async fn testnet(world: &dyn World, name: Option<&str>) -> Result<String> {
    if let Some(name) = name {
        return Ok(name.to_owned());
    }
    let mut all = world.names().await?;
    if all.len() == 1 {
        return Ok(all.remove(0));
    }
    world::find(world, None).await.map(|found| found.state.name)
}
