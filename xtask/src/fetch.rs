//! Source archives of a data set: from the cache, from a mirror folder, or by the registry's ordinary client.
//!
//! An archive stands at its final name only after its SHA-256 was found right; it is written beside it and
//! renamed.

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipeline_spec::data_manifest::{DataManifest, Registry, Source};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::terminal;

/// Lines of a client's messages that an error repeats.
const MAX_LINES: usize = 12;

/// A source archive that is missing or has other bytes than the manifest pins.
#[derive(Debug)]
pub struct BadSource(String);

impl fmt::Display for BadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSource {}

/// Brings every source archive of `manifest` to `<data_dir>/<dataset>/`, from the mirror folder `from` if one
/// is given, else by the client of its registry. Archives that are there already, with the right digest, are
/// kept.
///
/// # Errors
///
/// Fails if an archive cannot be had or has another digest than the manifest pins; nothing then stands at its
/// name.
pub fn fetch(manifest: &DataManifest, data_dir: &Path, from: Option<&Path>) -> anyhow::Result<()> {
    let started = Instant::now();
    let progress = Progress::new(manifest.sources.len());
    let mut num_new = 0;
    for source in &manifest.sources {
        let target = manifest.source_path(data_dir, source);
        if is_cached(source, &target, &progress)? {
            progress.finish_one();
            continue;
        }
        progress.show(format!("{}@{}", source.package, source.version));
        fetch_one(manifest, source, &target, from)
            .with_context(|| format!("cannot fetch `{}` of data set `{}`", source.id, manifest.dataset))?;
        progress.note(format!("fetched {} ({})", source.file, terminal::bytes(fs::metadata(&target)?.len())));
        progress.finish_one();
        num_new += 1;
    }
    progress.clear();
    terminal::note(format_args!(
        "data set `{}`: {} source archives in place, {num_new} of them new, in {}",
        manifest.dataset,
        manifest.sources.len(),
        terminal::duration(started.elapsed()),
    ));
    Ok(())
}

/// Checks that every source archive of `manifest` is there with the right digest; changes nothing.
///
/// # Errors
///
/// Fails with one line per archive that is missing or differs.
pub fn verify_sources(manifest: &DataManifest, data_dir: &Path) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for source in &manifest.sources {
        let path = manifest.source_path(data_dir, source);
        if !path.is_file() {
            problems.push(format!("`{}` is not there", path.display()));
        } else if let Some(found) = wrong_digest(source, &path)? {
            problems.push(format!("`{}` has sha256 {found}, expected {}", path.display(), source.sha256));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let problems = problems.join("\n");
    Err(BadSource(format!("{problems}\nrun `cargo xtask fetch {}`", manifest.dataset)).into())
}

/// Whether the archive is there; one with another digest is removed, because it must not be read by anyone.
fn is_cached(source: &Source, target: &Path, progress: &Progress) -> anyhow::Result<bool> {
    if !target.is_file() {
        return Ok(false);
    }
    let Some(found) = wrong_digest(source, target)? else { return Ok(true) };
    let (path, expected) = (target.display(), &source.sha256);
    progress.note(format!("`{path}` has sha256 {found}, expected {expected}: removed, to be fetched again"));
    fs::remove_file(target).with_context(|| format!("cannot remove `{path}`"))?;
    Ok(false)
}

fn fetch_one(
    manifest: &DataManifest,
    source: &Source,
    target: &Path,
    from: Option<&Path>,
) -> anyhow::Result<()> {
    let folder = target.parent().context("the data folder has no path")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let staging = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot write in `{}`", folder.display()))?;
    let (archive, origin) = match from {
        Some(mirror) => {
            let origin = in_mirror(manifest, source, mirror)?;
            let copy = staging.path().join("copy");
            fs::copy(&origin, &copy).with_context(|| format!("cannot copy `{}`", origin.display()))?;
            (copy, format!("`{}`", origin.display()))
        }
        None => match source.registry {
            Registry::Npm => (npm_pack(source, staging.path())?, "the npm registry".to_owned()),
        },
    };
    if let Some(found) = wrong_digest(source, &archive)? {
        let (file, expected) = (&source.file, &source.sha256);
        return Err(BadSource(format!(
            "`{file}` from {origin} has sha256 {found}, the manifest says {expected}; it was not kept. If the download was \
             damaged, fetch again; if the package was replaced upstream, do not use it: ask for the pinned file and fetch with \
             `--from DIR`"
        ))
        .into());
    }
    File::open(&archive).and_then(|file| file.sync_all()).context("cannot sync the archive")?;
    fs::rename(&archive, target).with_context(|| format!("cannot write `{}`", target.display()))
}

/// The archive in a mirror folder: `DIR/<file>` or `DIR/<dataset>/<file>`.
fn in_mirror(manifest: &DataManifest, source: &Source, mirror: &Path) -> anyhow::Result<PathBuf> {
    let flat = mirror.join(&source.file);
    let nested = manifest.source_path(mirror, source);
    if flat.is_file() {
        return Ok(flat);
    }
    if nested.is_file() {
        return Ok(nested);
    }
    let (flat, nested) = (flat.display(), nested.display());
    Err(BadSource(format!(
        "neither `{flat}` nor `{nested}` is there; put the file there or leave out `--from` to use the registry"
    ))
    .into())
}

/// Runs `npm pack` in `folder` and gives the archive it wrote. Scripts of the package are not run.
fn npm_pack(source: &Source, folder: &Path) -> anyhow::Result<PathBuf> {
    let package = format!("{}@{}", source.package, source.version);
    let child = Command::new("npm")
        .args(["pack", &package, "--ignore-scripts", "--loglevel=error", "--pack-destination", "."])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let output = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let file = &source.file;
            bail!(
                "`npm` is not installed; install Node.js, or put `{file}` into a folder and fetch with `--from DIR`"
            )
        }
        output => output.context("cannot start `npm`")?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().take(MAX_LINES).collect();
        let file = &source.file;
        bail!(
            "`npm pack {package}` ended with {}; without a network, fetch with `--from DIR` from a folder that holds \
             `{file}`\n{}",
            output.status,
            said.join("\n")
        );
    }
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|e| e == "tgz");
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let mut archives = entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter(is_archive);
    archives.next().with_context(|| format!("`npm pack {package}` wrote no archive"))
}

/// The SHA-256 of `path` if it is not the one that the manifest pins.
fn wrong_digest(source: &Source, path: &Path) -> anyhow::Result<Option<String>> {
    let (_, _, found) = pipeline_spec::file_digests(path)?;
    Ok((found != source.sha256).then(|| found.to_string()))
}

/// A bar over the archives on a terminal, plain lines elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(num_sources: usize) -> Self {
        let bar = terminal::is_interactive().then(|| {
            let bar = ProgressBar::with_draw_target(Some(num_sources as u64), ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} archives  {elapsed}  {msg}");
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar }
    }

    fn show(&self, package: String) {
        match &self.bar {
            Some(bar) => bar.set_message(package),
            None => terminal::note(format_args!("fetching {package}")),
        }
    }

    fn note(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal::note(line)),
            None => terminal::note(line),
        }
    }

    fn finish_one(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_spec::Digest;
    use pipeline_spec::data_manifest::{FolderForm, FolderSplit, Form};

    fn manifest(content: &[u8]) -> DataManifest {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tgz");
        fs::write(&path, content).unwrap();
        let sha256: Digest = pipeline_spec::file_digests(&path).unwrap().2;
        let text = |t: &str| t.to_owned();
        DataManifest {
            dataset: text("things").try_into().unwrap(),
            description: text("Things."),
            templates: vec![text("a {}")],
            sources: vec![Source {
                id: text("a"),
                registry: Registry::Npm,
                package: text("a"),
                version: text("1.0.0"),
                file: text("a-1.0.0.tgz"),
                sha256,
                license: text("MIT"),
                attribution: text("A"),
                url: text("a"),
            }],
            form: Form::Folder(FolderForm {
                root: text("."),
                classes: None,
                split: FolderSplit::Percent([(text("train"), 100)].into()),
                expected: None,
            }),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn archive_comes_from_the_mirror_and_then_from_the_cache() {
        let (data, mirror) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = manifest(b"right");
        fs::write(mirror.path().join("a-1.0.0.tgz"), "right").unwrap();
        fetch(&manifest, data.path(), Some(mirror.path())).unwrap();
        assert_eq!(names(&data.path().join("things")), ["a-1.0.0.tgz"]);
        fs::remove_file(mirror.path().join("a-1.0.0.tgz")).unwrap();
        fetch(&manifest, data.path(), Some(mirror.path())).unwrap();
        verify_sources(&manifest, data.path()).unwrap();
    }

    #[test]
    fn wrong_digest_leaves_nothing_and_says_what_to_do() {
        let (data, mirror) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = manifest(b"right");
        fs::create_dir(mirror.path().join("things")).unwrap();
        fs::write(mirror.path().join("things/a-1.0.0.tgz"), "wrong").unwrap();
        let error = fetch(&manifest, data.path(), Some(mirror.path())).unwrap_err();
        let message = format!("{error:#}");
        for part in ["a-1.0.0.tgz", manifest.sources[0].sha256.as_str(), "--from DIR", "not kept"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(error.downcast_ref::<BadSource>().is_some());
        assert!(names(&data.path().join("things")).is_empty());
    }

    #[test]
    fn damaged_cache_is_replaced_and_verified() {
        let (data, mirror) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = manifest(b"right");
        let target = manifest.source_path(data.path(), &manifest.sources[0]);
        let missing = verify_sources(&manifest, data.path()).unwrap_err().to_string();
        assert!(
            missing.contains("is not there") && missing.contains("cargo xtask fetch things"),
            "{missing}"
        );
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, "damaged").unwrap();
        assert!(verify_sources(&manifest, data.path()).unwrap_err().to_string().contains("expected"));
        let error = fetch(&manifest, data.path(), Some(mirror.path())).unwrap_err();
        assert!(format!("{error:#}").contains("neither"), "{error:#}");
        assert!(!target.exists());
        fs::write(mirror.path().join("a-1.0.0.tgz"), "right").unwrap();
        fetch(&manifest, data.path(), Some(mirror.path())).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"right");
    }
}
