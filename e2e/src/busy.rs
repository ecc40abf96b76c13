//! A busy machine is not a failing chain: the trial that shows it, short in the tests and long in the soak.

use std::process::{Child, Command, Stdio};

use crate::{Lab, exit};

/// Two processes that never rest, at the priority of everyone else. Dropping it ends them.
#[derive(Debug)]
pub struct BusyLoops([Child; 2]);

impl BusyLoops {
    pub fn start() -> Self {
        let spin = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().expect("a machine has a shell")
        };
        Self([spin(), spin()])
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("a busy loop does not end by itself");
            child.wait().expect("a child can be waited for");
        }
    }
}

/// What one run beside busy loops came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Busy {
    Passed,
    /// Invalid, and the verdict blames the machine: the allowed way out.
    HostOverloaded,
    /// Anything else; what the verdict says.
    Wrong(String),
}

/// Runs a split-brain experiment, which its chain would pass on an idle machine.
pub fn busy_run(lab: &Lab, experiment: &str) -> Busy {
    let (code, outcome) = lab.experiment(experiment);
    let proven = outcome.faults.first().is_some_and(|fault| fault.proven);
    match code {
        exit::PASSED if proven => Busy::Passed,
        exit::INVALID if outcome.blames_host() => Busy::HostOverloaded,
        _ => Busy::Wrong(format!("exit code {code}, fault proven: {proven}: {}", outcome.words())),
    }
}
