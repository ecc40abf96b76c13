//! What a local testnet must do.

use std::{
    fs,
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    pin::Pin,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use netsplit_backend::{
    Backend, BackendError, CutState, ExecStdio, Hold, NodeHold, NodeSignal, NodeState, Proof,
    local::{CheckStatus, LocalBackend, doctor},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::io::AsyncReadExt;

use crate::{
    lab::{Lab, artifacts, config, exe, holders, is_alive, network, until},
    links::{
        a_new_agent_is_told_the_links, a_shaped_link_can_be_cut, faulted_links_end_with_their_lease,
        links_are_as_slow_as_asked_each_way, links_are_slow_from_the_first_packet,
        lost_packets_are_counted_and_measured, rates_are_measured, shares_of_packets_are_measured,
    },
    pod_links::{
        agents_of_pods_that_die_or_hang_leave_links_free_and_are_told_of,
        faulted_links_of_pods_end_with_their_lease, links_of_pods_are_as_slow_as_asked_each_way,
        shaped_links_outlive_their_operator_and_follow_a_pod,
    },
    pods::{
        a_cut_that_an_agent_does_not_confirm_is_taken_back,
        a_later_leader_takes_over_and_an_earlier_one_is_refused,
        a_replaced_pod_is_cut_before_its_first_packet, cuts_of_pods_end_with_their_lease,
        pods_are_cut_proven_and_healed, rules_flushed_in_a_pod_are_noticed,
    },
};

type Scenario = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[(&str, Scenario)] = &[$((stringify!($name), || Box::pin($name()))),*];
    };
}

scenarios![
    a_partition_is_silent_proven_and_healed,
    the_same_without_root,
    a_one_way_cut_is_one_way,
    overlapping_cuts_are_each_proven,
    a_lease_that_is_not_renewed_frees_the_link,
    both_kinds_of_renewal_keep_a_cut,
    a_killed_agent_comes_back_and_the_cut_stays,
    a_stopped_agent_lets_the_cut_end,
    rules_removed_by_others_are_noticed,
    killing_the_inner_process_leaves_nothing,
    killing_the_outer_process_leaves_nothing,
    processes_are_watched_restarted_and_stopped,
    held_nodes_are_ended_paused_and_let_go,
    nodes_that_nobody_holds_any_more_run_again,
    paused_nodes_go_on_though_their_owner_hangs,
    a_log_is_put_aside_when_it_has_grown_too_large,
    commands_run_in_a_nodes_network,
    as_root_nodes_answer_this_machine_and_begin_nothing,
    impossible_requests_are_refused,
    the_doctor_is_content,
    links_are_as_slow_as_asked_each_way,
    links_are_slow_from_the_first_packet,
    lost_packets_are_counted_and_measured,
    shares_of_packets_are_measured,
    rates_are_measured,
    faulted_links_end_with_their_lease,
    a_new_agent_is_told_the_links,
    a_shaped_link_can_be_cut,
    an_agent_takes_no_older_table,
    pods_are_cut_proven_and_healed,
    cuts_of_pods_end_with_their_lease,
    a_later_leader_takes_over_and_an_earlier_one_is_refused,
    rules_flushed_in_a_pod_are_noticed,
    a_replaced_pod_is_cut_before_its_first_packet,
    a_cut_that_an_agent_does_not_confirm_is_taken_back,
    links_of_pods_are_as_slow_as_asked_each_way,
    faulted_links_of_pods_end_with_their_lease,
    agents_of_pods_that_die_or_hang_leave_links_free_and_are_told_of,
    shaped_links_outlive_their_operator_and_follow_a_pod,
];

const LONG: Duration = Duration::from_secs(15);

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

async fn a_partition_is_silent_proven_and_healed() {
    partition(&Lab::new(6).await).await;
}

async fn partition(lab: &Lab) {
    for from in 0..6 {
        for to in (0..6).filter(|to| *to != from) {
            assert!(lab.tcp(from, to, 26600).await, "no TCP from {from} to {to}");
            assert!(lab.udp(from, to).await, "no UDP from {from} to {to}");
        }
    }
    let (left, right): (&[usize], &[usize]) = (&[0, 1, 2], &[3, 4, 5]);
    let split = || lab.cut("split", &[(left, right), (right, left)], LONG);
    lab.backend.set_cuts(vec![split()]).await.unwrap();
    assert!(!lab.udp(0, 3).await && !lab.udp(5, 2).await, "the cut leaks");
    assert!(!lab.tcp(1, 4, 26600).await && !lab.tcp(4, 1, 26600).await, "the cut leaks");
    assert!(lab.tcp(0, 1, 26600).await && lab.udp(3, 5).await, "a side is cut from itself");
    assert!(lab.tcp(0, 3, 26601).await, "the API port is cut");
    let mut api = lab.backend.connect("n4", 26601).await.unwrap();
    let mut text = String::new();
    api.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");

    let evidence = lab.until_proven("split").await;
    assert_eq!((evidence.state, evidence.pairs.len()), (CutState::Active, 18));
    assert!(evidence.pairs.iter().all(|pair| pair.probes_received == 0 && pair.controls_received > 0));
    assert_eq!(evidence.problems, Vec::<String>::new());
    let drops = evidence.drops;
    until("the drop counter rises", async || lab.evidence("split").await.drops > drops).await;

    lab.backend.set_cuts(Vec::new()).await.unwrap();
    assert!(lab.udp(0, 3).await && lab.tcp(4, 1, 26600).await, "the heal did nothing");
    until("the heal is confirmed", async || lab.evidence("split").await.state == CutState::Open).await;
    let healed = lab.evidence("split").await;
    assert!(healed.proof.is_proven(), "{healed:?}");
    lab.backend.stop().await.unwrap();
}

/// As root, runs the first scenario once more as a user without any right.
async fn the_same_without_root() {
    if !geteuid().is_root() {
        println!("not root: all scenarios run rootless already");
        return;
    }
    // A made-up user cannot read what root has built.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("test-program");
    fs::copy(exe(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let state = directory.path().join("state");
    let mut command = Command::new(&program);
    command.args(["rootless", state.to_str().unwrap()]).current_dir("/").uid(61_234).gid(61_234);
    let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
    assert!(status.success(), "the rootless run failed: {status}");
}

pub(crate) fn rootless_child(directory: &str) {
    assert!(!geteuid().is_root());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let lab = Lab::at(directory.into(), 6, &["node"]).await;
        assert!(lab.backend.is_rootless());
        partition(&lab).await;
    });
}

async fn a_one_way_cut_is_one_way() {
    let lab = Lab::new(2).await;
    lab.backend.set_cuts(vec![lab.cut("way", &[(&[0], &[1])], LONG)]).await.unwrap();
    assert!(!lab.udp(0, 1).await);
    assert!(lab.udp(1, 0).await);
    assert_eq!(lab.until_proven("way").await.pairs.len(), 1);
}

async fn overlapping_cuts_are_each_proven() {
    let lab = Lab::new(3).await;
    let wide = lab.cut("wide", &[(&[0], &[1, 2])], LONG);
    let narrow = lab.cut("narrow", &[(&[0], &[1])], LONG);
    lab.backend.set_cuts(vec![wide.clone(), narrow.clone()]).await.unwrap();
    lab.until_proven("wide").await;
    lab.until_proven("narrow").await;
    // One ends: the other still holds the link, and the heal waits for no probe that cannot come.
    lab.backend.set_cuts(vec![narrow]).await.unwrap();
    until("the wide cut has ended", async || lab.evidence("wide").await.state == CutState::Open).await;
    assert!(!lab.udp(0, 1).await && lab.udp(0, 2).await);
}

async fn a_lease_that_is_not_renewed_frees_the_link() {
    let lab = Lab::new(2).await;
    let lease = Duration::from_secs(2);
    lab.backend.set_cuts(vec![lab.cut("short", &[(&[0], &[1])], lease)]).await.unwrap();
    assert!(!lab.udp(0, 1).await);
    until("the link is free", async || lab.udp(0, 1).await).await;
    until("the end is known", async || lab.evidence("short").await.state == CutState::LeaseEnded).await;
    let evidence = lab.evidence("short").await;
    assert!(matches!(evidence.proof, Proof::Unproven(_)), "{evidence:?}");
    let error = lab.backend.renew().await.unwrap_err().to_string();
    assert!(error.contains("short"), "{error}");
}

async fn both_kinds_of_renewal_keep_a_cut() {
    // A node that has ended leaves its network, with the peer port free.
    let lab = Lab::with(1, &["exit", "0"]).await;
    assert_eq!(lab.run(0, &["renewals"]).await, Some(0));
}

async fn an_agent_takes_no_older_table() {
    let lab = Lab::with(1, &["exit", "0"]).await;
    assert_eq!(lab.run(0, &["tables"]).await, Some(0));
}

async fn a_killed_agent_comes_back_and_the_cut_stays() {
    let lab = Lab::new(2).await;
    lab.backend.set_cuts(vec![lab.cut("kept", &[(&[0], &[1])], LONG)]).await.unwrap();
    lab.until_proven("kept").await;
    let first = lab.backend.agent_pid().await.unwrap().unwrap();
    send(first, Signal::SIGKILL);
    assert!(!lab.udp(0, 1).await, "the cut ended with the agent");
    until("there is a new agent", async || {
        lab.backend.agent_pid().await.unwrap().is_some_and(|pid| pid != first)
    })
    .await;
    assert!(!lab.udp(0, 1).await, "the new agent opened the link");
    // It was told the cut, with what was left of its lease, before anybody renewed.
    let adopted = lab.evidence("kept").await;
    assert_eq!(adopted.state, CutState::Active, "{adopted:?}");
    assert!(adopted.lease_left_ms < LONG.as_millis() as u64);
    let evidence = lab.until_proven("kept").await;
    assert!(evidence.problems.iter().any(|problem| problem.contains("link agent")), "{evidence:?}");
    lab.backend.set_cuts(Vec::new()).await.unwrap();
    assert!(lab.udp(0, 1).await);
}

async fn a_stopped_agent_lets_the_cut_end() {
    let lab = Lab::new(2).await;
    let lease = Duration::from_secs(3);
    lab.backend.set_cuts(vec![lab.cut("hung", &[(&[0], &[1])], lease)]).await.unwrap();
    let started = Instant::now();
    let agent = lab.backend.agent_pid().await.unwrap().unwrap();
    send(agent, Signal::SIGSTOP);
    assert!(!lab.udp(0, 1).await || started.elapsed() > lease);
    until("the link is free", async || lab.udp(0, 1).await).await;
    assert!(started.elapsed() >= lease, "the cut ended before its lease");
    // Asking finds that the agent hangs; a new one knows nothing of the cut any more.
    let evidence = lab.evidence("hung").await;
    assert_eq!(evidence.state, CutState::LeaseEnded, "{evidence:?}");
    until("the hung agent is gone", async || !is_alive(agent)).await;
}

async fn rules_removed_by_others_are_noticed() {
    let lab = Lab::new(2).await;
    if lab.backend.is_rootless() {
        println!("rootless: entering the hub from outside was NOT RUN");
        return;
    }
    lab.backend.set_cuts(vec![lab.cut("cleared", &[(&[0], &[1])], LONG)]).await.unwrap();
    lab.until_proven("cleared").await;
    let status = Command::new(exe()).args(["clear", &lab.backend.inner_pid().to_string()]).status().unwrap();
    assert!(status.success());
    let violated = async || matches!(lab.evidence("cleared").await.proof, Proof::Violated(_));
    until("the violation is seen", violated).await;
    // A renewal cuts again and does not make it unseen.
    lab.backend.renew().await.unwrap();
    assert!(!lab.udp(0, 1).await);
    assert!(violated().await);
}

async fn killing_the_inner_process_leaves_nothing() {
    let lab = Lab::new(3).await;
    lab.backend.set_cuts(vec![lab.cut("left", &[(&[0], &[1])], LONG)]).await.unwrap();
    let agent = lab.backend.agent_pid().await.unwrap().unwrap();
    let mut pids = vec![lab.backend.inner_pid(), agent];
    pids.extend(lab.backend.nodes().await.unwrap().iter().filter_map(|node| node.pid));
    let networks: Vec<String> = pids.iter().filter_map(|pid| network(*pid)).collect();
    assert_eq!(networks.len(), 5);
    assert!(!holders(&networks).is_empty());
    send(lab.backend.inner_pid(), Signal::SIGKILL);
    lab.backend.gone().await;
    until("all processes are gone", async || !pids.iter().any(|pid| is_alive(*pid))).await;
    until("nothing holds a namespace", async || holders(&networks).is_empty()).await;
    assert!(matches!(lab.backend.nodes().await, Err(BackendError::Gone(_))));
}

async fn killing_the_outer_process_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut outer = Command::new(exe())
        .args(["outer", directory.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(outer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    let networks: Vec<String> = pids.iter().filter_map(|pid| network(*pid)).collect();
    outer.kill().unwrap();
    outer.wait().unwrap();
    until("all processes are gone", async || !pids.iter().any(|pid| is_alive(*pid))).await;
    until("nothing holds a namespace", async || holders(&networks).is_empty()).await;
}

async fn processes_are_watched_restarted_and_stopped() {
    let lab = Lab::new(2).await;
    let key = lab.places[0].directory.join("keys/node.key");
    assert_eq!(fs::read(&key).unwrap(), b"secret");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    lab.backend.signal("n0", NodeSignal::Pause).await.unwrap();
    until("the kernel has stopped it", async || lab.backend.nodes().await.unwrap()[0].paused).await;
    lab.backend.signal("n0", NodeSignal::Resume).await.unwrap();
    lab.backend.signal("n0", NodeSignal::Kill).await.unwrap();
    until("the crash is noticed", async || {
        lab.state(0).await == NodeState::Exited { code: None, signal: Some(9) }
    })
    .await;
    assert!(lab.backend.signal("n0", NodeSignal::Kill).await.is_err());

    fs::write(lab.places[0].directory.join("data"), "kept").unwrap();
    lab.backend.restart("n0").await.unwrap();
    until("it starts a second time", async || lab.log(0).matches("ready").count() == 2).await;
    assert_eq!(fs::read(lab.places[0].directory.join("data")).unwrap(), b"kept");
    assert!(lab.tcp(1, 0, 26600).await, "the restarted node is not in its network");
    let nodes = lab.backend.nodes().await.unwrap();
    assert_eq!((nodes[0].restarts, nodes[1].restarts), (1, 0));
    // A paused node ends, too.
    lab.backend.signal("n1", NodeSignal::Pause).await.unwrap();
    let pids: Vec<u32> = nodes.iter().filter_map(|node| node.pid).collect();
    lab.backend.stop().await.unwrap();
    assert!(!pids.iter().any(|pid| is_alive(*pid)));

    let lab = Lab::with(1, &["exit", "7"]).await;
    until("the exit code is known", async || {
        lab.state(0).await == NodeState::Exited { code: Some(7), signal: None }
    })
    .await;
}

fn holds<const N: usize>(of: [(&str, Hold); N]) -> Vec<NodeHold> {
    of.map(|(node, hold)| NodeHold { node: node.to_owned(), hold }).to_vec()
}

async fn held_nodes_are_ended_paused_and_let_go() {
    let lease = Duration::from_mins(1);
    let lab = Lab::new(3).await;
    let nodes = async || lab.backend.nodes().await.unwrap();
    let before = nodes().await;
    let set = async |of| lab.backend.set_nodes(of, lease).await;
    set(holds([("n0", Hold::Killed), ("n1", Hold::Paused), ("n2", Hold::Ended)])).await.unwrap();
    until("one is stopped", async || nodes().await[1].paused).await;
    until("one has ended in order", async || !matches!(nodes().await[2].state, NodeState::Running)).await;
    let held = nodes().await;
    assert_eq!(held[0].state, NodeState::Exited { code: None, signal: Some(9) });
    assert_eq!((&held[1].state, held[1].pid), (&NodeState::Running, before[1].pid));
    assert_eq!(held[2].state, NodeState::Exited { code: None, signal: Some(15) });
    assert_eq!(
        held.iter().map(|node| node.held).collect::<Vec<_>>(),
        [Some(Hold::Killed), Some(Hold::Paused), Some(Hold::Ended)]
    );

    assert!(lab.backend.restart("n0").await.is_err(), "a person does not undo a fault by accident");
    assert!(lab.backend.signal("n1", NodeSignal::Resume).await.is_err());
    let refused = set(holds([("n9", Hold::Killed)])).await;
    assert!(matches!(refused, Err(BackendError::UnknownNode(_))), "{refused:?}");

    // Two faults on one node: the one that leaves least of it counts, and what is left of them when one is over.
    set(holds([("n1", Hold::Paused), ("n1", Hold::Killed), ("n0", Hold::Paused)])).await.unwrap();
    until("the third runs again", async || nodes().await[2].state == NodeState::Running).await;
    let held = nodes().await;
    assert_eq!(held[1].state, NodeState::Exited { code: None, signal: Some(9) });
    assert_eq!((&held[0].state, held[0].restarts), (&NodeState::Running, 1));
    until("it is stopped as soon as it runs", async || nodes().await[0].paused).await;

    set(Vec::new()).await.unwrap();
    let free = nodes().await;
    assert!(free.iter().all(|node| node.state == NodeState::Running && node.held.is_none()), "{free:?}");
    until("none is stopped", async || nodes().await.iter().all(|node| !node.paused)).await;
    assert!(lab.tcp(2, 1, 26600).await, "the restarted node is not in its network");

    // One that ended by itself was not asked to, and is not what a fault can end.
    lab.backend.signal("n0", NodeSignal::Kill).await.unwrap();
    until("the crash is noticed", async || nodes().await[0].state != NodeState::Running).await;
    assert!(set(holds([("n0", Hold::Killed), ("n1", Hold::Killed)])).await.is_err());
    assert_eq!(nodes().await[1].state, NodeState::Running, "all of it, or nothing");
}

/// Whoever asks for it may die or hang: nobody renews.
async fn nodes_that_nobody_holds_any_more_run_again() {
    let lease = Duration::from_secs(2);
    let lab = Lab::new(2).await;
    let nodes = async || lab.backend.nodes().await.unwrap();
    let started = Instant::now();
    lab.backend.set_nodes(holds([("n0", Hold::Killed), ("n1", Hold::Paused)]), lease).await.unwrap();
    while started.elapsed() < 2 * lease {
        lab.backend.renew().await.unwrap();
        let held = nodes().await;
        assert!(
            held[0].state != NodeState::Running && held[1].held.is_some(),
            "renewed, and let go: {held:?}"
        );
        tokio::time::sleep(lease / 10).await;
    }
    let renewed = Instant::now();
    until("both run again", async || {
        nodes()
            .await
            .iter()
            .all(|node| node.state == NodeState::Running && !node.paused && node.held.is_none())
    })
    .await;
    assert!(renewed.elapsed() >= lease / 2, "not before the lease has ended");
    lab.backend.renew().await.unwrap();
    assert!(
        nodes().await.iter().all(|node| node.held.is_none()),
        "a lease that has ended does not begin anew"
    );
}

/// Whether the kernel has stopped a process.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

async fn paused_nodes_go_on_though_their_owner_hangs() {
    let lease = Duration::from_secs(2);
    let lab = Lab::new(2).await;
    let pid = lab.backend.nodes().await.unwrap()[1].pid.unwrap();
    for round in 0..2 {
        lab.backend.set_nodes(holds([("n1", Hold::Paused)]), lease).await.unwrap();
        until("it is stopped", async || is_stopped(pid)).await;
        send(lab.backend.inner_pid(), Signal::SIGSTOP);
        until("it goes on by itself", async || !is_stopped(pid)).await;
        send(lab.backend.inner_pid(), Signal::SIGCONT);
        until("its owner knows", async || lab.backend.nodes().await.unwrap()[1].held.is_none()).await;
        if round == 0 {
            // One that is gone is replaced.
            for watchdog in children_of(lab.backend.inner_pid(), "__watchdog") {
                send(watchdog, Signal::SIGKILL);
                // A process that has ended has no arguments any more, and no file when it is reaped; until then it can be told.
                let arguments = format!("/proc/{watchdog}/cmdline");
                until("it is gone", async || fs::read(&arguments).unwrap_or_default().is_empty()).await;
            }
        }
    }
    lab.backend.stop().await.unwrap();
}

/// Its children that were started with that argument.
fn children_of(parent: u32, argument: &str) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_meant = |pid: &u32| {
        let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat");
        let of_parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&parent.to_string());
        of_parent && read("cmdline").split('\0').any(|word| word == argument)
    };
    let found: Vec<u32> = pids.filter(is_meant).collect();
    assert!(!found.is_empty(), "{parent} has no {argument}");
    found
}

async fn a_log_is_put_aside_when_it_has_grown_too_large() {
    let lab = Lab::with(1, &["chatter"]).await;
    let log = lab.backend.log_path(lab.name(0));
    let aside = log.with_extension("log.1");
    let size = |file: &std::path::Path| fs::metadata(file).map_or(0, |metadata| metadata.len());
    until("the log is put aside, and goes on", async || {
        aside.exists() && size(&log) < 1 << 20 && lab.log(0).contains("the end")
    })
    .await;
    assert!(size(&aside) > 8 << 20, "{} bytes were put aside", size(&aside));
    assert!(size(&aside) + size(&log) >= 9_000_000, "of 9 MB {} and {} are left", size(&aside), size(&log));
}

async fn commands_run_in_a_nodes_network() {
    let lab = Lab::new(1).await;
    assert_eq!(lab.run(0, &["exit", "3"]).await, Some(3));
    let (stdin, mut to) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    let (mut errors, stderr) = std::io::pipe().unwrap();
    to.write_all(b"ab").unwrap();
    drop(to);
    let stdio = ExecStdio { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), tty: false };
    let exit = lab.backend.exec("n0", vec![exe(), "echo".into()], stdio).await.unwrap();
    assert_eq!(exit.code, Some(0));
    let mut texts = [String::new(), String::new()];
    output.read_to_string(&mut texts[0]).unwrap();
    errors.read_to_string(&mut texts[1]).unwrap();
    assert_eq!(texts, ["abab", "n0"]);

    // Giving up kills the command: its end of the pipe closes.
    let (stdin, _keep) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    let (_errors, stderr) = std::io::pipe().unwrap();
    let stdio = ExecStdio { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), tty: false };
    let run = lab.backend.exec("n0", vec![exe(), "echo".into()], stdio);
    assert!(tokio::time::timeout(Duration::from_millis(300), run).await.is_err());
    let read = tokio::task::spawn_blocking(move || output.read_to_string(&mut String::new()));
    tokio::time::timeout(crate::lab::DEADLINE, read).await.unwrap().unwrap().unwrap();
}

async fn as_root_nodes_answer_this_machine_and_begin_nothing() {
    if !geteuid().is_root() {
        println!("not root: this machine's network is out of the testnet's reach");
        return;
    }
    let (one, other) = tokio::join!(Lab::new(2), Lab::new(1));
    assert_eq!((one.backend.answers_host(), other.backend.answers_host()), (Ok(()), Ok(())));
    assert_ne!(one.address(0), other.address(0), "two testnets share an address");
    let mut from = Vec::new();
    for node in [one.address(0), one.address(1), other.address(0)] {
        let mut stream = tokio::net::TcpStream::connect((node, 26600)).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        from.push(stream.local_addr().unwrap().ip());
    }
    // The way back is for answers: a service of this machine is not the testnet's to find.
    let here = std::net::TcpListener::bind((from[0], 0)).unwrap();
    let port = here.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in here.incoming() {
            stream.unwrap().write_all(b"hello").unwrap();
        }
    });
    let service = format!("{}:{port}", from[0]);
    let local = std::net::TcpStream::connect(&service).map(|mut stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    assert_eq!(local.unwrap().unwrap(), "hello");
    assert_eq!(one.run(0, &["tcp", &service]).await, Some(1), "a node reached a service of this machine");
    let (first, second) = (from[0], from[2]);
    assert_ne!(first, second);
    one.backend.stop().await.unwrap();
    drop(one);
    let gone = async || std::net::TcpListener::bind((first, 0)).is_err();
    until("the way into the ended testnet is gone", gone).await;
    assert!(std::net::TcpListener::bind((second, 0)).is_ok(), "the other testnet lost its way, too");
    other.backend.stop().await.unwrap();
}

async fn impossible_requests_are_refused() {
    let lab = Lab::new(1).await;
    assert!(matches!(lab.backend.connect("nobody", 1).await, Err(BackendError::UnknownNode(_))));
    assert!(matches!(lab.backend.connect("n0", 9).await, Err(BackendError::Connect { .. })));
    assert!(matches!(lab.backend.restart("nobody").await, Err(BackendError::UnknownNode(_))));
    let cut = lab.cut("tiny", &[(&[0], &[0])], Duration::from_millis(1));
    assert!(lab.backend.set_cuts(vec![cut]).await.is_err());
    assert!(lab.backend.start(vec![artifacts("n0", &["node"])]).await.is_err(), "a testnet starts once");

    let directory = tempfile::tempdir().unwrap();
    let backend = LocalBackend::launch(config(directory.path().to_path_buf())).await.unwrap();
    let mut bad = artifacts("x", &["node"]);
    bad.files[0].path = "../escape".into();
    assert!(matches!(backend.start(vec![bad]).await, Err(BackendError::Invalid(_))));
    let mut missing = artifacts("x", &[]);
    missing.command = vec!["no-such-program".into()];
    assert!(matches!(backend.start(vec![missing]).await, Err(BackendError::Invalid(_))));
    assert!(backend.places(&["a/b".into()]).is_err());
}

async fn the_doctor_is_content() {
    let directory = tempfile::tempdir().unwrap();
    let checks = doctor(config(directory.path().to_path_buf())).await;
    for check in &checks {
        println!("    {:?} {}: {} {}", check.status, check.name, check.detail, check.fix);
    }
    assert!(checks.len() >= 8);
    assert!(checks.iter().all(|check| check.status != CheckStatus::Fail));
}
