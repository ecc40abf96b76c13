//! `netsplit down`: what a testnet was, removed.

use anyhow::{Result, bail};

use crate::{
    cli::DownArgs,
    world::{self, World},
};

pub async fn run(world: &dyn World, args: &DownArgs) -> Result<()> {
    let all = world.names().await?;
    let meant = match &args.testnet.testnet {
        _ if args.all => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no testnet `{name}`"),
        None if all.len() > 1 => vec![world::find(world, None).await?.state.name],
        None => all,
    };
    if meant.is_empty() {
        println!("nothing to take down");
    }
    for name in meant {
        world.take_down(&name, args.keep_data).await?;
        println!("{name} is down");
    }
    Ok(())
}
