//! Published weights: from a cache, else fetched from the Hugging Face hub.

use std::path::PathBuf;

use anyhow::Context;
use clip_model::{Error, HubCache, OpenAiCache, Pretrained, Repository, find, shard_names};
use hub::Hub;

/// Files that a repository may have beside weights and configuration: preprocessing and tokenizer.
const OPTIONAL: [&str; 4] =
    ["preprocessor_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"];

/// The weight file of a published model: from a cache, else fetched into the cache of the hub and compared with its digest.
pub fn find_or_fetch(
    model: &Pretrained,
    cache: &HubCache,
    openai: &OpenAiCache,
    hub: &Hub,
) -> anyhow::Result<PathBuf> {
    let missing = match find(None, model, cache, openai) {
        Err(missing @ Error::NotFound { .. }) => missing,
        other => return Ok(other?),
    };
    for repository in model.repositories() {
        // What to put where stands first, why it was not fetched below.
        if fetch(hub, &repository).with_context(|| missing.to_string())? {
            return Ok(find(None, model, cache, openai)?);
        }
    }
    Err(missing.into())
}

/// Whether the repository held configuration and weights, which are in the cache now.
fn fetch(hub: &Hub, repository: &Repository) -> anyhow::Result<bool> {
    let repo = repository.name;
    if hub.fetch(repo, repository.config)?.is_none() {
        return Ok(false);
    }
    for file in OPTIONAL {
        // A repository without the file is fine; loading says what it misses.
        hub.fetch(repo, file)?;
    }
    for name in repository.weights {
        let Some(path) = hub.fetch(repo, name)? else { continue };
        for shard in shard_names(&path)?.iter().filter(|shard| shard != name) {
            hub.fetch(repo, shard)?
                .with_context(|| format!("`{repo}` has no `{shard}`, which `{name}` names"))?;
        }
        return Ok(true);
    }
    Ok(false)
}
