//! The YAML of the scenarios: small testnets, short faults.

use std::fmt::Write as _;

/// Four validators with 200 ms between blocks, unless said.
#[derive(Clone, Debug)]
pub struct Testnet {
    pub name: String,
    pub validators: u32,
    pub full: u32,
    pub topology: &'static str,
    /// Transfers a second; none for 0.
    pub load: u32,
    /// What every link does, such as `latency: 10ms`; nothing when empty.
    pub links: &'static str,
    /// Such as `{cometbft: {}}`.
    pub chain: &'static str,
}

impl Testnet {
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, validators: 4, full: 0, topology: "mesh", load: 0, links: "", chain: "netsplit" }
    }

    pub fn yaml(&self) -> String {
        let Self { name, validators, full, topology, load, links, chain } = self;
        let mut text = format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: {name}}}\nspec:\n  \
             chain: {chain}\n  consensus: {{bft: {{blockTime: 200ms}}}}\n  topology: {topology}\n  nodes:\n    \
             - {{name: validator, role: validator, count: {validators}}}\n"
        );
        if *full > 0 {
            writeln!(text, "    - {{name: full, role: full, count: {full}}}").expect("a String takes it all");
        }
        if *load > 0 {
            writeln!(text, "  load: {{transfersPerSecond: {load}/s}}").expect("a String takes it all");
        }
        if !links.is_empty() {
            writeln!(text, "  links: {{{links}}}").expect("a String takes it all");
        }
        text
    }
}

/// One fault, a partition unless said, called `split`, after a baseline of 2 s.
#[derive(Clone, Debug)]
pub struct Experiment {
    pub name: String,
    pub testnet: String,
    /// The fault's fields, such as `partition: [[a], [b]]`.
    pub fault: String,
    /// Seconds.
    pub lasts: u32,
    /// Such as `stall: {within: 1s}`.
    pub expect: Vec<String>,
}

impl Experiment {
    /// Two validators on each side, for 4 s.
    pub fn halves(testnet: &str) -> Self {
        Self {
            name: "halves".to_owned(),
            testnet: testnet.to_owned(),
            fault: "partition: [[validator-0, validator-1], [validator-2, validator-3]]".to_owned(),
            lasts: 4,
            expect: Vec::new(),
        }
    }

    #[must_use]
    pub fn expect(mut self, expectation: &str) -> Self {
        self.expect.push(expectation.to_owned());
        self
    }

    /// All that a chain should show that is split in halves.
    #[must_use]
    pub fn expect_all(self) -> Self {
        let expected = self.expect("stall: {within: 2s}").expect("recover: {within: 5s}");
        expected.expect("agreement: {}").expect("validity: {}")
    }

    pub fn yaml(&self) -> String {
        let Self { name, testnet, fault, lasts, expect } = self;
        let mut text = format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n  \
             testnet: {testnet}\n  baseline: 2s\n  settle: 1s\n  faults:\n    - name: split\n      at: 2s\n      \
             for: {lasts}s\n      {fault}\n  expect:\n"
        );
        for expectation in expect {
            writeln!(text, "    - {expectation}").expect("a String takes it all");
        }
        text
    }

    /// With its testnet in the same file.
    pub fn with(&self, testnet: &Testnet) -> String {
        format!("{}---\n{}", testnet.yaml(), self.yaml())
    }
}
