//! `netsplit split`, `cut`, `link` and `heal`: faults by hand.

use anyhow::{Result, bail};
use netsplit_proto::control::{AddFaultRequest, HealRequest, Quality, Selector, selector::Side};
use netsplit_spec::Links;

use crate::{
    cli::{CutArgs, HealArgs, LinkArgs, QualityArgs, SplitArgs, TestnetArg},
    quality, units,
    world::{self, World},
};

pub async fn split(world: &dyn World, args: &SplitArgs) -> Result<()> {
    let selector =
        Selector { partition: args.groups.iter().map(|group| side(group)).collect(), ..Selector::default() };
    add(world, &args.testnet, selector, None, args.duration).await
}

pub async fn cut(world: &dyn World, args: &CutArgs) -> Result<()> {
    let selector = Selector {
        from: Some(side(&args.from)),
        to: Some(side(&args.to)),
        one_way: args.one_way,
        ..Selector::default()
    };
    add(world, &args.testnet, selector, None, args.duration).await
}

pub async fn link(world: &dyn World, args: &LinkArgs) -> Result<()> {
    let selector = Selector {
        from: Some(side(&args.from)),
        to: Some(side(&args.to)),
        one_way: args.one_way,
        ..Selector::default()
    };
    add(world, &args.testnet, selector, Some(quality(args.quality)), args.duration).await
}

fn quality(args: QualityArgs) -> Quality {
    quality::to_proto(Links {
        latency: args.latency.map(|latency| latency.0),
        jitter: args.jitter.map(|jitter| jitter.0),
        loss: args.loss.map(|share| share.0),
        rate: args.rate.map(|rate| rate.0),
        duplicate: args.duplicate.map(|share| share.0),
        reorder: args.reorder.map(|share| share.0),
        corrupt: args.corrupt.map(|share| share.0),
    })
}

async fn add(
    world: &dyn World,
    testnet: &TestnetArg,
    selector: Selector,
    quality: Option<Quality>,
    lasts: Option<units::Duration>,
) -> Result<()> {
    let found = world::find(world, testnet.testnet.as_deref()).await?;
    let for_ms = lasts.map_or(0, |lasts| lasts.0.as_millis() as u64);
    let done = if quality.is_some() { "changed" } else { "cut" };
    let request = AddFaultRequest { selector: Some(selector), for_ms, quality };
    let fault = found.handle.add_fault(request).await?;
    println!("{}: {}", fault.id, fault.description);
    println!("{} directed links {done}, {}: {}", fault.links, fault.state, fault.evidence);
    match lasts {
        Some(_) => println!("heals by itself in {} s", for_ms.div_ceil(1000)),
        None => println!("lasts until `netsplit heal`"),
    }
    Ok(())
}

pub async fn heal(world: &dyn World, args: &HealArgs) -> Result<()> {
    let selector = match args.groups.as_slice() {
        [] if args.one_way => {
            bail!("--one-way needs the arguments of the fault: netsplit heal FROM TO --one-way")
        }
        [] => None,
        [_] => bail!(
            "give all arguments of the `split`, `cut` or `link` to heal, or none to heal every fault made by hand"
        ),
        [from, to] if args.one_way => Some(Selector {
            from: Some(side(from)),
            to: Some(side(to)),
            one_way: true,
            ..Selector::default()
        }),
        _ if args.one_way => bail!("a one-way fault has two arguments: FROM and TO"),
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
        let dropped = match fault.quality {
            Some(_) => String::new(),
            None => format!(" ({} packets had been dropped)", fault.dropped),
        };
        println!("healed {}: {}{dropped}", fault.id, fault.description);
    }
    Ok(())
}

fn side(names: &str) -> Side {
    Side {
        nodes: names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}
