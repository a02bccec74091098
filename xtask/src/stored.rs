//! The artifacts that lie in a store, whatever pipeline they came from.

use anyhow::{Context, bail};
use pipeline_spec::{ArtifactId, Store};
use std::path::{Path, PathBuf};

/// A folder at the place of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its path.
    pub path: PathBuf,
    /// Which artifact it is; `None` if the name is not one that this build knows, as with another schema version.
    pub id: Option<ArtifactId>,
}

/// Every artifact folder of `store`, sorted. An absent store has none.
///
/// # Errors
///
/// Fails if a folder cannot be listed.
pub fn artifacts(store: &Store) -> anyhow::Result<Vec<Stored>> {
    let mut found = Vec::new();
    let is_kind = |path: &PathBuf| {
        let name = file_name(path);
        name.rsplit_once("-v").is_some_and(|(_, version)| version.parse::<u32>().is_ok())
    };
    for kind in folders(store.root())?.into_iter().filter(is_kind) {
        for dataset in folders(&kind)? {
            for path in folders(&dataset)? {
                let name = format!("{}/{}/{}", file_name(&kind), file_name(&dataset), file_name(&path));
                found.push(Stored { path, id: name.parse().ok() });
            }
        }
    }
    Ok(found)
}

/// The artifact with the name `name`, or the only one whose key starts with it.
///
/// # Errors
///
/// Fails if there is none, or more than one.
pub fn find(store: &Store, name: &str) -> anyhow::Result<ArtifactId> {
    if let Ok(id) = name.trim_end_matches('/').parse() {
        return Ok(id);
    }
    let mut found: Vec<ArtifactId> =
        artifacts(store)?.into_iter().filter_map(|artifact| artifact.id).collect();
    found.retain(|id| !name.is_empty() && id.key.as_str().starts_with(name));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => bail!("no artifact `{name}` in `{}`; `cargo xtask inspect` lists them", store.root().display()),
        more => bail!("`{name}` begins the keys of {more} artifacts; give more digits"),
    }
}

/// The folders in `path`, sorted; none if it does not exist.
///
/// # Errors
///
/// Fails if it cannot be listed.
pub fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = entries(path)?.into_iter().filter(|entry| entry.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// Everything in the folder `path`; nothing if it does not exist.
///
/// # Errors
///
/// Fails if it cannot be listed.
pub fn entries(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    };
    list().with_context(|| format!("cannot list `{}`", path.display()))
}

/// Last component of a path as text.
pub fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
