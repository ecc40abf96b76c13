//! Nodes' logs, bounded.
//!
//! A node writes straight into its file, so that its last words are there whatever happens to us. When the file has grown
//! too large, its content becomes `NAME.log.1`, in place of the one before, and the file is cut to nothing; the node, which
//! appends, goes on at its new end. Lines written between the last look at the end and the cut are lost: microseconds, once
//! in [`LIMIT`].

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing::warn;

/// Bytes of a log, beyond which it is put aside. Two of them a node.
pub(super) const LIMIT: u64 = 8 << 20;
/// How often sizes are looked at; a node that writes faster than its limit in this time outgrows it by as much.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps these logs bounded, for ever.
pub(super) async fn keep(logs: Vec<PathBuf>) {
    let logs = Arc::new(logs);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let all = Arc::clone(&logs);
        // One thread for all of them, and off the one that must answer.
        let looked = tokio::task::spawn_blocking(move || {
            for log in all.iter() {
                if let Err(error) = put_aside(log, LIMIT) {
                    warn!(%error, log = %log.display(), "cannot put a log aside; it grows");
                }
            }
        });
        if let Err(error) = looked.await {
            warn!(%error, "looking at the logs failed");
        }
    }
}

/// Puts a log aside if it is larger than `limit`; whether it did.
fn put_aside(log: &Path, limit: u64) -> io::Result<bool> {
    let mut file = match File::options().read(true).write(true).open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() <= limit {
        return Ok(false);
    }
    let mut aside = log.as_os_str().to_owned();
    aside.push(".1");
    let mut copy = File::create(&aside)?;
    // Until there is nothing more: what is written during a long copy belongs to it.
    while io::copy(&mut file, &mut copy)? > 0 {}
    file.set_len(0)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    #[test]
    fn what_is_too_large_is_put_aside_under_a_writer_that_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (log, aside) = (dir.path().join("n.log"), dir.path().join("n.log.1"));
        assert!(!put_aside(&log, 10).unwrap(), "there is no log yet");
        let mut writer = File::options().create(true).append(true).open(&log).unwrap();
        for round in 0..3 {
            writer.write_all(format!("round {round}").as_bytes()).unwrap();
            assert!(!put_aside(&log, 10).unwrap(), "small enough");
            writer.write_all(b" and more").unwrap();
            assert!(put_aside(&log, 10).unwrap());
            assert_eq!(fs::read_to_string(&log).unwrap(), "");
            assert_eq!(fs::read_to_string(&aside).unwrap(), format!("round {round} and more"));
        }
    }
}
