//! `netsplit-saboteur PID`: removes every cut in the network namespace of a process, behind everybody's back.
//!
//! A program of its own, since only one without threads can enter the user namespace of a rootless testnet.

use std::{env, fs::File, process::ExitCode};

use anyhow::{Context as _, Result};
use netsplit_links::{PeerPorts, cuts::CutTable};
use nix::{
    sched::{CloneFlags, setns},
    unistd::geteuid,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netsplit-saboteur: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let pid = env::args().nth(1).context("the id of a process is missing")?;
    let enter = |kind: &str, flag| {
        let path = format!("/proc/{pid}/ns/{kind}");
        let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(namespace, flag).with_context(|| format!("cannot enter {path}"))
    };
    if !geteuid().is_root() {
        enter("user", CloneFlags::CLONE_NEWUSER)?;
    }
    enter("net", CloneFlags::CLONE_NEWNET)?;
    CutTable::open(PeerPorts::default(), None)?.clear()?;
    Ok(())
}
