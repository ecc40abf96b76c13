//! `netsplit split`, `cut` and `heal`: faults by hand.

use std::time::Duration;

use anyhow::{Result, bail};
use netsplit_proto::control::{AddFaultRequest, HealRequest, Selector, selector::Side};

use crate::{
    cli::{CutArgs, HealArgs, SplitArgs, TestnetArg},
    world::{self, World},
};

pub async fn split(world: &dyn World, args: &SplitArgs) -> Result<()> {
    let selector =
        Selector { partition: args.groups.iter().map(|group| side(group)).collect(), ..Selector::default() };
    add(world, &args.testnet, selector, args.duration.map(|lasts| lasts.0)).await
}

pub async fn cut(world: &dyn World, args: &CutArgs) -> Result<()> {
    let selector = Selector {
        from: Some(side(&args.from)),
        to: Some(side(&args.to)),
        one_way: args.one_way,
        ..Selector::default()
    };
    add(world, &args.testnet, selector, args.duration.map(|lasts| lasts.0)).await
}

async fn add(
    world: &dyn World,
    testnet: &TestnetArg,
    selector: Selector,
    lasts: Option<Duration>,
) -> Result<()> {
    let found = world::find(world, testnet.testnet.as_deref()).await?;
    let for_ms = lasts.map_or(0, |lasts| lasts.as_millis() as u64);
    let fault = found.handle.add_fault(AddFaultRequest { selector: Some(selector), for_ms }).await?;
    println!("{}: {}", fault.id, fault.description);
    println!("{} directed links cut, {}: {}", fault.links, fault.state, fault.evidence);
    match lasts {
        Some(_) => println!("heals by itself in {} s", for_ms.div_ceil(1000)),
        None => println!("lasts until `netsplit heal`"),
    }
    Ok(())
}

pub async fn heal(world: &dyn World, args: &HealArgs) -> Result<()> {
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
    let found = world::find(world, args.testnet.testnet.as_deref()).await?;
    let healed = found.handle.heal(HealRequest { selector }).await?;
    if healed.is_empty() {
        println!("no fault was active");
    }
    for fault in healed {
        println!("healed {}: {} ({} packets had been dropped)", fault.id, fault.description, fault.dropped);
    }
    Ok(())
}

fn side(names: &str) -> Side {
    Side {
        nodes: names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}
