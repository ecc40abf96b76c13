//! What may be a name.

use super::RenderError;
use crate::{
    backend::{NodeArtifacts, NodeFile},
    kubernetes::config::{KubernetesConfig, MAX_SET_NAME},
};

/// A DNS label: the testnet is a Service, and its pods are hosts below it.
const MAX_LABEL: usize = 63;

pub(super) fn check_names(config: &KubernetesConfig) -> Result<(), RenderError> {
    check(&config.testnet, MAX_LABEL)?;
    config.groups.iter().try_for_each(|group| check(&config.set_name(&group.name), MAX_SET_NAME))
}

fn check(name: &str, limit: usize) -> Result<(), RenderError> {
    if name.len() > limit {
        return Err(RenderError::NameTooLong { name: name.to_owned(), length: name.len(), limit });
    }
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good =
        name.bytes().all(inner) && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-');
    good.then_some(()).ok_or_else(|| RenderError::Name { name: name.to_owned() })
}

/// The key under which a file is kept: its path, with dots between folders.
pub(super) fn key_of(node: &NodeArtifacts, file: &NodeFile) -> Result<String, RenderError> {
    let refused = || RenderError::FileName { node: node.node.clone(), path: file.path.display().to_string() };
    let path = file.path.to_str().ok_or_else(refused)?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let escapes = path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    let key = path.replace('/', ".");
    let same = node
        .files
        .iter()
        .filter(|other| other.path.to_str().is_some_and(|other| other.replace('/', ".") == key));
    if escapes || !path.bytes().all(good) || same.count() != 1 {
        return Err(refused());
    }
    Ok(key)
}
