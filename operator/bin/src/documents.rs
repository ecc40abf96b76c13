//! Finding the testnet and the experiment that a command means, in files.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use netsplit_spec::{Document, Experiment, Files, NamedFile, Testnet};

use crate::problem::Usage;

/// All documents of a file.
pub fn read(path: &Path) -> Result<Vec<Document>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let advice = if error.kind() == std::io::ErrorKind::NotFound {
            " (`netsplit init` writes examples)"
        } else {
            ""
        };
        Usage(format!("cannot read {}: {error}{advice}", path.display()))
    })?;
    parse_at(&text, path)
}

/// All documents of the text of a file, with what the files hold that they name; every problem at once.
pub fn parse_at(text: &str, path: &Path) -> Result<Vec<Document>> {
    let documents = netsplit_spec::parse_with(text, &path.display().to_string(), &named_files(text, path));
    documents.map_err(|problems| Usage(problems.to_string()).into())
}

/// The same of a text that came without its files: they are left unread.
pub fn parse(text: &str, file: &str) -> Result<Vec<Document>> {
    netsplit_spec::parse(text, file).map_err(|problems| Usage(problems.to_string()).into())
}

/// The files that documents name, from beside the file that they stand in.
fn named_files(text: &str, path: &Path) -> Files {
    let file = |name: String| {
        let path = folder(path).join(&name);
        let text = read_bounded(&path).map_err(|error| error.to_string());
        (name, NamedFile { path: path.display().to_string(), text })
    };
    netsplit_spec::named_files(text).into_iter().map(file).collect()
}

/// One byte more than can be taken, so that what is too large is told as such.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    const MAX_BYTES: u64 = 1 << 20;
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The testnet of a file: the named one, or the only one.
pub fn testnet(documents: Vec<Document>, file: &str, name: Option<&str>) -> Result<Testnet> {
    let all = documents.into_iter().filter_map(|document| match document {
        Document::Testnet(testnet) => Some((testnet.name.clone(), testnet)),
        Document::Experiment(_) => None,
    });
    pick(all.collect(), "testnet", file, name)
}

/// The experiment of a file: the named one, or the only one.
pub fn experiment(documents: Vec<Document>, file: &str, name: Option<&str>) -> Result<Experiment> {
    let all = documents.into_iter().filter_map(|document| match document {
        Document::Experiment(experiment) => Some((experiment.name.clone(), experiment)),
        Document::Testnet(_) => None,
    });
    pick(all.collect(), "experiment", file, name)
}

fn pick<T>(mut all: Vec<(String, T)>, kind: &str, file: &str, name: Option<&str>) -> Result<T> {
    let names: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
    let place = match name {
        Some(name) => names.iter().position(|other| other == name).ok_or_else(|| {
            Usage(format!("{file} holds no {kind} `{name}`{}", crate::nearest::hint(name, &names)))
        })?,
        None if names.len() == 1 => 0,
        None if names.is_empty() => return Err(Usage(format!("{file} holds no {kind}")).into()),
        None => {
            return Err(
                Usage(format!("{file} holds several: say which {kind} of {}", names.join(", "))).into()
            );
        }
    };
    Ok(all.swap_remove(place).1)
}

/// Looks for a testnet in the YAML files beside `file`. Files that do not parse are passed over: they may be anything.
pub fn beside(file: &Path, name: &str) -> Result<Option<(PathBuf, Testnet)>> {
    let dir = folder(file);
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(documents) = parse_at(&text, &path) else { continue };
        for document in documents {
            if let Document::Testnet(testnet) = document
                && testnet.name == name
            {
                return Ok(Some((path, testnet)));
            }
        }
    }
    Ok(None)
}
