//! How much a network of four takes: `cargo test --release -p netsplit-node --test load -- --ignored --nocapture`.
//! RATE (transfers/s, default 2000) and SECONDS (default 5) come from the environment.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netsplit_core::Hash;
use netsplit_proto::node as wire;
use netsplit_proto::node::submit_result::Outcome;
use support::{Network, key};

const ACCOUNTS: usize = 1000;
const EVERY: Duration = Duration::from_millis(20);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kilobytes(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn transfers_a_second() {
    let (rate, seconds) = (setting("RATE", 2000), setting("SECONDS", 5));
    let mut network = Network::new(4, 0, ACCOUNTS, setting("BLOCK_MS", 100));
    let to = key("receiver", 0).public();
    let total = (rate * seconds) as usize;
    let transfers: Vec<(Hash, Bytes)> = (0..total)
        .map(|number| {
            let transfer = network.transfer(number % ACCOUNTS, &to, (number / ACCOUNTS) as u64, 1);
            (transfer.id(), transfer.to_bytes())
        })
        .collect();
    network.start_all();
    network.all_reach(5).await;
    let idle: Vec<u64> = network.nodes.iter().map(|node| kilobytes(node.pid(), "Pss:")).collect();

    let mut follower = network.nodes[0].client().await;
    let request = wire::StreamBlocksRequest { from_height: 0, include_transactions: true };
    let mut blocks = follower.stream_blocks(request).await.unwrap().into_inner();
    let follow = tokio::spawn(async move {
        let mut seen: Vec<(Hash, Instant)> = Vec::with_capacity(total);
        let mut rounds = 0;
        let idle = Duration::from_secs(5);
        while seen.len() < total
            && let Ok(Ok(Some(block))) = tokio::time::timeout(idle, blocks.message()).await
        {
            let now = Instant::now();
            rounds += block.round;
            let ids =
                block.transaction_ids.iter().filter_map(|id| Some(Hash::from_bytes(id[..].try_into().ok()?)));
            seen.extend(ids.map(|id| (id, now)));
        }
        (seen, rounds)
    });

    let mut clients = Vec::new();
    for node in &network.nodes {
        clients.push(node.client().await);
    }
    let start = Instant::now();
    let batch = (rate as usize * EVERY.as_millis() as usize / 1000).max(1);
    let mut sent_at: HashMap<Hash, Instant> = HashMap::with_capacity(total);
    let mut answers = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for chunk in transfers.chunks(batch) {
        ticks.tick().await;
        let now = Instant::now();
        // One account always goes through one node, so that nonces arrive in order.
        let mut by_node = vec![Vec::new(); clients.len()];
        for (id, bytes) in chunk {
            sent_at.insert(*id, now);
            let account = (sent_at.len() - 1) % ACCOUNTS;
            by_node[account % clients.len()].push(bytes.clone());
        }
        for (client, transactions) in clients.iter().zip(by_node) {
            let mut client = client.clone();
            answers.spawn(async move {
                let answer =
                    client.submit_transactions(wire::SubmitTransactionsRequest { transactions }).await;
                let results = answer.map(|answer| answer.into_inner().results).unwrap_or_default();
                let refused = results.into_iter().filter_map(|result| match result.outcome {
                    Some(Outcome::Refused(refused)) => Some(refused.message),
                    _ => None,
                });
                refused.collect::<Vec<_>>()
            });
        }
    }
    let offered = start.elapsed();
    let refused: Vec<String> = answers.join_all().await.into_iter().flatten().collect();
    let (seen, rounds) = follow.await.unwrap();
    let last = seen.last().map_or(offered, |(_, at)| at.duration_since(start));
    let mut latencies: Vec<u128> =
        seen.iter().filter_map(|(id, at)| Some(at.duration_since(*sent_at.get(id)?).as_millis())).collect();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        "offered {total} in {:.1} s; committed {} in {:.1} s = {:.0}/s; latency p50 {} p99 {} max {} ms; refused {} ({}); later rounds {rounds}",
        offered.as_secs_f64(),
        seen.len(),
        last.as_secs_f64(),
        seen.len() as f64 / last.as_secs_f64(),
        at(0.5),
        at(0.99),
        latencies.last().copied().unwrap_or(0),
        refused.len(),
        refused.first().map_or("", String::as_str),
    );
    for (node, idle) in network.nodes.iter().zip(idle) {
        let pid = node.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        println!(
            "{}: PSS idle {idle} kB, after {} kB, anonymous {} kB, CPU {} ms",
            node.name,
            kilobytes(pid, "Pss:"),
            kilobytes(pid, "Anonymous:"),
            ticks * 10
        );
    }
    assert!(!seen.is_empty());
}
