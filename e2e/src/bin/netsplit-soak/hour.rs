//! An hour of load, kills and cuts on one testnet, and what must hold all the while.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netsplit_e2e::{Kind, Lab, Status, kill};
use nix::sys::signal::Signal;

use crate::{
    agreement::Agreement,
    disturb::{Chooser, Disturbance},
    follow::Followers,
    judge::{Scope, judge},
    meter::Meter,
    progress::{Progress, clock},
    report::{Check, Hour, Recoveries},
    shape::Shape,
};

const TESTNET: &str = "soak";
/// Goes away, and comes back; the other full node is left alone.
const AWAY: &str = "full-1";
const ALONE: &str = "full-0";
const POLL: Duration = Duration::from_millis(20);
/// For the kernel and the supervisor to see a process end.
const SOON: Duration = Duration::from_secs(10);
/// So many measurements make a trend.
const SAMPLES: u32 = 720;
const SAMPLE_LEAST: Duration = Duration::from_secs(1);
/// Faults that may stay unproven, on a machine that others use: one in so many.
const UNPROVEN_ONE_IN: u32 = 10;

/// Runs it to its end, or to the first thing that does not hold. All that was measured goes to the file `readings`.
pub fn run(lab: &mut Lab, shape: &Shape, readings: Option<&Path>) -> Result<Hour> {
    let file = lab.write("soak.yaml", &shape.yaml(TESTNET));
    netsplit(lab, &["up", "-f", &file, "--detach"])?;
    let mut soak = Soak::new(lab, shape)?;
    let broken = soak.run().err();
    let hour = soak.end(broken.as_ref(), readings)?;
    if !hour.checks.iter().all(|check| check.held) {
        eprintln!("files of the testnet are left in {}", lab.keep_files().display());
    }
    Ok(hour)
}

/// A command that must succeed; what it printed.
fn netsplit(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let ended = lab.run(arguments);
    let words = arguments.join(" ");
    ensure!(
        ended.code == Some(0),
        "`netsplit {words}` ended with {:?} after {:.1} s: {}{}",
        ended.code,
        ended.took.as_secs_f64(),
        ended.stdout,
        ended.stderr
    );
    Ok(ended.stdout)
}

fn status(lab: &Lab) -> Result<Status> {
    lab.try_status(TESTNET).context("`netsplit status` finds no testnet any more")
}

struct Soak<'a> {
    lab: &'a Lab,
    shape: &'a Shape,
    followers: Followers,
    meter: Meter,
    chooser: Chooser,
    progress: Progress,
    /// Nodes that should make blocks final now, and their processes.
    present: Vec<String>,
    pids: BTreeMap<String, i32>,
    kills: u32,
    splits: u32,
    cuts: u32,
    unproven: u32,
    recoveries: Vec<f64>,
    absence: Absence,
    /// When a node's store was full, in the meter's seconds.
    full_from: Vec<(String, f64)>,
    doing: String,
}

#[derive(Clone, Debug)]
enum Absence {
    Ahead,
    Gone { since: Duration },
    Over { blocks: u64, seconds: f64 },
}

impl<'a> Soak<'a> {
    fn new(lab: &'a Lab, shape: &'a Shape) -> Result<Self> {
        let status = status(lab)?;
        let names: Vec<String> = status.nodes.iter().map(|node| node.name.clone()).collect();
        let validators = status.nodes.iter().filter(|node| node.role == "validator");
        let validators = validators.map(|node| node.name.clone()).collect();
        let apis = status.nodes.iter().map(|node| (node.name.clone(), node.api.clone())).collect();
        let every = (shape.duration / SAMPLES).max(SAMPLE_LEAST);
        Ok(Self {
            followers: Followers::start(apis)?,
            meter: Meter::start(lab.state(), TESTNET, every),
            chooser: Chooser::new(shape.seed, names.clone(), validators),
            progress: Progress::new(),
            pids: status.nodes.iter().map(|node| (node.name.clone(), node.pid)).collect(),
            present: names,
            kills: 0,
            splits: 0,
            cuts: 0,
            unproven: 0,
            recoveries: Vec::new(),
            absence: Absence::Ahead,
            full_from: Vec::new(),
            doing: "starting".to_owned(),
            lab,
            shape,
        })
    }

    fn run(&mut self) -> Result<()> {
        let &Shape { duration, kills, seed, rate, retention, .. } = self.shape;
        self.progress.say(&format!(
            "4 validators, 2 full nodes, {rate} transfers/s, {retention} blocks kept, for {} (seed {seed}); {} is never killed",
            clock(duration),
            self.chooser.spared()
        ));
        while self.progress.elapsed() < duration || self.kills < kills || !self.stores_are_measured() {
            ensure!(
                self.progress.elapsed() < duration * 5 / 4,
                "{} of {kills} SIGKILLs in {}, and {} of {} stores full: this machine is too slow for this form",
                self.kills,
                clock(self.progress.elapsed()),
                self.full_from.len(),
                self.present.len()
            );
            self.keep_one_away()?;
            let next = self.chooser.next();
            self.disturb(&next)?;
            self.recover(&next)?;
            let peace = self.chooser.peace();
            "peace".clone_into(&mut self.doing);
            self.hold(peace)?;
        }
        self.keep_one_away()?;
        ensure!(matches!(self.absence, Absence::Over { .. }), "{AWAY} has not come back");
        Ok(())
    }

    /// Makes the disturbance, holds it and ends it.
    fn disturb(&mut self, next: &Disturbance) -> Result<()> {
        self.doing = next.to_string();
        match next {
            Disturbance::Kill { victims, away } => {
                self.kill(victims)?;
                self.hold(*away)?;
                self.start(victims)
            }
            Disturbance::Split { sides: [left, right], victim, lasts } => {
                self.splits += 1;
                let (left, right) = (left.join(","), right.join(","));
                self.fault(&["split", &left, &right])?;
                let victims: Vec<String> = victim.iter().cloned().collect();
                self.hold(*lasts / 2)?;
                self.kill(&victims)?;
                self.hold(*lasts / 2)?;
                self.start(&victims)?;
                self.heal()
            }
            Disturbance::Cut { from, to, one_way, lasts } => {
                self.cuts += 1;
                let one_way = one_way.then_some("--one-way");
                let arguments: Vec<&str> = ["cut", from, to].into_iter().chain(one_way).collect();
                self.fault(&arguments)?;
                self.hold(*lasts)?;
                self.heal()
            }
        }
    }

    fn kill(&mut self, victims: &[String]) -> Result<()> {
        for victim in victims {
            let pid = self.pids.remove(victim).with_context(|| format!("{victim} has no process to kill"))?;
            kill(pid, Signal::SIGKILL);
            self.kills += 1;
        }
        Ok(())
    }

    fn start(&mut self, nodes: &[String]) -> Result<()> {
        for node in nodes {
            netsplit(self.lab, &["restart", node, "-t", TESTNET])?;
            let status = status(self.lab)?;
            self.pids.insert(node.clone(), status.node(node).pid);
        }
        Ok(())
    }

    /// Asks for a fault. One that cannot be proven, as on a machine that others keep busy, is counted.
    fn fault(&mut self, arguments: &[&str]) -> Result<()> {
        let arguments = [arguments, &["-t", TESTNET]].concat();
        if let Err(error) = netsplit(self.lab, &arguments) {
            self.unproven += 1;
            let (made, unproven) = (self.splits + self.cuts, self.unproven);
            self.progress.say(&format!("{error:#}"));
            ensure!(
                unproven <= (made / UNPROVEN_ONE_IN).max(2),
                "{unproven} of {made} faults could not be proven: {error:#}"
            );
        }
        Ok(())
    }

    fn heal(&self) -> Result<()> {
        netsplit(self.lab, &["heal", "-t", TESTNET]).map(drop)
    }

    /// Every node that should has a block final above all that were when the disturbance ended, and lives.
    fn recover(&mut self, after: &Disturbance) -> Result<()> {
        let target = self.followers.agreement().top() + 1;
        let since = Instant::now();
        self.doing = format!("recovering from {after}");
        let present = self.present.clone();
        let limit = self.shape.recover_within;
        let recovered = self.wait(limit, |agreement| agreement.below(target, &present).is_empty())?;
        if !recovered {
            let late = self.followers.agreement().below(target, &present).join(", ");
            let limit = limit.as_secs();
            bail!("finality did not go on: {late} had no block {target} within {limit} s after {after}");
        }
        let took = since.elapsed().as_secs_f64();
        self.recoveries.push(took);
        self.progress.say(&format!("{after}: final again everywhere after {took:.2} s, height {target}"));
        self.note_full_stores();
        let status = status(self.lab)?;
        for (name, pid) in &self.pids {
            let node = status.node(name);
            ensure!(
                node.state == "running" && node.pid == *pid,
                "{name} ended by itself: it is {} as process {}, and was process {pid}",
                node.state,
                node.pid
            );
        }
        Ok(())
    }

    fn note_full_stores(&mut self) {
        let now = self.meter.now();
        let agreement = self.followers.agreement();
        for name in &self.present {
            // A tenth more: the first blocks to be dropped are those that hold least.
            let full = agreement.told(name).height > self.shape.retention + self.shape.retention / 10;
            if full && !self.full_from.iter().any(|(known, _)| known == name) {
                self.full_from.push((name.clone(), now));
            }
        }
    }

    /// Whether every store has been full for long enough to be judged.
    fn stores_are_measured(&self) -> bool {
        let since = self.meter.now() - self.shape.duration.as_secs_f64() / 8.0;
        self.present
            .iter()
            .all(|node| self.full_from.iter().any(|(full, from)| full == node && *from <= since))
    }

    /// One full node is stopped in order, stays away, comes back and catches up.
    fn keep_one_away(&mut self) -> Result<()> {
        let now = self.progress.elapsed();
        match self.absence {
            Absence::Ahead if now >= self.shape.away_at => {
                self.progress.say(&format!("{AWAY} goes away for {}", clock(self.shape.away_for)));
                let pid = self.pids.remove(AWAY).context("it runs")?;
                kill(pid, Signal::SIGTERM);
                let deadline = Instant::now() + SOON;
                while status(self.lab)?.node(AWAY).state != "exited (0)" {
                    let state = status(self.lab)?.node(AWAY).state.clone();
                    ensure!(Instant::now() < deadline, "{AWAY} does not end in order: it is {state}");
                    self.hold(POLL)?;
                }
                self.present.retain(|node| node != AWAY);
                // It measures nothing while it is not there.
                self.full_from.retain(|(node, _)| node != AWAY);
                self.absence = Absence::Gone { since: now };
            }
            Absence::Gone { since } if now >= since + self.shape.away_for => self.come_back()?,
            _ => {}
        }
        Ok(())
    }

    fn come_back(&mut self) -> Result<()> {
        let (own, top) = {
            let agreement = self.followers.agreement();
            (agreement.told(AWAY).height, agreement.top())
        };
        "catching up".clone_into(&mut self.doing);
        let since = Instant::now();
        self.start(&[AWAY.to_owned()])?;
        let limit = self.shape.catch_up_within;
        let back = self.wait(limit, |agreement| agreement.told(AWAY).height > top)?;
        let height = self.followers.agreement().told(AWAY).height;
        ensure!(back, "{AWAY} has not caught up within {} s: it is at {height} of {top}", limit.as_secs());
        let (blocks, seconds) = (top - own, since.elapsed().as_secs_f64());
        self.progress.say(&format!("{AWAY} is back and has caught up {blocks} blocks in {seconds:.1} s"));
        self.present.push(AWAY.to_owned());
        self.absence = Absence::Over { blocks, seconds };
        Ok(())
    }

    fn hold(&mut self, time: Duration) -> Result<()> {
        self.wait(time, |_| false).map(drop)
    }

    /// Waits for a condition; `false` when it does not hold in time. A fork ends everything.
    fn wait(&mut self, limit: Duration, mut holds: impl FnMut(&Agreement) -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            {
                let agreement = self.followers.agreement();
                if let Some(fork) = agreement.fork() {
                    bail!("the chain forked: {fork}");
                }
                if holds(&agreement) {
                    return Ok(true);
                }
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let Self { progress, followers, meter, kills, splits, cuts, doing, .. } = self;
            progress.state(|| {
                let top = followers.agreement().top();
                let (memory, store, wal) = now(meter);
                format!(
                    "height {top}, {kills} kills, {splits} splits, {cuts} cuts; most of one node: {memory:.0} MiB \
                     memory, {store:.0} MiB store, {wal:.1} MiB log | {doing}"
                )
            });
            std::thread::sleep(POLL);
        }
    }

    /// Takes the testnet down and judges the whole.
    fn end(mut self, broken: Option<&anyhow::Error>, file: Option<&Path>) -> Result<Hour> {
        let lasted = self.progress.elapsed();
        let until = self.meter.now();
        let mut checks = Vec::new();
        let mut check = |name, held, detail| checks.push(Check { name, held, detail });
        let status = status(self.lab)?;
        let (committed, committed_per_second) = status
            .load
            .as_ref()
            .map_or((0, 0.0), |load| (load.committed, load.committed as f64 / load.seconds));
        if let Some(error) = broken {
            self.progress.say(&format!("broken: {error:#}"));
            check("the run went to its end", false, format!("{error:#}"));
        } else {
            // All disturbances are over: the last blocks of all nodes are compared, too.
            let (top, all) = (self.followers.agreement().top(), self.present.clone());
            let equal =
                self.wait(self.shape.recover_within, |agreement| agreement.below(top, &all).is_empty());
            let agreement = self.followers.agreement();
            let held = agreement.fork().is_none() && agreement.skipped() == 0 && matches!(equal, Ok(true));
            let detail = agreement.fork().map_or_else(
                || {
                    let (compared, skipped) = (agreement.compared(), agreement.skipped());
                    format!("{compared} final blocks of {} nodes compared, {skipped} missed", all.len())
                },
                str::to_owned,
            );
            check("no two nodes disagree on a final block", held, detail);
            drop(agreement);
            let recoveries = Recoveries::of(self.recoveries.clone());
            let detail = format!("{} times, at most {:.2} s", recoveries.count, recoveries.max);
            check("finality goes on after each disturbance", true, detail);
            let detail = format!("{} (at least {})", self.kills, self.shape.kills);
            check("validators were killed", self.kills >= self.shape.kills, detail);
            if let Absence::Over { blocks, seconds } = self.absence {
                check("the node that was away caught up", true, format!("{blocks} blocks in {seconds:.1} s"));
            }
            // Some of the time a chain is split, stands, and what is sent is held up.
            let wanted = f64::from(self.shape.rate) / 2.0;
            let detail =
                format!("{committed_per_second:.0}/s of {}/s (at least {wanted:.0})", self.shape.rate);
            check("load becomes final", committed_per_second >= wanted, detail);
            let (held, detail) = self.pruned()?;
            check("old blocks are dropped", held, detail);
        }
        let networks = networks(self.lab);
        let mut down = vec!["down", "-t", TESTNET];
        down.extend(broken.is_some().then_some("--keep-data"));
        let down = netsplit(self.lab, &down);
        let Self { meter, followers, chooser, shape, full_from, .. } = self;
        let heights = followers.agreement().top();
        drop(followers);
        let steady = [chooser.spared(), ALONE, "outer", "inner", "agent"];
        let scope = Scope { steady: &steady, from: until / 3.0, until, full_from: &full_from };
        let (judged, figures) = judge(&meter.readings(), &scope);
        if let Some(file) = file {
            fs::write(file, meter.readings().csv())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        if broken.is_none() {
            checks.extend(judged);
            checks.push(nothing_left(self.lab, down, &networks));
        }
        Ok(Hour {
            shape: shape.clone(),
            lasted_seconds: lasted.as_secs_f64(),
            heights,
            kills: self.kills,
            splits: self.splits,
            cuts: self.cuts,
            unproven: self.unproven,
            recoveries: Recoveries::of(self.recoveries),
            committed,
            committed_per_second,
            checks,
            figures,
        })
    }

    /// Whether every node keeps what it should and no more.
    fn pruned(&self) -> Result<(bool, String)> {
        let mut dropped = u64::MAX;
        for node in &self.present {
            let status = self.followers.status(node).with_context(|| format!("{node} does not answer"))?;
            let kept = status.final_height + 1 - status.first_height;
            if kept > self.shape.retention + 8 || status.first_height <= 1 {
                return Ok((false, format!("{node} keeps {kept} blocks, from {}", status.first_height)));
            }
            dropped = dropped.min(status.first_height - 1);
        }
        Ok((true, format!("{dropped} of each node, {} kept", self.shape.retention)))
    }
}

/// The most that one node takes now: memory, store and write-ahead log in MiB.
fn now(meter: &Meter) -> (f64, f64, f64) {
    let readings = meter.readings();
    let last = readings.disks.values().filter_map(|disks| disks.last());
    let (store, wal) =
        last.fold((0.0_f64, 0.0_f64), |(store, wal), disk| (store.max(disk.store), wal.max(disk.wal)));
    let nodes = readings.processes.iter().filter(|(name, _)| readings.disks.contains_key(*name));
    let memory = nodes.filter_map(|(_, usages)| Some(usages.last()?.memory)).fold(0.0, f64::max);
    (memory, store, wal)
}

/// The network namespaces of a lab's processes, this program's own excepted.
fn networks(lab: &Lab) -> BTreeSet<String> {
    let network = |pid: &str| {
        fs::read_link(format!("/proc/{pid}/ns/net")).ok().map(|link| link.to_string_lossy().into_owned())
    };
    let own = network("self");
    let theirs = lab.processes().into_iter().filter(|process| process.kind != Kind::Outer);
    theirs
        .filter_map(|process| network(&process.pid.to_string()))
        .filter(|found| Some(found) != own.as_ref())
        .collect()
}

/// No process, namespace or file is left of the testnet.
fn nothing_left(lab: &Lab, down: Result<String>, networks: &BTreeSet<String>) -> Check {
    let name = "`down` leaves no process, namespace or file";
    let mut left = Vec::new();
    left.extend(down.err().map(|error| format!("{error:#}")));
    let processes = lab.processes();
    left.extend(processes.iter().map(|process| format!("process {}: {}", process.pid, process.command)));
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let held =
            fs::read_link(process.path().join("ns/net")).map(|link| link.to_string_lossy().into_owned());
        if held.is_ok_and(|held| networks.contains(&held)) {
            left.push(format!(
                "a network namespace, held by process {}",
                process.file_name().to_string_lossy()
            ));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(
        networks
            .iter()
            .filter(|network| mounts.contains(*network))
            .map(|network| format!("a mount of {network}")),
    );
    for file in fs::read_dir(lab.state()).into_iter().flatten().flatten() {
        left.push(format!("the file {}", file.path().display()));
    }
    let detail =
        if left.is_empty() { format!("{} namespaces are gone", networks.len()) } else { left.join("; ") };
    Check { name, held: left.is_empty() && !networks.is_empty(), detail }
}
