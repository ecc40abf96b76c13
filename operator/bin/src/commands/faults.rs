//! `netsplit split`, `cut` and `heal`: faults by hand.

use std::time::Duration;

use anyhow::{Result, bail};
use netsplit_proto::control::{AddFaultRequest, HealRequest, Selector, selector::Side};

use crate::{
    cli::{CutArgs, HealArgs, SplitArgs, TestnetArg},
    client, problem,
};

pub async fn split(args: &SplitArgs) -> Result<()> {
    let selector =
        Selector { partition: args.groups.iter().map(|group| side(group)).collect(), ..Selector::default() };
    add(&args.testnet, selector, args.duration.map(|lasts| lasts.0)).await
}

pub async fn cut(args: &CutArgs) -> Result<()> {
    let selector = Selector {
        from: Some(side(&args.from)),
        to: Some(side(&args.to)),
        one_way: args.one_way,
        ..Selector::default()
    };
    add(&args.testnet, selector, args.duration.map(|lasts| lasts.0)).await
}

async fn add(testnet: &TestnetArg, selector: Selector, lasts: Option<Duration>) -> Result<()> {
    let mut running = client::find(testnet.testnet.as_deref()).await?;
    let for_ms = lasts.map_or(0, |lasts| lasts.as_millis() as u64);
    let request = AddFaultRequest { selector: Some(selector), for_ms };
    let fault = running.client.add_fault(request).await.map_err(problem::from_status)?.into_inner();
    println!("{}: {}", fault.id, fault.description);
    println!("{} directed links cut, {}: {}", fault.links, fault.state, fault.evidence);
    match lasts {
        Some(_) => println!("heals by itself in {} s", for_ms.div_ceil(1000)),
        None => println!("lasts until `netsplit heal`"),
    }
    Ok(())
}

pub async fn heal(args: &HealArgs) -> Result<()> {
    let selector = match args.groups.as_slice() {
        [] if args.one_way => {
            bail!("--one-way needs the arguments of the cut: netsplit heal FROM TO --one-way")
        }
        [] => None,
        [_] => bail!(
            "give all arguments of the `split` or `cut` to heal, or none to heal every fault made by hand"
        ),
        [from, to] if args.one_way => Some(Selector {
            from: Some(side(from)),
            to: Some(side(to)),
            one_way: true,
            ..Selector::default()
        }),
        _ if args.one_way => bail!("a one-way cut has two arguments: FROM and TO"),
        groups => Some(Selector {
            partition: groups.iter().map(|group| side(group)).collect(),
            ..Selector::default()
        }),
    };
    let mut running = client::find(args.testnet.testnet.as_deref()).await?;
    let answer =
        running.client.heal(HealRequest { selector }).await.map_err(problem::from_status)?.into_inner();
    if answer.healed.is_empty() {
        println!("no fault was active");
    }
    for fault in answer.healed {
        println!("healed {}: {} ({} packets had been dropped)", fault.id, fault.description, fault.dropped);
    }
    Ok(())
}

fn side(names: &str) -> Side {
    Side {
        nodes: names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}
