//! A node's output, also after its testnet ended without being removed.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead as _, BufReader, Read, Seek as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{nearest, paths::TestnetDir, pipe::Output, world::Logs};

/// How often a followed log is looked at; the file is on this machine, so a look costs a system call.
const POLL: Duration = Duration::from_millis(200);

pub async fn print(dir: &TestnetDir, wanted: &Logs) -> Result<()> {
    let path = dir.node_log(&wanted.node);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "testnet `{}` has no node `{}`{}",
                dir.name,
                wanted.node,
                nearest::hint(&wanted.node, &node_names(dir)?)
            )
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut out = Output::lock();
    let before = dir.node_log_before(&wanted.node);
    let before = match File::open(&before) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        opened => Some(opened.with_context(|| format!("cannot open {}", before.display()))?),
    };
    let mut all = Chained(before, &mut file);
    match wanted.lines {
        Some(count) => print_tail(&mut all, count, &mut out)?,
        None => copy(&mut all, &mut out)?,
    }
    if !wanted.follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {
                rewind_if_cut(&mut file)?;
                copy(&mut file, &mut out)?;
            }
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn node_names(dir: &TestnetDir) -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(dir.nodes()) else {
        bail!("testnet `{}` has left no logs", dir.name);
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The log that was put aside when it had grown too large, and the log.
struct Chained<'a>(Option<File>, &'a mut File);

impl Read for Chained<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(before) = &mut self.0 {
            match before.read(buffer)? {
                0 => self.0 = None,
                read => return Ok(read),
            }
        }
        self.1.read(buffer)
    }
}

/// A log that was put aside begins anew.
fn rewind_if_cut(file: &mut File) -> Result<()> {
    let len = file.metadata().context("cannot look at the log")?.len();
    if file.stream_position().context("cannot tell the place in the log")? > len {
        file.rewind().context("cannot go to the start of the log")?;
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl std::io::Write) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).context("cannot read the log")?;
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read])?;
    }
    to.flush()?;
    Ok(())
}

fn print_tail(file: &mut impl Read, count: usize, out: &mut impl std::io::Write) -> Result<()> {
    let mut last: VecDeque<String> = VecDeque::new();
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    while reader.read_line(&mut line).context("cannot read the log")? > 0 {
        if last.len() == count {
            last.pop_front();
        }
        if count > 0 {
            last.push_back(std::mem::take(&mut line));
        }
        line.clear();
    }
    for line in last {
        out.write_all(line.as_bytes())?;
    }
    out.flush()?;
    Ok(())
}
