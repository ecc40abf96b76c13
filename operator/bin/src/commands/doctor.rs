//! `netsplit doctor`.

use anyhow::Result;
use netsplit_backend::local::{Check, CheckStatus};
use netsplit_plan::experiment::ExitCode;

use crate::{cli::JsonArgs, table, world::World};

pub async fn run(world: &dyn World, args: &JsonArgs) -> Result<ExitCode> {
    let checks = world.doctor().await?;
    let failed = checks.iter().any(|check| check.status == CheckStatus::Fail);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        let row = |check: &Check| {
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
        let verdict = if failed { "testnets cannot run yet" } else { "testnets can run" };
        println!("{verdict} {}", world.place());
    }
    Ok(if failed { ExitCode::Failed } else { ExitCode::Passed })
}
