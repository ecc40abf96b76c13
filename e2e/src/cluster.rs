//! A Kubernetes to run scenarios on: brought up once for a test binary, gone with it, whatever way it ends.

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::lab::programs;

/// Names an existing cluster to use instead of one of our own. Nothing else does: a user's cluster is never touched unasked.
const THEIRS: &str = "NETSPLIT_KUBECONFIG";
/// Where such a cluster finds the images, without the image's name: `registry.example/team`.
const THEIR_IMAGES: &str = "NETSPLIT_IMAGE_REGISTRY";
/// Which of this machine's clusters is ours, from 0 (unless said otherwise) to 15.
const SLOT: &str = "NETSPLIT_CLUSTER_SLOT";

/// A Kubernetes that answers and knows the images of the binaries under test.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    /// Folder of kubectl and helm; `None` takes them from the PATH.
    programs: Option<PathBuf>,
    images: Images,
    holder: Option<Holder>,
}

/// What a pod runs.
#[derive(Clone, Debug)]
pub struct Images {
    pub node: String,
    /// The operator's and the agent's.
    pub netsplit: String,
    pub pull_policy: &'static str,
}

/// The script that keeps our own cluster up until its standard input ends: also when this process is killed.
#[derive(Debug)]
struct Holder {
    slot: u8,
    script: Child,
    /// `None` once let go.
    stdin: Option<ChildStdin>,
}

impl Cluster {
    /// The cluster of this test binary. It goes when the process ends. Panics, saying why, if this machine can run none.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        SHARED.get_or_init(Self::find).as_ref().unwrap_or_else(|why| {
            panic!(
                "\n*** NO KUBERNETES TO TEST ON, SO NOTHING WAS PROVEN ***\n{why}\n\
                 Run as root after `make setup-cluster`, or name a cluster of yours: {THEIRS}=FILE"
            )
        })
    }

    fn find() -> Result<Self, String> {
        match env::var_os(THEIRS).filter(|file| !file.is_empty()) {
            Some(kubeconfig) => Self::theirs(kubeconfig.into()),
            None => Self::up(own_slot()?),
        }
    }

    /// A cluster of our own; each slot from 0 to 15 is one. It ends when this is dropped, unless it was up before.
    pub fn up(slot: u8) -> Result<Self, String> {
        let archives = make_images()?;
        let mut script = Command::new(tool("cluster.sh"))
            .arg("hold")
            .args(["netsplit.tar", "netsplit-node.tar"].map(|name| archives.join(name)))
            .env(SLOT, slot.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start cluster.sh: {error}"))?;
        let stdin = script.stdin.take();
        let answer = BufReader::new(script.stdout.take().expect("standard output is a pipe"));
        let mut cluster = Self {
            kubeconfig: PathBuf::new(),
            programs: None,
            images: Images {
                node: "localhost/netsplit-node:dev".to_owned(),
                netsplit: "localhost/netsplit:dev".to_owned(),
                pull_policy: "Never",
            },
            holder: Some(Holder { slot, script, stdin }),
        };
        for line in answer.lines() {
            let line = line.map_err(|error| format!("cannot read what cluster.sh says: {error}"))?;
            match line.split_once('=') {
                Some(("kubeconfig", path)) => cluster.kubeconfig = path.into(),
                Some(("programs", path)) => cluster.programs = Some(path.into()),
                _ if line == "ready" => return Ok(cluster),
                _ => {}
            }
        }
        Err("cluster.sh did not bring it up; what it says stands above".to_owned())
    }

    fn theirs(kubeconfig: PathBuf) -> Result<Self, String> {
        let registry = env::var(THEIR_IMAGES).map_err(|_| {
            format!("{THEIRS} is set, so {THEIR_IMAGES} must say where that cluster finds the images (registry.example/team)")
        })?;
        let tag = env::var("NETSPLIT_IMAGE_TAG").unwrap_or_else(|_| "dev".to_owned());
        let image = |name: &str| format!("{registry}/{name}:{tag}");
        let cluster = Self {
            kubeconfig,
            programs: None,
            images: Images {
                node: image("netsplit-node"),
                netsplit: image("netsplit"),
                pull_policy: "IfNotPresent",
            },
            holder: None,
        };
        let answer = run(&mut cluster.kubectl(&["get", "--raw", "/readyz"]), None);
        if answer.status.success() {
            Ok(cluster)
        } else {
            Err(format!(
                "the cluster of {THEIRS} does not answer: {}",
                String::from_utf8_lossy(&answer.stderr)
            ))
        }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub fn images(&self) -> &Images {
        &self.images
    }

    /// `kubectl`, not started yet.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        self.client("kubectl", arguments)
    }

    /// `helm`, not started yet.
    pub fn helm(&self, arguments: &[&str]) -> Command {
        self.client("helm", arguments)
    }

    fn client(&self, name: &str, arguments: &[&str]) -> Command {
        let program = self.programs.as_ref().map_or_else(|| name.into(), |folder| folder.join(name));
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ok(&self, mut command: Command) -> String {
        demand(&command_line(&command), &run(&mut command, None))
    }

    /// Applies objects, which must be accepted.
    pub fn apply(&self, yaml: &str) -> String {
        let mut command = self.kubectl(&["apply", "-f", "-"]);
        let ended = run(&mut command, Some(yaml));
        demand(&format!("kubectl apply of\n{yaml}"), &ended)
    }

    /// `helm install` or `upgrade` of the chart, not started yet; it waits until that is done. Values are each `name=value`;
    /// what was set before and is not set again is as in the beginning.
    pub fn helm_chart(&self, verb: &str, namespace: &str, values: &[&str]) -> Command {
        let (registry, image) = self.images.netsplit.rsplit_once('/').expect("registry/name:tag");
        let (_, tag) = image.rsplit_once(':').expect("name:tag");
        let ours = [
            format!("image.registry={registry}"),
            format!("image.tag={tag}"),
            format!("image.pullPolicy={}", self.images.pull_policy),
        ];
        let all = ours.iter().map(String::as_str).chain(values.iter().copied());
        let mut helm = self.helm(&[verb, "netsplit", "--namespace", namespace, "--wait", "--timeout=180s"]);
        helm.args(all.flat_map(|value| ["--set", value]));
        helm.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/netsplit"));
        helm
    }

    /// What service accounts ask of the API server of our own cluster, a line of JSON each.
    pub fn audit_log(&self) -> PathBuf {
        self.kubeconfig.with_file_name("log").join("audit.log")
    }

    /// A namespace that nobody else uses. It goes, with all in it, when this is dropped.
    pub fn namespace(&self, purpose: &str) -> Namespace<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{purpose}-{}-{number}", std::process::id());
        self.ok(self.kubectl(&["create", "namespace", &name]));
        Namespace { cluster: self, name }
    }

    /// Ends or starts one part of our own cluster (`apiserver`, `kubelet`, ...): the end is that of a crash.
    pub fn part(&self, verb: &str, part: &str) {
        self.ok(self.script(&[verb, part]));
    }

    /// Gives an image that our own cluster knows another name, under which it is as if it had just been loaded.
    pub fn tag(&self, image: &str, name: &str) {
        self.ok(self.script(&["tag", image, name]));
    }

    /// Makes a volume on our own cluster's node, for one claim only.
    pub fn volume(&self, claim: &Claim<'_>) -> Volume<'_> {
        assert!(self.holder.is_some(), "a user's own cluster has volumes of its own");
        let Claim { namespace, name, class, size } = claim;
        let volume = format!("{namespace}-{name}");
        // Everything of our own cluster lies beside its kubeconfig, and its node sees it there.
        let folder = self.kubeconfig.with_file_name("volumes").join(&volume);
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        self.apply(&format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {volume}}}\nspec:\n  capacity: {{storage: {size}}}\n  \
             accessModes: [ReadWriteOnce]\n  persistentVolumeReclaimPolicy: Retain\n  storageClassName: {class:?}\n  \
             claimRef: {{namespace: {namespace}, name: {name}}}\n  local: {{path: {}}}\n  nodeAffinity:\n    required:\n      \
             nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/os, operator: Exists}}]}}]\n",
            folder.display()
        ));
        Volume { cluster: self, name: volume }
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let holder = self.holder.as_ref().expect("the parts of a user's own cluster are not ours");
        let mut command = Command::new(tool("cluster.sh"));
        command.args(arguments).env(SLOT, holder.slot.to_string());
        command
    }
}

/// What a volume is made for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Its storage class; empty for none.
    pub class: &'a str,
    pub size: &'a str,
}

/// A volume of our own cluster. It goes when this is dropped.
#[derive(Debug)]
pub struct Volume<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "persistentvolume", &self.name, "--wait=false"];
        let ended = run(&mut self.cluster.kubectl(&delete), None);
        if !ended.status.success() {
            eprintln!("cannot delete {}: {}", self.name, String::from_utf8_lossy(&ended.stderr));
        }
    }
}

impl Cluster {
    /// Takes down what is left of the cluster of a slot, if anything is.
    pub fn clear(slot: u8) {
        let ended = run(Command::new(tool("cluster.sh")).arg("down").env(SLOT, slot.to_string()), None);
        demand("cluster.sh down", &ended);
    }

    /// Kills what holds the cluster, as a killed test run does: it stays until the next one comes.
    pub fn abandon(mut self) {
        let mut holder = self.holder.take().expect("a user's own cluster has no holder");
        holder.script.kill().expect("the holder runs until its input ends");
        holder.script.wait().expect("a child can be waited for");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            // Its end of input is what the script waits for.
            drop(holder.stdin.take());
            if let Err(error) = holder.script.wait() {
                eprintln!("cannot wait for the end of the cluster: {error}");
            }
        }
    }
}

/// A namespace of the cluster, for one scenario.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    /// `kubectl` in this namespace, not started yet.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.kubectl(&["--namespace", &self.name]);
        command.args(arguments);
        command
    }

    /// Runs `kubectl` in this namespace, which must succeed; returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.cluster.ok(self.kubectl(arguments))
    }

    /// Applies objects in this namespace, which must be accepted.
    pub fn apply(&self, yaml: &str) -> String {
        let ended = run(&mut self.kubectl(&["apply", "-f", "-"]), Some(yaml));
        demand(&format!("kubectl apply of\n{yaml}"), &ended)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seen = run(&mut self.kubectl(&["get", "all,events", "--output=wide"]), None);
            eprintln!("what was in {}:\n{}", self.name, String::from_utf8_lossy(&seen.stdout));
        }
        let delete = ["delete", "namespace", &self.name, "--wait=false"];
        let ended = run(&mut self.cluster.kubectl(&delete), None);
        if !ended.status.success() {
            eprintln!("cannot delete {}: {}", self.name, String::from_utf8_lossy(&ended.stderr));
        }
    }
}

/// Where the cluster of a test run is put; another run beside it takes another one.
fn own_slot() -> Result<u8, String> {
    match env::var(SLOT) {
        Ok(slot) => slot.parse().map_err(|_| format!("{SLOT}={slot} is no number from 0 to 15")),
        Err(_) => Ok(0),
    }
}

/// A script of this crate's `cluster` folder.
fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name)
}

/// Archives of the binaries under test, beside them.
fn make_images() -> Result<PathBuf, String> {
    let folder = programs().join("images");
    let made = run(Command::new(tool("images.sh")).arg(programs()).arg(&folder), None);
    if made.status.success() {
        Ok(folder)
    } else {
        Err(format!("images.sh: {}", String::from_utf8_lossy(&made.stderr)))
    }
}

/// Runs a command to its end. Panics if it cannot be started.
fn run(command: &mut Command, input: Option<&str>) -> Output {
    let line = command_line(command);
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("{line} does not read: {error}"));
    }
    child.wait_with_output().unwrap_or_else(|error| panic!("cannot wait for {line}: {error}"))
}

fn demand(what: &str, ended: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{what}: {}\n{out}{err}", ended.status);
    out.into_owned()
}

fn command_line(command: &Command) -> String {
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(ToOwned::to_owned).collect();
    words.join(" ".as_ref()).to_string_lossy().into_owned()
}
