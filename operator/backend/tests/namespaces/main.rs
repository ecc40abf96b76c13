//! Real processes in real namespaces, as root or rootless; as root, the main scenario runs a second time rootless.
//!
//! Fails, not skips, on a machine that cannot; `NETSPLIT_SKIP_NAMESPACES=1` skips and says what was not run. Arguments
//! choose scenarios by a part of their name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows only libtest's")]

mod helper;
mod lab;
mod links;
mod pod_links;
mod pods;
mod scenarios;

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Instant};

use futures::FutureExt;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(code) = helper::run(&arguments) {
        return code;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("namespaces: test");
        return ExitCode::SUCCESS;
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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, scenario) in scenarios::ALL.iter().filter(|(name, _)| chosen(name)) {
        let started = Instant::now();
        let result = runtime.block_on(AssertUnwindSafe(scenario()).catch_unwind());
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", started.elapsed().as_secs_f32());
        if result.is_ok() { passed += 1 } else { failed.push(*name) }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {} failed: {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
