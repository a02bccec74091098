//! Names of weight files, and which of a folder's files is read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

use super::architectures::Backbone;

/// The configuration of a transformers checkpoint.
pub(super) const CONFIG: &str = "config.json";
/// The preprocessing of a transformers checkpoint.
pub(super) const PREPROCESS: &str = "preprocessor_config.json";
/// The configuration of an open_clip checkpoint.
pub(super) const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
/// Weight files of transformers, preferred first; an index joins the files of a large model.
pub(super) const TRANSFORMERS_WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// Weight files of open_clip, preferred first.
pub(super) const OPEN_CLIP_WEIGHTS: [&str; 2] =
    ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];

/// The file itself; of a folder, its safetensors file, else its pickle, else the one file of OpenAI.
pub(super) fn weight_file(path: &Path) -> Result<PathBuf, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(path.to_owned());
    }
    let folder = snapshot(path, "main").unwrap_or_else(|| path.to_owned());
    let [model, model_index, pytorch, pytorch_index] = TRANSFORMERS_WEIGHTS;
    let [open_clip, open_clip_pytorch] = OPEN_CLIP_WEIGHTS;
    let hub = [model, model_index, open_clip, pytorch, pytorch_index, open_clip_pytorch];
    if let Some(file) = hub.into_iter().map(|name| folder.join(name)).find(|file| file.is_file()) {
        return Ok(file);
    }
    let original = Backbone::all().iter().map(Backbone::file_name);
    let mut found: Vec<String> = original.clone().filter(|name| folder.join(name).is_file()).collect();
    match found.pop() {
        Some(name) if found.is_empty() => Ok(folder.join(name)),
        Some(name) => {
            found.push(name);
            Err(Error::SeveralWeights { path: folder, names: found })
        }
        None => {
            let names = hub.into_iter().map(str::to_owned).chain(original).collect();
            Err(Error::NoWeights { path: folder, names })
        }
    }
}

/// The folder of a revision in a repository of the Hugging Face cache: `refs/<revision>` names a commit, its files lie in
/// `snapshots/<commit>`.
pub(super) fn snapshot(repository: &Path, revision: &str) -> Option<PathBuf> {
    let commit = fs::read_to_string(repository.join("refs").join(revision)).ok()?;
    let commit = commit.trim();
    // The name of a commit, never a path out of the cache.
    let is_name = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let snapshot = repository.join("snapshots").join(commit);
    (is_name && snapshot.is_dir()).then_some(snapshot)
}
