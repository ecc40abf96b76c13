//! Errors on their way to a person, and what they mean to a script.

use std::fmt;

/// The command line or a file is wrong: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The supervisor's own sentence; the gRPC code only says whose mistake it was.
pub fn from_status(status: tonic::Status) -> anyhow::Error {
    if supervisor_is_gone(&status) {
        return anyhow::Error::new(status)
            .context("the testnet's supervisor went away: see `netsplit.log` in its directory");
    }
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::NotFound => Usage(status.message().to_owned()).into(),
        _ => anyhow::Error::msg(status.message().to_owned()),
    }
}

/// The connection broke: the supervisor has ended or is ending.
pub fn supervisor_is_gone(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::Unavailable || std::error::Error::source(status).is_some()
}
