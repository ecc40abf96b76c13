//! JUnit's XML, as pipelines show it: one case an expectation, one a fault's proof.

use maud::{PreEscaped, html};
use netsplit_plan::experiment::Outcome;

use crate::outcome::RunOutcome;

pub fn render(outcome: &RunOutcome) -> String {
    let verdict = &outcome.verdict;
    let seconds = format!("{:.3}", verdict.lasted_ms as f64 / 1_000.0);
    let failed = verdict.expectations.iter().filter(|result| result.outcome == Outcome::Failed).count();
    let skipped = verdict.expectations.iter().filter(|result| result.outcome == Outcome::NotJudged).count();
    let unproven = outcome.faults.iter().filter(|fault| !fault.proven).count();
    let invalid = verdict.expectations.iter().filter(|result| result.outcome == Outcome::Invalid).count();
    // A run that ended for a reason of its own has no expectation that says so.
    let is_odd = verdict.phase.as_str() != "Passed" && failed + invalid + unproven == 0;
    let tests = verdict.expectations.len() + outcome.faults.len() + usize::from(is_odd);
    let errors = invalid + unproven + usize::from(is_odd);
    let body = html! {
        testsuites tests=(tests) failures=(failed) errors=(errors) time=(seconds) {
            testsuite name=(outcome.experiment) tests=(tests) failures=(failed) errors=(errors) skipped=(skipped)
                time=(seconds) {
                @for result in &verdict.expectations {
                    testcase classname=(outcome.testnet) name=(result.text) {
                        @match result.outcome {
                            Outcome::Passed => {}
                            Outcome::Failed => { failure message=(result.detail) {} }
                            Outcome::Invalid => { error message=(result.detail) {} }
                            Outcome::NotJudged => { skipped message=(result.detail) {} }
                        }
                    }
                }
                @for fault in &outcome.faults {
                    testcase classname=(outcome.testnet) name={ "fault " (fault.id) " is real" } {
                        @if !fault.proven { error message=(fault.evidence) {} }
                    }
                }
                @if is_odd {
                    testcase classname=(outcome.testnet) name="verdict" {
                        error message=(format!("{}: {}", verdict.phase, verdict.reasons.join("; "))) {}
                    }
                }
            }
        }
    };
    format!(
        "{}\n",
        PreEscaped(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", body.into_string())).0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::sample;

    #[test]
    fn each_expectation_and_each_proof_is_a_case() {
        let text = render(&sample::passed());
        assert!(text.contains("tests=\"3\" failures=\"0\" errors=\"0\""), "{text}");
        assert!(text.contains("name=\"fault split is real\""), "{text}");
    }

    #[test]
    fn what_failed_and_what_could_not_be_proven_is_told_apart_and_escaped() {
        let mut outcome = sample::failed();
        outcome.faults[0].proven = false;
        outcome.faults[0].evidence = "1 < 2 & \"so\"".to_owned();
        let text = render(&outcome);
        assert!(text.contains("failures=\"1\" errors=\"1\""), "{text}");
        assert!(text.contains("error message=\"1 &lt; 2 &amp; &quot;so&quot;\""), "{text}");
    }

    #[test]
    fn an_abort_is_no_green_suite() {
        let mut outcome = sample::passed();
        outcome.verdict.phase = netsplit_plan::experiment::Phase::Aborted;
        assert!(render(&outcome).contains("name=\"verdict\""));
    }
}
