//! `netsplit restart`: one node, with its data.

use anyhow::Result;
use netsplit_proto::control::RestartRequest;

use crate::{cli::RestartArgs, client, problem};

pub async fn run(args: &RestartArgs) -> Result<()> {
    let mut running = client::find(args.testnet.testnet.as_deref()).await?;
    let request = RestartRequest { node: args.node.clone(), kill: args.kill };
    running.client.restart(request).await.map_err(problem::from_status)?;
    println!("{} was started again", args.node);
    Ok(())
}
