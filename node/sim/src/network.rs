//! Links that delay, reorder and lose.

use crate::Micros;
use crate::rng::Rng;
use crate::scenario::{Cut, Scenario};

#[derive(Debug)]
pub struct Network {
    rng: Rng,
    delay: (Micros, Micros),
    loss_percent: u64,
    cuts: Vec<Cut>,
    faults_until: Micros,
}

impl Network {
    pub fn new(scenario: &Scenario, rng: Rng) -> Self {
        Self {
            rng,
            delay: scenario.delay,
            loss_percent: scenario.loss_percent,
            cuts: scenario.cuts.clone(),
            faults_until: scenario.faults_until,
        }
    }

    /// When a message sent now arrives, or `None` if it is lost.
    pub fn route(&mut self, now: Micros, from: usize, to: usize) -> Option<Micros> {
        let delay = self.rng.range(self.delay.0, self.delay.1);
        let lost = now < self.faults_until && self.rng.percent(self.loss_percent);
        (!lost && !self.is_cut(now, from, to)).then_some(now + delay)
    }

    pub fn is_cut(&self, now: Micros, a: usize, b: usize) -> bool {
        self.cuts.iter().any(|cut| (cut.from..cut.until).contains(&now) && cut.separates(a, b))
    }

    /// Whether a cut that ends sessions lies between two nodes now.
    pub fn ends_session(&self, now: Micros, a: usize, b: usize) -> bool {
        let active = |cut: &&Cut| cut.ends_sessions && (cut.from..cut.until).contains(&now);
        self.cuts.iter().filter(active).any(|cut| cut.separates(a, b))
    }
}
