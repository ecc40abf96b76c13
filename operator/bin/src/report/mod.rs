//! A run's report: one HTML file for people, JSON and JUnit for programs.

mod chart;
mod html;
mod junit;
mod links;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::outcome::RunOutcome;

/// Writes `report.html`, `report.json` and `junit.xml` into the directory, which is made if need be.
pub fn write(dir: &Path, outcome: &RunOutcome) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let json = serde_json::to_string(outcome).context("cannot write the outcome as JSON")?;
    let files = [
        ("report.html", html::render(outcome)),
        ("report.json", json),
        ("junit.xml", junit::render(outcome)),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::sample;

    #[test]
    fn all_three_files_are_written_and_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a/b");
        write(&to, &sample::passed()).unwrap();
        write(&to, &sample::passed()).unwrap();
        let json = std::fs::read_to_string(to.join("report.json")).unwrap();
        let read: RunOutcome = serde_json::from_str(&json).unwrap();
        assert_eq!(read.series.points.len(), sample::passed().series.points.len());
        assert!(std::fs::read_to_string(to.join("report.html")).unwrap().starts_with("<!DOCTYPE html>"));
        assert!(std::fs::read_to_string(to.join("junit.xml")).unwrap().starts_with("<?xml"));
    }
}
