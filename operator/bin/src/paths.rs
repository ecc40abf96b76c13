//! Where a testnet keeps its files: one directory per testnet and user.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Longest path of a Unix socket, with its terminating zero (unix(7)).
const SOCKET_PATH_MAX: usize = 108;

/// The directory of one testnet.
#[derive(Clone, Debug)]
pub struct TestnetDir {
    pub name: String,
    pub root: PathBuf,
}

impl TestnetDir {
    /// `$NETSPLIT_STATE_DIR/NAME`, by default under the user's state directory.
    pub fn of(name: &str) -> Result<Self> {
        let dir = Self { name: name.to_owned(), root: state_root()?.join(name) };
        let longest = dir.exec_socket();
        if longest.as_os_str().len() >= SOCKET_PATH_MAX {
            bail!(
                "{} is longer than a Unix socket's path may be ({} bytes); set NETSPLIT_STATE_DIR to a shorter directory",
                longest.display(),
                SOCKET_PATH_MAX - 1
            );
        }
        Ok(dir)
    }

    pub fn at(root: &Path) -> Result<Self> {
        let name =
            root.file_name().and_then(|name| name.to_str()).context("a testnet's directory has a name")?;
        Ok(Self { name: name.to_owned(), root: root.to_owned() })
    }

    /// The gRPC control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The socket over which `exec` hands its standard streams.
    pub fn exec_socket(&self) -> PathBuf {
        self.root.join("exec.sock")
    }

    /// Held by the outer process while it lives.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn spec_file(&self) -> PathBuf {
        self.root.join("testnet.yaml")
    }

    /// Log of the outer process itself.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("netsplit.log")
    }

    /// The nodes' working directories, by name: configuration and data.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// What one node has written to its standard output and error.
    pub fn node_log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// What that log was before it grew too large; there is none as long as it has not.
    pub fn node_log_before(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log.1"))
    }

    /// State of the running experiment, written before it acts.
    pub fn experiment_file(&self) -> PathBuf {
        self.root.join("experiment.json")
    }
}

/// All testnets that left a directory, running or not, by name.
pub fn all() -> Result<Vec<TestnetDir>> {
    let root = state_root()?;
    let entries = match std::fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", root.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", root.display()))?;
        if entry.path().is_dir() {
            found.push(TestnetDir::at(&entry.path())?);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn state_root() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("NETSPLIT_STATE_DIR") {
        return std::path::absolute(&dir)
            .with_context(|| format!("NETSPLIT_STATE_DIR {} is no path", dir.display()));
    }
    if let Some(dir) = set("XDG_STATE_HOME") {
        return Ok(dir.join("netsplit"));
    }
    let home =
        set("HOME").context("neither NETSPLIT_STATE_DIR, XDG_STATE_HOME nor HOME is set: set one of them")?;
    Ok(home.join(".local/state/netsplit"))
}
