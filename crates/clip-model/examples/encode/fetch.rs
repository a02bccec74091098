//! Fetching published weights with the clients that people have: `hf` of huggingface_hub, which keeps `HF_TOKEN`,
//! `HF_ENDPOINT`, `HF_HOME` and the locks of the cache, and `curl` for files that only stand at an address.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, bail};
use clip_model::{Error, HubCache, OpenAiCache, Pretrained, find};

/// Files that a repository may have beside weights and configuration: preprocessing and tokenizer.
const OPTIONAL: [&str; 4] =
    ["preprocessor_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"];

/// The weight file of a published model: from a cache, else fetched into one and compared with its digest.
pub fn find_or_fetch(model: &Pretrained, hub: &HubCache, openai: &OpenAiCache) -> anyhow::Result<PathBuf> {
    let missing = match find(None, model, hub, openai) {
        Err(error @ Error::NotFound { .. }) => error,
        other => return Ok(other?),
    };
    if is_offline() {
        return Err(anyhow::Error::from(missing).context("`HF_HUB_OFFLINE` is set, so nothing is fetched"));
    }
    let repositories = [
        (model.transformers_repo, "config.json", ["model.safetensors", "pytorch_model.bin"]),
        (
            model.open_clip_repo,
            "open_clip_config.json",
            ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
        ),
    ];
    for (repo, config, weights) in repositories {
        let Some(repo) = repo else { continue };
        if fetch_from_hub(hub, repo, config, weights)? {
            return Ok(find(None, model, hub, openai)?);
        }
    }
    if let (Some(url), Some(name)) = (model.url(), model.file_name()) {
        fetch_address(&url, model, &openai.root.join(name))?;
        return Ok(find(None, model, hub, openai)?);
    }
    Err(anyhow::Error::from(missing)
        .context("the client `hf` is not installed (`pip install huggingface_hub`)"))
}

/// Whether the user forbids the network, by the values that huggingface_hub takes for true.
fn is_offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
}

/// Whether the client fetched the files; false if there is no client.
fn fetch_from_hub(hub: &HubCache, repo: &str, config: &str, weights: [&str; 2]) -> anyhow::Result<bool> {
    let download = |file: &str| {
        eprintln!("fetching `{file}` of `{repo}` with `hf download`");
        run(Command::new("hf").args(["download", repo, file, "--cache-dir"]).arg(&hub.root))
    };
    match download(config)? {
        None => return Ok(false),
        Some(status) if status.success() => {}
        Some(status) => bail!("`hf download {repo} {config}` failed ({status}); see its message above"),
    }
    for file in OPTIONAL {
        // A repository without the file is fine; loading says what it misses.
        download(file)?;
    }
    for file in weights {
        if download(file)?.is_some_and(|status| status.success()) {
            return Ok(true);
        }
    }
    bail!("`hf download {repo}` gave neither `{}` nor `{}`; see its messages above", weights[0], weights[1])
}

/// Fetches a file beside its name and renames it once its digest is right.
fn fetch_address(url: &str, model: &Pretrained, target: &Path) -> anyhow::Result<()> {
    eprintln!("fetching `{url}` with `curl`");
    let folder = target.parent().context("the cache has no path")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let part = target.with_extension(format!("{}.part", std::process::id()));
    let mut command = Command::new("curl");
    command.args(["--fail", "--location", "--retry", "3", "--output"]).arg(&part).arg(url);
    let fetched = match run(&mut command)? {
        None => bail!("neither `hf` nor `curl` is installed; {}", by_hand(url, target)),
        Some(status) if !status.success() => {
            Err(anyhow::anyhow!("`curl` failed ({status}); {}", by_hand(url, target)))
        }
        Some(_) => model.check_digest(&part).map_err(anyhow::Error::from),
    };
    let renamed = fetched.and_then(|()| Ok(std::fs::rename(&part, target)?));
    if renamed.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    renamed
}

fn by_hand(url: &str, target: &Path) -> String {
    format!("put `{url}` at `{}`", target.display())
}

/// Runs a client; `None` if it is not installed.
fn run(command: &mut Command) -> anyhow::Result<Option<ExitStatus>> {
    match command.status() {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot run {:?}", command.get_program())),
    }
}
