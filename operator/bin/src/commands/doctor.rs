//! `netsplit doctor`.

use anyhow::Result;
use netsplit_backend::local::{self, CheckStatus};
use netsplit_plan::experiment::ExitCode;

use crate::{cli::JsonArgs, table};

pub async fn run(args: &JsonArgs) -> Result<ExitCode> {
    let scratch = std::env::temp_dir().join(format!("netsplit-doctor-{}", std::process::id()));
    let checks = local::doctor(local::LocalConfig::new(scratch.clone())?).await;
    std::fs::remove_dir_all(&scratch).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let failed = checks.iter().any(|check| check.status == CheckStatus::Fail);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        let row = |check: &local::Check| {
            let status = match check.status {
                CheckStatus::Ok => "fine",
                CheckStatus::Warn => "limited",
                CheckStatus::Fail => "MISSING",
            };
            let gap = if check.fix.is_empty() { "" } else { ": " };
            vec![check.name.clone(), status.to_owned(), format!("{}{gap}{}", check.detail, check.fix)]
        };
        let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
        print!("{}", table::render(&["CHECK", "RESULT", "DETAIL"], &rows));
        println!(
            "{}",
            if failed { "this machine cannot run testnets yet" } else { "this machine can run testnets" }
        );
    }
    Ok(if failed { ExitCode::Failed } else { ExitCode::Passed })
}
