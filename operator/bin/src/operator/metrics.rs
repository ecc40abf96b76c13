//! What the operator tells of itself to Prometheus.

use anyhow::{Context as _, Result};
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// 1 while this operator leads.
    pub leader: IntGauge,
    /// Testnets that are followed.
    pub testnets: IntGauge,
    /// Experiments that run or wait for their turn.
    pub experiments: IntGauge,
    /// By kind and result.
    pub reconciles: IntCounterVec,
    /// Seconds, by kind.
    pub reconcile_seconds: HistogramVec,
    /// By phase.
    pub verdicts: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            leader: IntGauge::new("netsplit_operator_leader", "1 while this operator leads")?,
            testnets: IntGauge::new("netsplit_operator_testnets", "Testnets that are followed")?,
            experiments: IntGauge::new("netsplit_operator_experiments", "Experiments that run or wait")?,
            reconciles: counter(
                "netsplit_operator_reconciles_total",
                "Reconciliations by kind and result",
                &["kind", "result"],
            )?,
            reconcile_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "netsplit_operator_reconcile_duration_seconds",
                    "Time that a reconciliation took",
                ),
                &["kind"],
            )?,
            verdicts: counter("netsplit_operator_verdicts_total", "Experiments that ended", &["phase"])?,
            registry: registry.clone(),
        };
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.testnets.clone()))?;
        registry.register(Box::new(metrics.experiments.clone()))?;
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        registry.register(Box::new(metrics.verdicts.clone()))?;
        Ok(metrics)
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).context("cannot write the metrics")?;
        String::from_utf8(text).context("the metrics are not text")
    }
}
