//! The node's program: where it is, and how it is started.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Pid, getpid, getppid},
};

use super::Failure;

#[derive(Debug)]
pub(super) struct Program {
    name: OsString,
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// A name with a slash is a path; any other is looked for in PATH, and in the image's root, where images of one program
    /// have it.
    pub(super) fn find(name: &OsStr, arguments: Vec<OsString>) -> Result<Self, Failure> {
        let search = env::var_os("PATH").unwrap_or_default();
        let found = if Path::new(name).components().count() > 1 {
            is_program(Path::new(name)).then(|| PathBuf::from(name))
        } else {
            let folders = env::split_paths(&search).chain([PathBuf::from("/")]);
            folders.map(|folder| folder.join(name)).find(|path| is_program(path))
        };
        let missing = || {
            let (name, search) = (name.display(), search.display());
            let why = format!(
                "the image has no program {name}: put it at /{name} or into a folder of PATH ({search})"
            );
            Failure::new(Failure::NOT_FOUND, why)
        };
        Ok(Self { path: found.ok_or_else(missing)?, name: name.to_owned(), arguments })
    }

    /// Starts it in a process group of its own, so that one signal reaches it and its children.
    #[allow(unsafe_code, reason = "std offers no other way to unblock signals in the child")]
    pub(super) fn start(&self) -> Result<Pid, Failure> {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments).process_group(0);
        let parent = getpid();
        let prepare = move || -> io::Result<()> {
            SigSet::empty().thread_set_mask()?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the signal was asked for.
            if getppid() == parent { Ok(()) } else { Err(Errno::EPIPE.into()) }
        };
        // SAFETY: the closure runs in the forked child and only makes system calls: no allocation, no lock.
        unsafe {
            command.pre_exec(prepare);
        }
        // It is reaped with whatever it leaves behind.
        let child = command.spawn().map_err(|error| {
            let why = format!("cannot start {}: {error}", self.path.display());
            Failure::new(Failure::NOT_STARTED, why)
        })?;
        Ok(Pid::from_raw(child.id().cast_signed()))
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}
