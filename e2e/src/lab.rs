//! A place to run testnets in, of which nothing remains.

use std::{
    env, fs,
    fs::File,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    outcome::{Link, Outcome, Status},
    process::{self, Kind, Process, kill},
    wait::{until, until_some},
};

/// Longest command of any scenario; a hung one must not hang the suite.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);
/// How often an experiment is repeated when the verdict blames the machine.
const ATTEMPTS: u32 = 3;

/// Testnets share the machine's time: one scenario at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// One scenario's binary, files and testnets. Dropping it ends all of them.
#[derive(Debug)]
pub struct Lab {
    programs: PathBuf,
    /// Its paths hold Unix sockets: short.
    root: TempDir,
    user: Option<u32>,
    /// The kubeconfig and the namespace that commands are about; none: this machine.
    on: Option<(PathBuf, String)>,
    /// Variables of every command.
    environment: Vec<(&'static str, PathBuf)>,
    _alone: MutexGuard<'static, ()>,
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Lab {
    /// As the user who runs the tests. Panics if this machine cannot run testnets.
    pub fn new() -> Self {
        static CHECKED: OnceLock<Option<String>> = OnceLock::new();
        let lab = Self::at(programs(), None);
        Self::demand(CHECKED.get_or_init(|| lab.doctor()).as_ref());
        lab
    }

    /// With programs of the scenario's own: a directory with `netsplit` and `netsplit-node`.
    pub fn with_programs(prepare: impl FnOnce(&Path, &Path)) -> Self {
        let mut lab = Self::new();
        let own = lab.root.path().join("bin");
        fs::create_dir(&own).expect("the lab's directory is writable");
        prepare(&lab.programs, &own);
        lab.programs = own;
        lab
    }

    /// With CometBFT, which is built the first time.
    pub fn with_cometbft() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cometbft.sh");
        let built = Command::new(&script)
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let folder = String::from_utf8_lossy(&built.stdout);
        assert!(
            built.status.success(),
            "\n*** WITHOUT COMETBFT NOTHING WAS PROVEN ***\n{}",
            script.display()
        );
        let mut lab = Self::new();
        lab.set("NETSPLIT_COMETBFT", &Path::new(folder.trim()).join("cometbft"));
        lab
    }

    /// Sets a variable for every command from now on.
    pub fn set(&mut self, variable: &'static str, value: &Path) {
        self.environment.retain(|(name, _)| *name != variable);
        self.environment.push((variable, value.to_owned()));
    }

    /// As an ordinary user without any right. Panics if this machine cannot run testnets for such a one.
    pub fn unprivileged() -> Self {
        /// No account of any system.
        const NOBODY_IN_PARTICULAR: u32 = 54_321;
        if !geteuid().is_root() {
            return Self::new();
        }
        let mut lab = Self::with_programs(|from, to| {
            // The originals may lie where only root can look.
            for program in ["netsplit", "netsplit-node"] {
                fs::copy(from.join(program), to.join(program))
                    .unwrap_or_else(|error| panic!("cannot copy {program}: {error}"));
            }
        });
        lab.user = Some(NOBODY_IN_PARTICULAR);
        for dir in ["state", "work", "bin", ""] {
            let dir = lab.root.path().join(dir);
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("the lab owns its directory");
            std::os::unix::fs::chown(&dir, lab.user, lab.user).expect("root may give a directory away");
        }
        Self::demand(lab.doctor().as_ref());
        lab
    }

    /// Whose commands are about testnets of a namespace of a cluster. What they leave there is left to the namespace.
    pub fn on(cluster: &Cluster, namespace: &str) -> Self {
        let mut lab = Self::at(programs(), None);
        lab.on = Some((cluster.kubeconfig().to_owned(), namespace.to_owned()));
        lab
    }

    fn at(programs: PathBuf, user: Option<u32>) -> Self {
        // A scenario that failed has said so itself; the next one starts clean.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tempfile::Builder::new().prefix("ns-e2e-").tempdir().expect("a temporary directory");
        for dir in ["state", "work"] {
            fs::create_dir(root.path().join(dir)).expect("the lab's directory is writable");
        }
        Self { programs, root, user, on: None, environment: Vec::new(), _alone: alone }
    }

    /// What the machine lacks.
    fn doctor(&self) -> Option<String> {
        let doctor = self.run(&["doctor"]);
        (doctor.code != Some(0)).then(|| format!("{}{}", doctor.stdout, doctor.stderr))
    }

    fn demand(lacking: Option<&String>) {
        if let Some(lacking) = lacking {
            panic!(
                "\n*** THIS MACHINE CANNOT RUN TESTNETS, SO NOTHING WAS PROVEN ***\n\
                 Run the tests as root or allow user namespaces:\n{lacking}"
            );
        }
    }

    /// Where testnets keep their state.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Where commands run, and files for them lie.
    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Writes a file into the working directory; returns its name.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.work().join(name), text)
            .unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
        name.to_owned()
    }

    /// The command, not started yet.
    pub fn netsplit(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("netsplit"));
        if let Some((kubeconfig, namespace)) = &self.on {
            command.args(["--on", "kubernetes", "--namespace", namespace]).env("KUBECONFIG", kubeconfig);
        }
        command.args(arguments).current_dir(self.work()).env("NETSPLIT_STATE_DIR", self.state());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user).env("HOME", self.work());
        }
        command
    }

    /// Starts a command and lets it run.
    pub fn start(&self, arguments: &[&str]) -> Background {
        let file = |suffix: &str| {
            tempfile::Builder::new()
                .suffix(suffix)
                .tempfile_in(self.root.path())
                .and_then(|file| file.keep().map_err(|error| error.error))
                .unwrap_or_else(|error| panic!("cannot create a file for output: {error}"))
        };
        let ((out, stdout), (err, stderr)) = (file(".out"), file(".err"));
        let child = self
            .netsplit(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.programs.display()));
        Background { child, what: arguments.join(" "), stdout, stderr, since: Instant::now(), ended: false }
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait(COMMAND_LIMIT)
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "netsplit {}: {ended:#?}", arguments.join(" "));
        ended.stdout
    }

    /// Runs an experiment file; its exit code and what it said.
    pub fn experiment(&self, file: &str) -> (i32, Outcome) {
        self.start(&["run", file, "--json"]).verdict()
    }

    /// Runs an experiment whose verdict must be about the chain. One that blames the machine is repeated, since a busy
    /// machine proves nothing either way; one that blames it each time is returned.
    pub fn decided(&self, file: &str) -> (i32, Outcome) {
        let mut last = self.experiment(file);
        for attempt in 1..ATTEMPTS {
            if last.0 != crate::exit::INVALID || !last.1.blames_host() {
                break;
            }
            eprintln!("attempt {attempt} of {file} proved nothing:\n{}", last.1.words());
            last = self.experiment(file);
        }
        last
    }

    /// The state of a testnet; `None` while none of this name runs.
    pub fn try_status(&self, testnet: &str) -> Option<Status> {
        let ended = self.run(&["status", "--json", "-t", testnet]);
        (ended.code == Some(0)).then(|| {
            serde_json::from_str(&ended.stdout)
                .unwrap_or_else(|error| panic!("status --json: {error}\n{}", ended.stdout))
        })
    }

    pub fn status(&self, testnet: &str) -> Status {
        self.try_status(testnet).unwrap_or_else(|| panic!("no testnet {testnet} runs"))
    }

    /// What `netsplit links` tells.
    pub fn links(&self, testnet: &str) -> Vec<Link> {
        #[derive(serde::Deserialize)]
        struct Links {
            links: Vec<Link>,
        }
        let printed = self.ok(&["links", "-t", testnet, "--json"]);
        let links: Links = serde_json::from_str(&printed)
            .unwrap_or_else(|error| panic!("`netsplit links --json` is told wrong ({error}): {printed}"));
        links.links
    }

    /// Waits until every node has a final block above `height`.
    pub fn above(&self, testnet: &str, height: u64, limit: Duration) -> Status {
        until_some(&format!("every node of {testnet} above height {height}"), limit, || {
            Some(self.status(testnet)).filter(|status| status.floor() > height)
        })
    }

    /// Leaves the lab's files where they are and says where. Its processes end all the same.
    pub fn keep_files(&mut self) -> PathBuf {
        self.root.disable_cleanup(true);
        self.root.path().to_owned()
    }

    /// Everything that runs in this lab.
    pub fn processes(&self) -> Vec<Process> {
        process::of_state_dir(&self.state())
    }

    pub fn processes_of(&self, kind: Kind) -> Vec<Process> {
        self.processes().into_iter().filter(|process| process.kind == kind).collect()
    }

    /// Waits until no process of this lab is left.
    pub fn wait_until_empty(&self, limit: Duration) {
        until("no process is left", limit, || {
            let left = self.processes();
            left.is_empty()
        });
    }

    /// Nothing runs and no testnet has left a file.
    pub fn assert_nothing_left(&self) {
        assert!(self.processes().is_empty(), "left running: {:#?}", self.processes());
        let left: Vec<_> = fs::read_dir(self.state())
            .expect("the lab's directory is readable")
            .map(|entry| entry.expect("the lab's directory is readable").path())
            .collect();
        assert!(left.is_empty(), "left on disk: {left:?}");
    }

    /// What the supervisors wrote, for the report of a failure.
    fn logs(&self) -> String {
        let Ok(entries) = fs::read_dir(self.state()) else { return String::new() };
        let logs =
            entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("netsplit.log")).ok());
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("supervisors' logs:\n{}", self.logs());
        }
        // A stopped process does not end by being asked.
        for process in self.processes() {
            kill(process.pid, Signal::SIGCONT);
        }
        for process in self.processes() {
            kill(process.pid, Signal::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Background {
    child: Child,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
    since: Instant,
    ended: bool,
}

impl Background {
    pub fn signal(&self, signal: Signal) {
        kill(self.child.id().cast_signed(), signal);
    }

    /// Waits until it has written `text` to standard error or output.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        self.wait_for_while(text, limit, || ());
    }

    /// As [`Self::wait_for`], doing something at each look.
    pub fn wait_for_while(&mut self, text: &str, limit: Duration, mut act: impl FnMut()) {
        until(&format!("`{text}` from netsplit {}", self.what), limit, || {
            act();
            let found = [&self.stdout, &self.stderr].iter().any(|file| read(file).contains(text));
            if !found && let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.ended = true;
                // It may have been written just before the end.
                let (out, err) = (read(&self.stdout), read(&self.stderr));
                assert!(
                    out.contains(text) || err.contains(text),
                    "netsplit {} ended ({status}) without `{text}`:\n{out}\n{err}",
                    self.what
                );
                return true;
            }
            found
        });
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> Ended {
        let what = format!("the end of netsplit {}", self.what);
        let status = until_some(&what, limit, || self.child.try_wait().expect("a child can be waited for"));
        self.ended = true;
        Ended {
            code: status.code(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
            took: self.since.elapsed(),
        }
    }

    /// Waits for the verdict of `run --json`: exit code and answer.
    pub fn verdict(self) -> (i32, Outcome) {
        let ended = self.wait(COMMAND_LIMIT);
        let outcome = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("the verdict is malformed ({error}): {ended:#?}"));
        eprintln!("{}", ended.stderr);
        (ended.code.unwrap_or(-1), outcome)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.ended {
            // Killing fails only if it has ended, and then waiting is all that is to do.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn read(file: &Path) -> String {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Where the programs under test are: `$NETSPLIT_BIN`, else beside this program, or beside its folder if it is a test:
/// where cargo puts them.
pub fn programs() -> PathBuf {
    let dir = env::var_os("NETSPLIT_BIN").filter(|dir| !dir.is_empty()).map_or_else(
        || {
            let own = env::current_exe().expect("a program knows its own path");
            let found = own.ancestors().skip(1).take(2).find(|dir| dir.join("netsplit").is_file());
            found.unwrap_or(Path::new(".")).to_owned()
        },
        |dir| std::path::absolute(dir).expect("NETSPLIT_BIN is a path"),
    );
    for program in ["netsplit", "netsplit-node"] {
        let path = dir.join(program);
        assert!(
            File::open(&path).is_ok(),
            "{} is missing: `cargo build --release --workspace --bins` first, or set NETSPLIT_BIN",
            path.display()
        );
    }
    dir
}
