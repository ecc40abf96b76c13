//! The processes of one lab, found by the state directory in their environment: also those whose parent is gone.

use std::{fs, path::Path};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// What a process is, by its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The supervisor of a testnet.
    Outer,
    /// The owner of its namespaces.
    Inner,
    /// The link agent.
    Agent,
    /// Who has paused nodes go on; only there once one was paused.
    Watchdog,
    Node,
    /// The command line, or a command that `exec` runs.
    Other,
}

#[derive(Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub kind: Kind,
    /// The node that it is, or in whose network it runs.
    pub node: Option<String>,
    pub command: String,
}

/// All processes, zombies excepted, that were started with this state directory.
pub fn of_state_dir(dir: &Path) -> Vec<Process> {
    let wanted = format!("NETSPLIT_STATE_DIR={}", dir.display());
    let entries = fs::read_dir("/proc").expect("this is Linux with /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != std::process::id().cast_signed()).filter_map(|pid| read(pid, &wanted)).collect()
}

/// `None` for a process of someone else, and for one that ended while it was looked at.
fn read(pid: i32, wanted: &str) -> Option<Process> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    entries.clone().find(|entry| *entry == wanted.as_bytes())?;
    let node = entries.find_map(|entry| entry.strip_prefix(b"NETSPLIT_NODE="));
    let node = node.map(|name| String::from_utf8_lossy(name).into_owned());
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let program = Path::new(arguments.first()?).file_name()?.to_str()?.to_owned();
    let kind = match arguments.get(1).map(String::as_str) {
        _ if program.starts_with("netsplit-node") => Kind::Node,
        Some("__outer") => Kind::Outer,
        Some("__inner") => Kind::Inner,
        Some("agent") => Kind::Agent,
        Some("__watchdog") => Kind::Watchdog,
        _ => Kind::Other,
    };
    Some(Process { pid, kind, node, command: arguments.join(" ") })
}

/// Sends a signal to a process of a lab. One that has ended meanwhile is no error.
pub fn kill(pid: i32, signal: Signal) {
    assert!(pid > 1, "{pid} is no process of a testnet");
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(errno) => panic!("cannot send {signal} to {pid}: {errno}"),
    }
}
