//! Faults end with their lease when nobody is left to renew them: the trial that shows it, short in the tests and long in
//! the soak.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};

use crate::{Kind, Lab, Testnet, kill, until};

/// Testnets whose faults end at the same time, since most of a round is waiting for that.
const BESIDE: u32 = 5;
/// Of a fault on one machine, and what a busy machine adds.
const LEASE: Duration = Duration::from_secs(15);
const SLACK: Duration = Duration::from_secs(3);
const MOMENT: Duration = Duration::from_secs(20);
/// A connection over links without a fault takes less, in milliseconds; one over the slow link takes more.
const FAST: f64 = 300.0;
const SLOW: &str = "600ms";

/// Between two validators, one way is cut and the other one slow.
#[derive(Clone, Debug)]
struct Trial {
    testnet: String,
    from: i32,
    to: String,
}

/// In the middle of a cut and of a slow link, SIGSTOP for everything that netsplit runs but the nodes: the links must be free
/// within the lease, though nobody lets them go. Then the same faults and SIGKILL for all of it: nothing may be left. Each
/// at least so many times; what did not hold, as sentences.
pub fn held_beyond_their_lease(lab: &Lab, times: u32, mut say: impl FnMut(&str)) -> Vec<String> {
    let mut wrong = Vec::new();
    let rounds = times.div_ceil(BESIDE);
    for round in 1..=rounds {
        let trials = bring_up(lab);
        break_links(lab, &trials);
        let freed = stop(lab, &trials, &mut wrong);
        say(&format!(
            "{} of {}: stopped, and free after {:.1} s",
            round * BESIDE,
            rounds * BESIDE,
            freed.as_secs_f64()
        ));
        break_links(lab, &trials);
        signal(lab, Signal::SIGKILL);
        until("everything ends with who ran it", MOMENT, || lab.processes().is_empty());
        say(&format!("{} of {}: killed, and nothing left", round * BESIDE, rounds * BESIDE));
    }
    lab.ok(&["down", "--all"]);
    lab.assert_nothing_left();
    wrong
}

fn bring_up(lab: &Lab) -> Vec<Trial> {
    let names: Vec<String> = (0..BESIDE).map(|n| format!("lease-{n}")).collect();
    let up = |name: &String| {
        let file =
            lab.write(&format!("{name}.yaml"), &Testnet { validators: 2, ..Testnet::new(name) }.yaml());
        lab.start(&["up", "-f", &file, "--detach"])
    };
    let ups: Vec<_> = names.iter().map(up).collect();
    for up in ups {
        let ended = up.wait(2 * MOMENT);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    let trial = |testnet: String| {
        let status = lab.status(&testnet);
        let (from, to) = (status.node("validator-0").pid, status.node("validator-1").address.clone());
        Trial { testnet, from, to }
    };
    names.into_iter().map(trial).collect()
}

fn break_links(lab: &Lab, trials: &[Trial]) {
    let cut = ["cut", "validator-0", "validator-1", "--one-way", "--for", "10m", "-t"];
    let link = ["link", "validator-1", "validator-0", "--one-way", "--latency", SLOW, "--for", "10m", "-t"];
    for fault in [&cut[..], &link[..]] {
        let asked: Vec<_> =
            trials.iter().map(|trial| lab.start(&[fault, &[trial.testnet.as_str()]].concat())).collect();
        for asked in asked {
            let ended = asked.wait(MOMENT);
            assert!(ended.code == Some(0) && ended.stdout.contains("proven"), "{ended:#?}");
        }
    }
    for trial in trials {
        assert_eq!(trial.connect_ms(), None, "{} is cut", trial.testnet);
    }
}

/// How long the last one took to be free.
fn stop(lab: &Lab, trials: &[Trial], wrong: &mut Vec<String>) -> Duration {
    signal(lab, Signal::SIGSTOP);
    let began = Instant::now();
    let mut held: Vec<&Trial> = trials.iter().collect();
    while !held.is_empty() && began.elapsed() < LEASE + SLACK {
        held.retain(|trial| trial.connect_ms().is_none_or(|took| took > FAST));
    }
    let freed = began.elapsed();
    wrong.extend(held.iter().map(|trial| {
        format!("links of {} were not free {:.1} s after SIGSTOP", trial.testnet, freed.as_secs_f64())
    }));
    signal(lab, Signal::SIGCONT);
    for trial in trials {
        // Who wakes up must not renew what has ended; what is told of it is taken back.
        until("netsplit is awake", MOMENT, || lab.try_status(&trial.testnet).is_some());
        lab.run(&["heal", "-t", &trial.testnet]);
        until("no fault is left", MOMENT, || lab.status(&trial.testnet).faults.is_empty());
    }
    freed
}

fn signal(lab: &Lab, signal: Signal) {
    for process in lab.processes().iter().filter(|process| process.kind != Kind::Node) {
        kill(process.pid, signal);
    }
}

impl Trial {
    /// From one validator to the other one's peer port, past everything that netsplit runs; `None`: it takes over a second.
    fn connect_ms(&self) -> Option<f64> {
        let script =
            "s=${EPOCHREALTIME/./}; exec 3<>/dev/tcp/$0/26600; e=${EPOCHREALTIME/./}; echo $((e - s))";
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.from.to_string(), "--net"]);
        if !geteuid().is_root() {
            nsenter.args(["--user", "--preserve-credentials"]);
        }
        nsenter.args(["timeout", "1", "bash", "-c", script, &self.to]);
        let ended =
            nsenter.stdin(Stdio::null()).stderr(Stdio::null()).output().expect("a machine has nsenter");
        let printed = String::from_utf8_lossy(&ended.stdout);
        ended.status.success().then(|| printed.trim().parse::<f64>().expect("microseconds") / 1_000.0)
    }
}
