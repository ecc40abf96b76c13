//! The baseline: four CometBFT validators with its key-value store, which checks no signature and executes nothing.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// What one run of the baseline gave. Latency in milliseconds, memory in MiB a node.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    pub per_second: f64,
    pub latency_mean: f64,
    pub latency_worst: f64,
    pub idle_mib: f64,
    pub loaded_mib: f64,
}

/// Offers `rate` transactions a second for `seconds`.
pub fn run(script: &Path, seconds: u64, rate: u32) -> Result<Baseline> {
    let output = Command::new("bash")
        .arg(script)
        .args([seconds.to_string(), rate.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} ended with {}", script.display(), output.status);
    read(&String::from_utf8_lossy(&output.stdout))
}

/// Lines of `key=value`.
fn read(text: &str) -> Result<Baseline> {
    let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let number = |key: &str| -> Result<f64> {
        let value = values.get(key).with_context(|| format!("the baseline did not tell {key}"))?;
        value.parse().with_context(|| format!("the baseline's {key} is {value}"))
    };
    Ok(Baseline {
        per_second: number("per_second")?,
        latency_mean: number("latency_mean_ms")?,
        latency_worst: number("latency_worst_ms")?,
        idle_mib: number("idle_mib")?,
        loaded_mib: number("loaded_mib")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_name() {
        let text = "per_second=4300\nlatency_mean_ms=297.5\nlatency_worst_ms=566\nidle_mib=17\nloaded_mib=125\nother=1\n";
        let baseline = read(text).unwrap();
        assert!((baseline.latency_mean - 297.5).abs() < f64::EPSILON);
        assert!(read("per_second=4300\n").is_err());
        assert!(read(&text.replace("=17", "=")).is_err());
    }
}
