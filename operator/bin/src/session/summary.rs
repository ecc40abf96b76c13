//! Measured links in few words: how many there are, how many are as asked, and which are furthest from it.

use netsplit_backend::LinkEvidence;
use netsplit_plan::expected;

use super::links::SeenLink;

/// All links of a testnet, in a size that does not depend on how many they are.
#[derive(Clone, Debug, Default)]
pub struct LinkSummary {
    pub total: usize,
    pub measured: usize,
    pub as_asked: usize,
    /// At most [`Self::WORST`]: those that are not as asked, then those that a fault changes, then the others; of each kind the
    /// furthest from what is asked first.
    pub worst: Vec<SeenLink>,
}

impl LinkSummary {
    pub const WORST: usize = 10;

    pub fn of(links: Vec<SeenLink>) -> Self {
        let total = links.len();
        let mut measured: Vec<(f64, SeenLink)> =
            links.into_iter().filter_map(|link| Some((off(&link, link.measured.as_ref()?), link))).collect();
        let (count, as_asked) =
            (measured.len(), measured.iter().filter(|(_, link)| link.problem.is_none()).count());
        let kind = |link: &SeenLink| (link.problem.is_none(), !link.changed);
        measured.sort_by(|(a_off, a), (b_off, b)| kind(a).cmp(&kind(b)).then(b_off.total_cmp(a_off)));
        measured.truncate(Self::WORST);
        let worst = measured.into_iter().map(|(_, link)| link).collect();
        Self { total, measured: count, as_asked, worst }
    }
}

/// How far a link's latency is from what is asked, as a multiple of what is tolerated.
fn off(link: &SeenLink, measured: &LinkEvidence) -> f64 {
    let asked = link.asked.latency.unwrap_or_default();
    let tolerance = expected::tolerance(asked).as_micros() as f64;
    measured.latency_us.map_or(f64::INFINITY, |us| us.abs_diff(asked.as_micros() as i64) as f64 / tolerance)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netsplit_spec::Links;

    use super::*;

    fn link(to: usize, asked_ms: u64, us: Option<i64>, problem: Option<&str>) -> SeenLink {
        let evidence = LinkEvidence {
            from: "a".into(),
            to: to.to_string(),
            sent: 60,
            received: 60,
            duplicated: 0,
            reordered: 0,
            latency_us: us,
            samples: 33,
            rate: None,
            counters: netsplit_backend::Counters::default(),
        };
        SeenLink {
            from: "a".into(),
            to: to.to_string(),
            asked: Links { latency: Some(Duration::from_millis(asked_ms)), ..Links::default() },
            changed: false,
            measured: us.is_some().then_some(evidence),
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn the_worst_come_first_whatever_their_latency() {
        let mut links: Vec<SeenLink> = (0..20).map(|to| link(to, 20, Some(20_100), None)).collect();
        links.push(link(20, 20, None, None));
        links.push(link(21, 20, Some(20_900), None));
        // 1.5 ms of 100 ms is less far than 0.9 ms of 20 ms.
        links.push(link(22, 100, Some(101_500), None));
        links.push(link(23, 20, Some(20_000), Some("3 probes have come")));
        links.push(SeenLink { changed: true, ..link(24, 80, Some(80_000), None) });
        let summary = LinkSummary::of(links);
        assert_eq!((summary.total, summary.measured, summary.as_asked), (25, 24, 23));
        let order: Vec<&str> = summary.worst.iter().take(4).map(|link| link.to.as_str()).collect();
        assert_eq!((order, summary.worst.len()), (vec!["23", "24", "21", "22"], LinkSummary::WORST));
    }
}
