//! `netsplit restart`: one node, with its data.

use anyhow::Result;
use netsplit_proto::control::RestartRequest;

use crate::{
    cli::RestartArgs,
    world::{self, World},
};

pub async fn run(world: &dyn World, args: &RestartArgs) -> Result<()> {
    let found = world::find(world, args.testnet.testnet.as_deref()).await?;
    found.handle.restart(RestartRequest { node: args.node.clone(), kill: args.kill }).await?;
    println!("{} was started again", args.node);
    Ok(())
}
