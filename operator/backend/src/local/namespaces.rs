//! Making and entering namespaces.

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    unistd::{getegid, geteuid},
};

/// Puts the calling process into a network namespace of its own, the hub; without the right to do so, into a user
/// namespace first. Returns whether it is rootless. Must be called before any thread is started: a process with threads
/// cannot enter a user namespace.
pub(super) fn enter_hub() -> Result<bool, String> {
    if geteuid().is_root() {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => return Ok(false),
            // Root of a container without CAP_SYS_ADMIN: a user namespace may still be allowed.
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(format!("cannot create a network namespace: {errno}")),
        }
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(refusal)?;
    // The kernel takes a group map from an unprivileged process only after it gave up setgroups.
    let map = |path: &str, text: String| {
        fs::write(path, text).map_err(|error| format!("cannot write {path}: {error}; {ADVICE}"))
    };
    map("/proc/self/setgroups", "deny".to_owned())?;
    map("/proc/self/uid_map", format!("0 {user} 1"))?;
    map("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(true)
}

const ADVICE: &str = "run as root, or allow user namespaces: `sysctl user.max_user_namespaces=15000`, and where they exist \
                      `sysctl kernel.unprivileged_userns_clone=1` and `sysctl kernel.apparmor_restrict_unprivileged_userns=0`";

fn refusal(errno: Errno) -> String {
    format!("neither root nor user namespaces are available ({errno}); {ADVICE}")
}

/// Makes a network namespace that lives as long as the descriptor.
pub(super) fn create() -> io::Result<OwnedFd> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// Runs `work` on a thread inside the namespace. Sockets opened there stay there.
pub(super) fn within<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// The thread's namespace ends with it, so nothing has to be switched back.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("a helper thread panicked")))
}
