//! The keeper with real programs: shells that write down what happens to them.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use netsplit_keeper::{Hold, Request, State, Status};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use tempfile::TempDir;

/// Far above what any step takes on a machine that does nothing else.
const MOMENT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_mins(1);

/// A shell that lives until it is told to end, and does this on SIGTERM. It waits by itself: with a program to wait for, it
/// would now and then be caught in `vfork`, where SIGSTOP stops the child and leaves the parent waiting, not stopped.
fn waiting(on_term: &str) -> String {
    format!("trap '{on_term}' TERM; exec 3<>still; echo start >> log; while :; do read line <&3; done")
}

/// SIGTERM is written down first.
fn orderly() -> String {
    waiting("echo term >> log; exit 0")
}

struct Kept {
    folder: TempDir,
    keeper: Child,
}

impl Kept {
    /// Keeps a shell that runs this script.
    fn new(script: &str) -> Self {
        Self::program("sh", &["-c", script])
    }

    fn program(program: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Nobody writes into it.
        mkfifo(&folder.path().join("still"), Mode::S_IRWXU).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_netsplit-keeper"));
        command.arg("--socket").arg(folder.path().join("socket")).arg("--").arg(program).args(arguments);
        let keeper = command.current_dir(&folder).stderr(Stdio::piped()).spawn().unwrap();
        Self { folder, keeper }
    }

    /// With its program started.
    fn started(script: &str) -> Self {
        let kept = Self::new(script);
        assert_eq!(kept.say(Request::Free).state, State::Running);
        kept
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let socket = self.folder.path().join("socket");
        let stream = until("the keeper listens", || UnixStream::connect(&socket).ok());
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        BufReader::new(stream)
    }

    fn say(&self, request: Request) -> Status {
        let mut stream = self.connect();
        writeln!(stream.get_mut(), "{request}").unwrap();
        line(&mut stream).parse().unwrap()
    }

    fn hold(&self, hold: Hold, lease: Duration) -> Status {
        self.say(Request::Hold { hold, lease })
    }

    fn until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        until(what, || Some(self.say(Request::Status)).filter(&is_so))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn until_logged(&self, text: &str) {
        until(&format!("the log is {text:?}, not {:?}", self.log()), || (self.log() == text).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.keeper.id().cast_signed()), signal).unwrap();
    }

    /// Its end, and what it said.
    fn ended(mut self) -> (ExitStatus, String) {
        let status = until("the keeper ends", || self.keeper.try_wait().unwrap());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.keeper.stderr.take().unwrap(), &mut said).unwrap();
        (status, said)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // One that has ended is no error. Its program ends with it.
        self.keeper.kill().ok();
        self.keeper.wait().unwrap();
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let ends = Instant::now() + MOMENT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < ends, "not within {MOMENT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn exists(pid: Option<u32>) -> bool {
    fs::exists(format!("/proc/{}", pid.unwrap())).unwrap()
}

#[test]
fn a_killed_node_stays_down_until_its_lease_ends() {
    let kept = Kept::started(&orderly());
    kept.until_logged("start\n");
    let before = kept.hold(Hold::Killed, Duration::from_millis(1_500));
    let killed = kept.until("it is killed", |status| status.state == State::Killed(9));
    assert_eq!((killed.held, killed.restarts), (Some(Hold::Killed), 0));
    assert!(!exists(before.pid));
    let renewed = Instant::now();
    assert_eq!(kept.hold(Hold::Killed, Duration::from_millis(1_500)).state, State::Killed(9));
    let freed = kept.until("it runs again", |status| status.state == State::Running);
    assert!(renewed.elapsed() >= Duration::from_millis(1_500), "{:?}", renewed.elapsed());
    assert_eq!((freed.held, freed.restarts), (None, 1));
    assert_ne!(freed.pid, before.pid);
    kept.until_logged("start\nstart\n");
    kept.signal(Signal::SIGTERM);
    let (_, said) = kept.ended();
    assert!(said.contains("nobody renewed the lease of a fault (Killed): the node runs again"), "{said}");
}

#[test]
fn a_paused_node_is_stopped_and_goes_on_when_its_lease_ends() {
    let kept = Kept::started(&orderly());
    let before = kept.hold(Hold::Paused, Duration::from_millis(500));
    let paused = kept.until("it is stopped", |status| status.paused);
    assert_eq!((paused.state, paused.held, paused.pid), (State::Running, Some(Hold::Paused), before.pid));
    let freed = kept.until("it goes on", |status| !status.paused);
    assert_eq!((freed.held, freed.restarts, freed.pid), (None, 0, before.pid));
}

/// The kernel's word must be told as it is: what somebody else does to the node is not undone in silence.
#[test]
fn a_renewal_does_not_stop_a_node_that_somebody_let_go_on() {
    let kept = Kept::started(&orderly());
    kept.hold(Hold::Paused, LONG);
    let pid = kept.until("it is stopped", |status| status.paused).pid.unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT).unwrap();
    kept.until("it goes on", |status| !status.paused);
    assert!(!kept.hold(Hold::Paused, LONG).paused);
    thread::sleep(Duration::from_millis(50));
    assert!(!kept.say(Request::Status).paused);
}

#[test]
fn a_node_that_is_to_restart_ends_in_order_and_is_held_down() {
    let kept = Kept::started(&orderly());
    kept.until_logged("start\n");
    kept.hold(Hold::Ended, LONG);
    let ended = kept.until("it ends", |status| status.state == State::Exited(0));
    assert_eq!(ended.held, Some(Hold::Ended));
    kept.until_logged("start\nterm\n");
    assert_eq!(kept.say(Request::Free).state, State::Running);
    kept.until_logged("start\nterm\nstart\n");
}

#[test]
fn one_that_does_not_end_in_order_is_killed_and_a_free_one_waits_for_that() {
    let kept = Kept::started(&waiting(""));
    kept.until_logged("start\n");
    let asked = Instant::now();
    kept.hold(Hold::Ended, LONG);
    let freed = kept.say(Request::Free);
    assert_eq!((freed.state, freed.held), (State::Running, None), "it ends still");
    kept.until_logged("start\nstart\n");
    assert!(asked.elapsed() >= Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(kept.say(Request::Status).restarts, 1);
}

#[test]
fn nothing_starts_before_the_first_word_and_a_held_node_not_before_its_end() {
    let kept = Kept::new(&orderly());
    assert_eq!(kept.say(Request::Status).state, State::Starting);
    let held = kept.hold(Hold::Killed, LONG);
    assert_eq!((held.state, held.pid), (State::Starting, None));
    // Longer than it would wait for a word.
    thread::sleep(Duration::from_millis(3_200));
    assert_eq!((kept.say(Request::Status).state, kept.log()), (State::Starting, String::new()));
    // Another fault has it paused: a process, but a stopped one.
    kept.hold(Hold::Paused, LONG);
    let paused = kept.until("it is stopped", |status| status.paused);
    assert_eq!((paused.state, paused.restarts), (State::Running, 0));
    assert!(!kept.say(Request::Free).paused);
    kept.until_logged("start\n");
}

#[test]
fn a_node_whose_agent_says_nothing_starts_without_it() {
    let kept = Kept::new(&orderly());
    kept.until_logged("start\n");
    kept.signal(Signal::SIGTERM);
    let (status, said) = kept.ended();
    assert_eq!(status.code(), Some(0), "its program's");
    assert!(said.contains("says nothing: the node starts without it"), "{said}");
}

#[test]
fn a_node_is_told_to_end_and_its_exit_code_is_the_keepers() {
    let kept = Kept::started(&waiting("echo term >> log; exit 7"));
    kept.until_logged("start\n");
    // A stopped process takes no signal before it goes on.
    kept.hold(Hold::Paused, LONG);
    kept.until("it is stopped", |status| status.paused);
    kept.signal(Signal::SIGTERM);
    assert_eq!(kept.ended().0.code(), Some(7));

    assert_eq!(Kept::started("exit 3").ended().0.code(), Some(3));
    let killed = Kept::started("kill -KILL $$").ended().0;
    assert_eq!((killed.code(), killed.signal()), (Some(137), None));

    let kept = Kept::started(&orderly());
    kept.hold(Hold::Killed, LONG);
    kept.until("it is killed", |status| status.state == State::Killed(9));
    kept.signal(Signal::SIGTERM);
    assert_eq!(kept.ended().0.code(), Some(137));
}

#[test]
fn the_program_is_found_or_its_absence_told() {
    let (status, said) = Kept::program("no-such-program", &[]).ended();
    assert_eq!(status.code(), Some(127));
    assert!(said.contains("the image has no program no-such-program: put it at /no-such-program"), "{said}");

    // It is there, but cannot be run.
    let folder = tempfile::tempdir().unwrap();
    let program: PathBuf = folder.path().join("program");
    fs::write(&program, "#!/no/such/shell\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let kept = Kept::program(program.to_str().unwrap(), &[]);
    let mut stream = kept.connect();
    writeln!(stream.get_mut(), "free").unwrap();
    let (status, said) = kept.ended();
    assert_eq!(status.code(), Some(126), "{said}");
    assert!(said.contains("cannot start"), "{said}");
}

#[test]
fn garbage_on_the_socket_harms_nobody() {
    let kept = Kept::started(&orderly());
    let mut garbage = kept.connect();
    garbage.get_mut().write_all(b"\xff\x00\nhold kill\nfree").unwrap();
    assert!(line(&mut garbage).starts_with("error say `hold"));
    assert!(line(&mut garbage).starts_with("error say `hold"));
    // Of the third line the end is still to come, and nobody waits for it.
    kept.hold(Hold::Paused, LONG);
    kept.until("it is stopped", |status| status.paused);
    garbage.get_mut().write_all(b"\n").unwrap();
    assert!(line(&mut garbage).starts_with("state=running"));
    kept.until("it goes on", |status| !status.paused);

    // What has no end is not listened to.
    let mut endless = kept.connect();
    endless.get_mut().write_all(&[b'x'; 4_096]).ok();
    let gone = until("it is sent away", || match endless.read_line(&mut String::new()) {
        Ok(0) | Err(_) => Some(true),
        Ok(_) => None,
    });
    assert!(gone);
    // Nor does anybody who only stays connected keep others out.
    let idle: Vec<_> = (0..20).map(|_| kept.connect()).collect();
    assert_eq!(kept.say(Request::Status).state, State::Running);
    drop(idle);
}

#[test]
fn what_a_node_leaves_behind_is_reaped() {
    // The inner shell is nobody's child once its parent has ended.
    let kept = Kept::started("(sh -c 'sleep 0.3; echo orphan >> log' &) ; while :; do sleep 0.05; done");
    kept.until_logged("orphan\n");
    let keeper = kept.keeper.id();
    let children = || {
        let list = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        list.split_whitespace().count()
    };
    until("only the node is left", || (children() == 1).then_some(()));
}
