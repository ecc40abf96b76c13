//! Packs of measured wide-area links. Their sources, dates and licences stand beside them, in `wan/README.md`.

use crate::links::MatrixRow;
use crate::read::matrix;

const PACKS: [(&str, &str); 5] = [
    ("aws-cometbft-e2e", include_str!("../wan/aws-cometbft-e2e.csv")),
    ("aws-gcp-2022-intercloud", include_str!("../wan/aws-gcp-2022-intercloud.csv")),
    ("seattle-peers", include_str!("../wan/seattle-peers.csv")),
    ("simblock-2015", include_str!("../wan/simblock-2015.csv")),
    ("simblock-2019", include_str!("../wan/simblock-2019.csv")),
];

/// The names of all packs.
pub fn names() -> Vec<&'static str> {
    PACKS.iter().map(|(name, _)| *name).collect()
}

/// A pack as it is kept: lines of `from,to,rtt_ms` below a line that says so, perhaps with a `rate`. Times are round
/// trips, in milliseconds.
pub fn text(name: &str) -> Option<&'static str> {
    PACKS.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

/// The rows of a pack.
pub(crate) fn rows(name: &str) -> Option<Vec<MatrixRow>> {
    // That no pack has a problem is tested.
    text(name).map(|text| matrix::read(text, &mut |_, _| {}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pack_is_read_in_whole() {
        for (name, text) in PACKS {
            let mut problems = Vec::new();
            let rows = matrix::read(text, &mut |line, problem| problems.push((line, problem)));
            assert_eq!(problems, [], "{name}");
            assert_eq!(rows.len(), text.lines().count() - 1, "{name}");
            let columns = text.lines().next().unwrap();
            assert!(["from,to,rtt_ms", "from,to,rtt_ms,rate"].contains(&columns), "{name}: {columns}");
        }
    }
}
