//! Finding weights: the caller's path, else the caches of the Hugging Face hub and of OpenAI's code. Nothing is downloaded.

use std::env;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::weights::shard_names;

use super::files::{
    CONFIG, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, TRANSFORMERS_WEIGHTS, snapshot, weight_file,
};
use super::layouts::Layout;
use super::pretrained::{Pretrained, check_sha256};

/// The cache of the Hugging Face hub: `models--<organisation>--<name>/{refs,snapshots}`.
#[derive(Debug, Clone)]
pub struct HubCache {
    /// The folder with the repositories.
    pub root: PathBuf,
}

/// The folder in which OpenAI's code and open_clip keep `.pt` files.
#[derive(Debug, Clone)]
pub struct OpenAiCache {
    /// The folder with the files.
    pub root: PathBuf,
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn cache_home() -> PathBuf {
    let home = || variable("HOME").unwrap_or_else(|| PathBuf::from("."));
    variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"))
}

impl HubCache {
    /// The cache that `huggingface_hub` uses: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in the user's cache.
    pub fn from_env() -> Self {
        let root = variable("HF_HUB_CACHE")
            .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
            .unwrap_or_else(|| cache_home().join("huggingface").join("hub"));
        HubCache { root }
    }

    /// Folder of a repository, whether or not it is there.
    pub fn repository(&self, repo: &str) -> PathBuf {
        self.root.join(format!("models--{}", repo.replace('/', "--")))
    }

    /// Folder with the files of a repository's revision, if it was fetched.
    pub fn snapshot(&self, repo: &str, revision: &str) -> Option<PathBuf> {
        snapshot(&self.repository(repo), revision)
    }
}

impl OpenAiCache {
    /// `~/.cache/clip`, as in OpenAI's `clip.load`.
    pub fn from_env() -> Self {
        let home = variable("HOME").unwrap_or_else(|| PathBuf::from("."));
        OpenAiCache { root: home.join(".cache").join("clip") }
    }
}

/// The weight file to read: `weights` (a file or a folder) if given, else the published model from a cache.
///
/// A file from a cache is compared with its digest: OpenAI's is published, the hub's cache names large files by it.
///
/// # Errors
///
/// Fails if the path holds no weights, if no cache has the model (the error says what to put where) or if the digest differs.
pub fn find(
    weights: Option<&Path>,
    model: &Pretrained,
    hub: &HubCache,
    openai: &OpenAiCache,
) -> Result<PathBuf, Error> {
    if let Some(path) = weights {
        return weight_file(path);
    }
    for repository in model.repositories() {
        let Some(folder) = hub.snapshot(repository.name, "main") else { continue };
        for name in repository.weights {
            let file = folder.join(name);
            if !file.is_file() {
                continue;
            }
            let parts: Vec<PathBuf> = shard_names(&file)?.into_iter().map(|name| folder.join(name)).collect();
            // An index of which some files are still to be fetched is not the model.
            if parts.iter().all(|part| part.is_file()) {
                for part in &parts {
                    if let Some(digest) = blob_digest(part) {
                        check_sha256(part, &digest)?;
                    }
                }
                return Ok(file);
            }
        }
    }
    if let Some(name) = model.file_name() {
        let file = openai.root.join(name);
        if file.is_file() {
            model.check_digest(&file)?;
            return Ok(file);
        }
    }
    Err(Error::NotFound { model: model.to_string(), remedies: remedies(model, hub, openai) })
}

/// The SHA-256 by which the hub's cache names a large file: a snapshot holds links to `blobs/<digest>`.
fn blob_digest(file: &Path) -> Option<String> {
    let blob = file.canonicalize().ok()?;
    let name = blob.file_name()?.to_str()?;
    let is_blob = blob.parent()?.file_name()? == "blobs" && name.len() == 64;
    (is_blob && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| name.to_owned())
}

/// A repository of the Hugging Face hub that holds a published model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repository {
    /// `organisation/name`.
    pub name: &'static str,
    /// Layout of its weights.
    pub layout: Layout,
    /// Name of its configuration.
    pub config: &'static str,
    /// Names that its weights may have, preferred first. [`crate::shard_names`] tells the files that an index joins.
    pub weights: &'static [&'static str],
}

impl Pretrained {
    /// The repositories that hold these weights, preferred first.
    pub fn repositories(&self) -> impl Iterator<Item = Repository> {
        let transformers = self.transformers_repo.map(|name| Repository {
            name,
            layout: Layout::Transformers,
            config: CONFIG,
            weights: &TRANSFORMERS_WEIGHTS,
        });
        let open_clip = self.open_clip_repo.map(|name| Repository {
            name,
            layout: Layout::OpenClip,
            config: OPEN_CLIP_CONFIG,
            weights: &OPEN_CLIP_WEIGHTS,
        });
        transformers.into_iter().chain(open_clip)
    }

    /// The weights that a repository (`openai/clip-vit-base-patch32`) holds.
    ///
    /// # Errors
    ///
    /// Fails for another name, with the known ones.
    pub fn by_repository(name: &str) -> Result<&'static Pretrained, Error> {
        let mut all = Self::all().iter();
        let holds = |weights: &&Pretrained| weights.repositories().any(|repository| repository.name == name);
        all.find(holds).ok_or_else(|| Error::UnknownName {
            what: "repository",
            name: name.to_owned(),
            known: Self::all()
                .iter()
                .flat_map(Self::repositories)
                .map(|known| known.name.to_owned())
                .collect(),
        })
    }
}

/// What would make the model be found.
fn remedies(model: &Pretrained, hub: &HubCache, openai: &OpenAiCache) -> Vec<String> {
    let mut remedies = vec!["pass a weight file or its folder with `--weights`".to_owned()];
    if let Some(name) = model.file_name() {
        let (path, url) = (openai.root.join(name), model.url().unwrap_or_default());
        remedies.push(format!("put `{url}` at `{}`", path.display()));
    }
    for Repository { name: repo, config, weights, .. } in model.repositories() {
        let (name, cache) = (weights[0], hub.root.display());
        remedies.push(format!(
            "fetch `{name}` and `{config}` of `{repo}` into the hub cache `{cache}` (`hf download {repo}`)"
        ));
    }
    remedies
}
