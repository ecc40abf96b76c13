//! Pods of the test cluster, whose containers are processes of this machine.

use std::fs;

/// The id of a process of the pod with this UID, by the name of its program; none while it does not run.
pub fn process_of_pod(uid: &str, program: &str) -> Option<u32> {
    let group = format!("pod{uid}");
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let (of, _) = command.split_once('\0')?;
        let groups = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        (of.rsplit('/').next() == Some(program) && groups.contains(&group)).then_some(pid)
    })
}
