//! What every process and every node's directory takes, from time to time.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netsplit_e2e::{Kind, processes_of};

const MIB: f64 = (1 << 20) as f64;
/// Of `stat`, whatever the file system's own blocks are.
const BLOCK: f64 = 512.0;

/// One process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Seconds since the meter started.
    pub at: f64,
    pub pid: i32,
    /// MiB, shared pages in proportion.
    pub memory: f64,
    pub descriptors: f64,
    pub threads: f64,
}

/// What one node has on disk at one moment, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub at: f64,
    pub store: f64,
    pub wal: f64,
    pub log: f64,
}

#[derive(Debug, Default)]
pub struct Readings {
    /// By node, or `outer`, `inner`, `agent`.
    pub processes: BTreeMap<String, Vec<Usage>>,
    pub disks: BTreeMap<String, Vec<Disk>>,
    /// The supervisor's own logs.
    pub supervisor_log: Vec<(f64, f64)>,
}

impl Readings {
    /// All of them: `seconds,subject,quantity,value`, memory and disk in MiB.
    pub fn csv(&self) -> String {
        let mut out = "seconds,subject,quantity,value\n".to_owned();
        let mut line = |at: f64, subject: &str, quantity: &str, value: f64| {
            writeln!(out, "{at:.1},{subject},{quantity},{value:.3}").expect("a String takes it all");
        };
        for (subject, usages) in &self.processes {
            for usage in usages {
                line(usage.at, subject, "memory", usage.memory);
                line(usage.at, subject, "open files", usage.descriptors);
                line(usage.at, subject, "threads", usage.threads);
            }
        }
        for (subject, disks) in &self.disks {
            for disk in disks {
                line(disk.at, subject, "store", disk.store);
                line(disk.at, subject, "wal", disk.wal);
                line(disk.at, subject, "log", disk.log);
            }
        }
        self.supervisor_log.iter().for_each(|(at, log)| line(*at, "supervisor", "log", *log));
        out
    }
}

/// Reads until it is dropped.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    readings: Arc<Mutex<Readings>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Of the one testnet in that state directory.
    pub fn start(state: PathBuf, testnet: &str, every: Duration) -> Self {
        let readings = Arc::new(Mutex::new(Readings::default()));
        let (stop, stopped) = mpsc::channel();
        let started = Instant::now();
        let (shared, root) = (Arc::clone(&readings), state.join(testnet));
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                read(&state, &root, started.elapsed().as_secs_f64(), &shared);
            }
        });
        Self { started, readings, stop: Some(stop), thread: Some(thread) }
    }

    /// Seconds, as the readings count them.
    pub fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    pub fn readings(&self) -> MutexGuard<'_, Readings> {
        lock(&self.readings)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the thread that measures has panicked");
        }
    }
}

fn lock(readings: &Mutex<Readings>) -> MutexGuard<'_, Readings> {
    // A reading that is missing says no more than one that was never made.
    readings.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(state: &Path, root: &Path, at: f64, readings: &Mutex<Readings>) {
    for process in processes_of(state) {
        let name = match (process.kind, process.node) {
            (Kind::Node, Some(node)) => node,
            (Kind::Outer, _) => "outer".to_owned(),
            (Kind::Inner, _) => "inner".to_owned(),
            (Kind::Agent, _) => "agent".to_owned(),
            _ => continue,
        };
        // It may have ended meanwhile, or not have begun.
        if let Some(usage) = usage(process.pid, at) {
            lock(readings).processes.entry(name).or_default().push(usage);
        }
    }
    let logs = root.join("logs");
    for node in entries(&root.join("nodes")) {
        let Some(name) = node.file_name().and_then(|name| name.to_str()) else { continue };
        let disk = Disk {
            at,
            store: mib(&node.join("data/db")),
            wal: mib(&node.join("data/wal")),
            log: logs_of(&logs, name),
        };
        lock(readings).disks.entry(name.to_owned()).or_default().push(disk);
    }
    let own = logs_of(root, "netsplit") + logs_of(&logs, "netsplit");
    lock(readings).supervisor_log.push((at, own));
}

/// `None` if it is gone.
fn usage(pid: i32, at: f64) -> Option<Usage> {
    let field = |file: &str, name: &str| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some(Usage {
        at,
        pid,
        memory: field("smaps_rollup", "Pss:")? * 1024.0 / MIB,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64,
        threads: field("status", "Threads:")?,
    })
}

/// The log of that name and what it was rotated to.
fn logs_of(dir: &Path, name: &str) -> f64 {
    let own = format!("{name}.log");
    let is_log = |file: &PathBuf| {
        file.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&own))
    };
    entries(dir).iter().filter(|file| is_log(file)).map(|file| mib(file)).sum()
}

/// What a file or directory takes on disk. Files vanish while they are looked at: each is then nothing.
fn mib(path: &Path) -> f64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0.0 };
    let below: f64 = if metadata.is_dir() { entries(path).iter().map(|entry| mib(entry)).sum() } else { 0.0 };
    below + metadata.blocks() as f64 * BLOCK / MIB
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found: io::Result<Vec<PathBuf>> =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    found.unwrap_or_default()
}
