//! Segments as files in one directory, which one process holds at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::LogStorage;

/// The real log: `wal-0000000001.log` and so on, beside a file `lock` that the process holds.
#[derive(Debug)]
pub struct FileStorage {
    directory: PathBuf,
    /// Held for its lock, which ends with the process.
    _lock: File,
    current: Option<File>,
}

impl FileStorage {
    /// Opens `directory`, which is made if it does not exist. Fails with [`io::ErrorKind::WouldBlock`] if another
    /// process (or another value of this type) holds it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let text = format!("{} is in use by another process", directory.display());
                io::Error::new(io::ErrorKind::WouldBlock, text)
            }
            TryLockError::Error(error) => error,
        })?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
        Ok(Self { directory: directory.to_owned(), _lock: lock, current: None })
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(format!("wal-{segment:010}.log"))
    }

    fn current(&mut self) -> io::Result<&mut File> {
        self.current.as_mut().ok_or_else(|| io::Error::other("no segment is open for writing"))
    }
}

/// A file's name is durable when its directory is.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

impl LogStorage for FileStorage {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("wal-"))
                .and_then(|name| name.strip_suffix(".log"))
                .and_then(|digits| digits.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        fs::read(self.path(segment))
    }

    fn resume(&mut self, segment: u64, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(self.path(segment))?;
        file.set_len(len)?;
        file.sync_all()?;
        self.current = Some(file);
        Ok(())
    }

    fn create(&mut self, segment: u64, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(self.path(segment))?;
        file.write_all(content)?;
        file.sync_all()?;
        sync_directory(&self.directory)?;
        self.current = Some(file);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current()?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current()?.sync_data()
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.path(segment))?;
        sync_directory(&self.directory)
    }
}
