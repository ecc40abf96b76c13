//! Holds of a pod's node, and what its keeper says, as messages.

use std::time::Duration;

use netsplit_keeper::{State, Status};
use netsplit_proto::agent::{self as wire, node_hold::What, node_report};

use super::WireError;
use crate::backend::Hold;

impl From<Hold> for netsplit_keeper::Hold {
    fn from(hold: Hold) -> Self {
        match hold {
            Hold::Paused => Self::Paused,
            Hold::Ended => Self::Ended,
            Hold::Killed => Self::Killed,
        }
    }
}

impl From<netsplit_keeper::Hold> for Hold {
    fn from(hold: netsplit_keeper::Hold) -> Self {
        match hold {
            netsplit_keeper::Hold::Paused => Self::Paused,
            netsplit_keeper::Hold::Ended => Self::Ended,
            netsplit_keeper::Hold::Killed => Self::Killed,
        }
    }
}

pub(crate) fn hold(hold: Hold, lease: Duration) -> wire::NodeHold {
    let what = match hold {
        Hold::Paused => What::Paused,
        Hold::Ended => What::Ended,
        Hold::Killed => What::Killed,
    };
    wire::NodeHold { what: what.into(), lease_ms: lease.as_millis() as u64 }
}

pub(crate) fn read_hold(message: &wire::NodeHold) -> Result<(Hold, Duration), WireError> {
    let hold = match message.what() {
        What::Paused => Hold::Paused,
        What::Ended => Hold::Ended,
        What::Killed => Hold::Killed,
        What::Unknown => return Err(WireError(format!("a hold {} that is unknown here", message.what))),
    };
    Ok((hold, Duration::from_millis(message.lease_ms)))
}

pub(crate) fn status(status: &Status) -> wire::NodeReport {
    let Status { state, pid, paused, held, left, restarts } = *status;
    let state = match state {
        State::Starting => None,
        State::Running => Some(node_report::State::Running(true)),
        State::Exited(code) => Some(node_report::State::Exited(code)),
        State::Killed(signal) => Some(node_report::State::Killed(signal)),
    };
    let held = held.map(|held| hold(held.into(), left));
    wire::NodeReport { state, pid, paused, held, restarts }
}

pub(crate) fn read_status(message: &wire::NodeReport) -> Result<Status, WireError> {
    let held = message.held.as_ref().map(read_hold).transpose()?;
    Ok(Status {
        state: match message.state {
            None => State::Starting,
            Some(node_report::State::Running(_)) => State::Running,
            Some(node_report::State::Exited(code)) => State::Exited(code),
            Some(node_report::State::Killed(signal)) => State::Killed(signal),
        },
        pid: message.pid,
        paused: message.paused,
        held: held.map(|(hold, _)| hold.into()),
        left: held.map(|(_, left)| left).unwrap_or_default(),
        restarts: message.restarts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_and_what_keepers_say_survive_the_way() {
        let lease = Duration::from_secs(30);
        let states = [State::Running, State::Exited(7), State::Killed(9)];
        for (one, state) in [Hold::Paused, Hold::Ended, Hold::Killed].into_iter().zip(states) {
            assert_eq!(read_hold(&hold(one, lease)), Ok((one, lease)));
            let paused = one == Hold::Paused;
            let said =
                Status { state, pid: Some(7), paused, held: Some(one.into()), left: lease, restarts: 2 };
            assert_eq!(read_status(&status(&said)), Ok(said));
        }
        let first = Status {
            state: State::Starting,
            pid: None,
            paused: false,
            held: None,
            left: Duration::ZERO,
            restarts: 0,
        };
        assert_eq!(read_status(&status(&first)), Ok(first));
        let newer = wire::NodeHold { what: 9, lease_ms: 1 };
        assert_eq!(
            read_hold(&newer).unwrap_err().to_string(),
            "the message has a hold 9 that is unknown here"
        );
    }
}
