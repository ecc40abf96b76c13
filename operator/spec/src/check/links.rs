//! Rules of a link's quality.

use std::time::Duration;

use crate::links::Links;
use crate::report::Report;
use crate::units::{Share, format_bits, format_duration};

pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// Of the base: a healed link must be measured at it within the time that a proof may take.
const LONGEST_BASE: Duration = Duration::from_secs(2);
/// Below, one packet takes seconds; above, the limit is the machine's.
const RATES: (u64, u64) = (10_000, 100_000_000_000);

/// Of a fault.
pub(crate) fn check(report: &mut Report, path: &str, links: &Links) {
    tell(report, path, links.problems());
}

/// Of a testnet.
pub(crate) fn check_base(report: &mut Report, path: &str, links: &Links) {
    tell(report, path, base_problems(links));
}

/// Of a testnet's links whose latency is by region: no link's jitter is above its latency.
pub(crate) fn check_beside_rows(report: &mut Report, path: &str, links: &Links) {
    tell(report, path, links.problems_above(LONGEST_BASE));
}

/// Of a row of a matrix.
pub(crate) fn row_problems(links: &Links) -> Vec<(&'static str, String)> {
    let mut problems = base_problems(links);
    if links.latency.is_none() {
        problems.push((
            "latency",
            "is missing: leave out the row if nobody knows how long packets take".to_owned(),
        ));
    }
    problems
}

fn base_problems(links: &Links) -> Vec<(&'static str, String)> {
    let mut problems = links.problems_above(LONGEST_BASE);
    if links.jitter > Some(links.latency.unwrap_or_default()) {
        let problem = "is larger than `latency`: a packet cannot arrive before it was sent";
        problems.push(("jitter", problem.to_owned()));
    }
    problems
}

fn tell(report: &mut Report, path: &str, problems: Vec<(&'static str, String)>) {
    for (field, problem) in problems {
        report.problem(&format!("{path}.{field}"), problem);
    }
}

impl Links {
    /// Each field that cannot be meant, with a sentence. Whether `jitter` fits `latency` depends on the base.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        self.problems_above(LONGEST)
    }

    fn problems_above(&self, longest: Duration) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (field, value) in [("latency", self.latency), ("jitter", self.jitter)] {
            if value.is_some_and(|value| value > longest) {
                problems.push((field, format!("must be at most {}", format_duration(longest))));
            }
        }
        if let Some(rate) = self.rate
            && !(RATES.0..=RATES.1).contains(&rate)
        {
            let (least, most) = (format_bits(RATES.0), format_bits(RATES.1));
            problems.push(("rate", format!("must be between {least} and {most}")));
        }
        if self.loss == Some(Share::ALL) {
            problems.push(("loss", "nothing would arrive: use a `cut`, which is proven as such".to_owned()));
        }
        problems
    }
}
