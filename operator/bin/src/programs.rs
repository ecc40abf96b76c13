//! Where the programs are that nodes run.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use netsplit_backend::local::{Check, CheckStatus, LocalConfig, is_program};
use netsplit_chains::Program;
use netsplit_spec::Chain;

/// The program as the user's environment says, else where programs are searched for.
pub fn find(program: Program, config: &LocalConfig) -> Result<PathBuf> {
    let given = program.variable.and_then(|variable| Some((variable, std::env::var_os(variable)?)));
    find_given(program, given.filter(|(_, file)| !file.is_empty()), config)
}

fn find_given(program: Program, given: Option<(&str, OsString)>, config: &LocalConfig) -> Result<PathBuf> {
    let Program { name, remedy, .. } = program;
    let Some((variable, file)) = given else {
        let found = config.program(name);
        return found
            .ok_or_else(|| anyhow!("there is no program `{name}` beside netsplit or on the PATH: {remedy}"));
    };
    // A node runs in a directory of its own.
    let file = std::path::absolute(Path::new(&file)).with_context(|| format!("{variable} is no path"))?;
    ensure!(is_program(&file), "{variable} is {}, which is no program: {remedy}", file.display());
    Ok(file)
}

/// One check a chain: only the default one's program must be there.
pub fn checks(config: &LocalConfig) -> Vec<Check> {
    let check = |chain: Chain| {
        let program = netsplit_chains::of(chain).program();
        let (status, detail, fix) = match find(program, config) {
            Ok(file) => (CheckStatus::Ok, file.display().to_string(), String::new()),
            Err(error) if chain == Chain::default() => {
                (CheckStatus::Fail, "absent".to_owned(), format!("{error:#}"))
            }
            Err(error) => {
                let detail =
                    format!("absent; needed only for `chain: {{{}: {{}}}}`: {error:#}", chain.as_str());
                (CheckStatus::Ok, detail, String::new())
            }
        };
        Check { name: program.name.to_owned(), status, detail, fix }
    };
    Chain::ALL.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PROGRAM: Program = Program { name: "a-chain", variable: Some("A_CHAIN"), remedy: "build it" };

    #[test]
    fn what_the_environment_names_goes_before_what_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (found, named) = (dir.path().join("a-chain"), dir.path().join("other"));
        let config = LocalConfig {
            program_dirs: vec![dir.path().to_owned()],
            ..LocalConfig::new(dir.path().to_owned()).unwrap()
        };
        let given = || Some(("A_CHAIN", named.clone().into_os_string()));
        let refused = find_given(PROGRAM, None, &config).unwrap_err().to_string();
        assert_eq!(refused, "there is no program `a-chain` beside netsplit or on the PATH: build it");

        std::fs::write(&found, "").unwrap();
        std::fs::write(&named, "").unwrap();
        assert!(find_given(PROGRAM, None, &config).is_err(), "nobody may run it");
        let refused = find_given(PROGRAM, given(), &config).unwrap_err().to_string();
        assert!(refused.contains("which is no program: build it"), "{refused}");

        for file in [&found, &named] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(find_given(PROGRAM, None, &config).unwrap(), found);
        assert_eq!(find_given(PROGRAM, given(), &config).unwrap(), named);
    }
}
