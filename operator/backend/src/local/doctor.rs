//! Whether this machine can run a testnet, check by check, each tried in a child process: nothing of the host changes.

use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

use netsplit_links::{
    Cut, PeerPorts, Rect,
    cuts::{CutTable, Renewal},
};
use nix::sys::{
    resource::{Resource, getrlimit},
    statvfs::statvfs,
    utsname::uname,
};
use serde::{Deserialize, Serialize};

use super::{
    chain,
    network::Network,
    supervisor::{LocalBackend, LocalConfig},
    topology,
    wire::{Request, Response},
};
use crate::backend::BackendError;

/// The oldest kernel that the whole set of features is known to work on.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// Descriptors for a hundred nodes.
const WANTED_FILES: u64 = 4_096;
/// Bytes for a testnet's blocks and logs.
const WANTED_DISK: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckStatus {
    Ok,
    /// It works, with the limit that the detail names.
    Warn,
    /// A testnet cannot run.
    Fail,
}

/// One line for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: String,
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty when all is well.
    pub fix: String,
}

fn check(name: &str, status: CheckStatus, detail: impl Into<String>, fix: &str) -> Check {
    let fix = if status == CheckStatus::Ok { String::new() } else { fix.to_owned() };
    Check { name: name.to_owned(), status, detail: detail.into(), fix }
}

/// Tries everything a testnet needs. `config` names the program to run and the directory that testnets are kept in.
pub async fn doctor(config: LocalConfig) -> Vec<Check> {
    let mut checks = vec![kernel(), files(), disk(&config.state_dir)];
    match LocalBackend::launch(config).await {
        Ok(backend) => {
            let how = if backend.is_rootless() { "in a user namespace (rootless)" } else { "as root" };
            checks.push(check("namespaces", CheckStatus::Ok, how, ""));
            checks.push(host_reach(&backend));
            match backend.call(Request::Doctor).await {
                Ok(Response::Checks(found)) => checks.extend(found),
                Ok(other) => {
                    checks.push(check("network", CheckStatus::Fail, format!("{other:?}"), "report this"));
                }
                Err(error) => {
                    checks.push(check("network", CheckStatus::Fail, chain(&error), "see the line above"));
                }
            }
        }
        Err(BackendError::Refused(sentence)) => {
            checks.push(check(
                "namespaces",
                CheckStatus::Fail,
                sentence,
                "run as root, or enable user namespaces as said",
            ));
        }
        Err(error) => {
            checks.push(check(
                "namespaces",
                CheckStatus::Fail,
                chain(&error),
                "check that the program can run itself",
            ));
        }
    }
    checks
}

fn kernel() -> Check {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_else(|errno| format!("unknown ({errno})"));
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let status = if version >= OLDEST_KERNEL { CheckStatus::Ok } else { CheckStatus::Warn };
    let fix = format!("use Linux {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1);
    check("kernel", status, format!("Linux {release}"), &fix)
}

fn files() -> Check {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= WANTED_FILES => {
            check("open files", CheckStatus::Ok, format!("up to {hard}"), "")
        }
        Ok((_, hard)) => {
            let fix = format!("raise the hard limit to {WANTED_FILES} for large testnets: `ulimit -Hn`");
            check("open files", CheckStatus::Warn, format!("up to {hard}"), &fix)
        }
        Err(errno) => check("open files", CheckStatus::Warn, errno.to_string(), "check `ulimit -n`"),
    }
}

fn disk(directory: &Path) -> Check {
    // The directory is made later; what counts is the file system it will be on.
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statvfs(existing) {
        Ok(found) => {
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            let status = if free >= WANTED_DISK { CheckStatus::Ok } else { CheckStatus::Warn };
            let detail = format!("{} MiB free for {}", free >> 20, directory.display());
            check("disk", status, detail, "free at least 1 GiB")
        }
        Err(errno) => {
            check("disk", CheckStatus::Warn, format!("{}: {errno}", existing.display()), "check the path")
        }
    }
}

fn host_reach(backend: &LocalBackend) -> Check {
    match backend.answers_host() {
        Ok(()) => check("node addresses", CheckStatus::Ok, "answer from this machine", ""),
        // Not a shortcoming of the machine: loopback ports lead to every node all the same.
        Err(_) if backend.is_rootless() => {
            check("node addresses", CheckStatus::Ok, "through loopback ports (as root also directly)", "")
        }
        Err(reason) => {
            let detail = format!("only through loopback ports: {reason}");
            check(
                "node addresses",
                CheckStatus::Warn,
                detail,
                "free a part of 10.77.0.0/16, or use the ports",
            )
        }
    }
}

/// The checks that need the hub's namespace; run by the inner process.
pub(super) async fn checks_in_hub() -> Vec<Check> {
    let mut checks = vec![nf_tables()];
    match topology::build_hub(Network::PRIVATE).await {
        Ok(hub) => {
            checks.push(check(
                "forwarding",
                CheckStatus::Ok,
                "ip_forward works in a namespace of its own",
                "",
            ));
            checks.push(match topology::build_node(&hub, Network::PRIVATE, 0, "a trial node").await {
                Ok(_) => check("veth", CheckStatus::Ok, "a node can be joined to the hub", ""),
                Err(error) => {
                    check("veth", CheckStatus::Fail, chain(&error), "load the module: `modprobe veth`")
                }
            });
        }
        Err(error) => checks.push(check(
            "forwarding",
            CheckStatus::Fail,
            chain(&error),
            "/proc/sys/net must be writable: not so in most containers without --privileged",
        )),
    }
    checks.push(packet_queue());
    checks
}

fn nf_tables() -> Check {
    const FIX: &str = "load the modules: `modprobe nf_tables nf_tables_inet`";
    let trial = || {
        let mut table = CutTable::open(PeerPorts::default(), None)?;
        let one = vec![Ipv4Addr::new(192, 0, 2, 1)];
        let other = vec![Ipv4Addr::new(192, 0, 2, 2)];
        let cut = Cut {
            id: "doctor".to_owned(),
            rects: vec![Rect { from: one, to: other }],
            lease: Duration::from_secs(1),
        };
        table.set(&[cut])?;
        let missing = table.observe()?.iter().any(|seen| seen.rule_missing);
        table.set(&[])?;
        Ok::<_, netsplit_links::cuts::CutError>((table.renewal(), missing))
    };
    match trial() {
        Ok((_, true)) => check("nf_tables", CheckStatus::Fail, "a rule was taken but is not listed", FIX),
        Ok((Renewal::InPlace, _)) => {
            check("nf_tables", CheckStatus::Ok, "cuts work, leases are renewed in place", "")
        }
        Ok((Renewal::Replace, _)) => {
            check("nf_tables", CheckStatus::Ok, "cuts work, leases are renewed by replacing the rules", "")
        }
        Err(error) => check("nf_tables", CheckStatus::Fail, chain(&error), FIX),
    }
}

fn packet_queue() -> Check {
    let present = fs::exists("/proc/net/netfilter/nfnetlink_queue").unwrap_or(false);
    let detail = if present { "present" } else { "absent; needed only for delay, loss and rate of links" };
    check("packet queue", CheckStatus::Ok, detail, "")
}
