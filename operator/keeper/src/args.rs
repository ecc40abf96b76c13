//! The command line: `--socket PATH -- PROGRAM [ARGUMENT...]`.

use std::{ffi::OsString, path::PathBuf};

use super::Failure;

const USAGE: &str = "usage: netsplit-keeper --socket PATH -- PROGRAM [ARGUMENT...]";

#[derive(Debug)]
pub(super) struct Args {
    pub(super) socket: PathBuf,
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

pub(super) fn read(mut words: impl Iterator<Item = OsString>) -> Result<Args, Failure> {
    let mut next = || words.next().unwrap_or_default();
    if next() != "--socket" {
        return Err(Failure::new(Failure::USAGE, USAGE));
    }
    let socket = PathBuf::from(next());
    let (dashes, program) = (next(), next());
    if socket.as_os_str().is_empty() || dashes != "--" || program.is_empty() {
        return Err(Failure::new(Failure::USAGE, USAGE));
    }
    Ok(Args { socket, program, arguments: words.collect() })
}
