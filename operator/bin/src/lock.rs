//! The lock that a testnet's supervisor holds while it lives. The kernel frees it when the process ends, however it ends.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// Takes the lock and writes this process's id into the file; `None` when another process holds it.
pub fn take(path: &Path) -> Result<Option<File>> {
    let mut file = open(path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()))?;
            Ok(Some(file))
        }
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Whether no process holds the lock. A missing file is free.
pub fn is_free(path: &Path) -> Result<bool> {
    if !path.exists() {
        return Ok(true);
    }
    let file = match open(path) {
        Ok(file) => file,
        Err(_) if !path.exists() => return Ok(true),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot test the lock {}", path.display()))
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let opened: io::Result<File> =
        File::options().create(true).truncate(false).read(true).write(true).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}
