//! Shaping of real packets, each scenario in a network namespace of its own: as root, and rootless.
//!
//! Fails, not skips, on a machine that cannot; `NETSPLIT_SKIP_NAMESPACES=1` skips and says what was not run. Arguments
//! choose scenarios by a part of their name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only libtest's")]

mod lab;
mod scenarios;

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

/// How a scenario's namespace is made.
const MODES: [&str; 2] = ["root", "rootless"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let word = |index: usize| arguments.get(index).map_or("", String::as_str);
    match word(1) {
        "inside" => {
            lab::enter(word(2));
            let scenario = scenarios::ALL.iter().find(|(name, _)| *name == word(3)).unwrap().1;
            scenario();
            return ExitCode::SUCCESS;
        }
        "agent" => {
            lab::agent(word(2));
            return ExitCode::SUCCESS;
        }
        "--list" => {
            println!("shaping: test");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if std::env::var_os("NETSPLIT_SKIP_NAMESPACES").is_some_and(|value| value == "1") {
        println!("NETSPLIT_SKIP_NAMESPACES=1: NOT RUN:");
        for (name, _) in scenarios::ALL {
            println!("    {name}");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> =
        arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let modes = if nix::unistd::geteuid().is_root() { &MODES[..] } else { &MODES[1..] };
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, _) in scenarios::ALL.iter().filter(|(name, _)| chosen(name)) {
        for mode in modes {
            let started = Instant::now();
            let status = Command::new("/proc/self/exe").args(["inside", mode, name]).status().unwrap();
            let verdict = if status.success() { "ok" } else { "FAILED" };
            println!("test {name} ({mode}) ... {verdict} ({:.1} s)", started.elapsed().as_secs_f32());
            if status.success() { passed += 1 } else { failed.push((name, mode)) }
        }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {} failed: {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
