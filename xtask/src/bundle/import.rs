//! `import`: the artifacts of a bundle into a store. Nothing in a bundle is believed: every digest is computed again.

use anyhow::{Context, bail, ensure};
use clap::Args;
use pipeline_spec::{
    ArtifactId, ArtifactRecord, CheckpointRef, Pipeline, Plan, Store, checkpoint_digest, file_blake3,
};
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::bundle::{BundledFile, CONTENTS_FILE, Contents, FORMAT, is_below};
use crate::options::PlanOptions;
use crate::{plan_files, terminal, workspace};

/// Entries that an archive may have.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of the description of a bundle.
const MAX_CONTENTS_BYTES: u64 = 256 << 20;

/// Import what `export` wrote into the store, the weights and the manifests of this workspace
///
/// Digests are computed again before anything is put in place. What is there already with the same content is kept; what
/// is there with other content is an error.
#[derive(Args)]
pub struct Import {
    /// A folder or a `.tar.zst` file that `export` wrote
    bundle: PathBuf,
    #[command(flatten)]
    plan: PlanOptions,
}

impl Import {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.plan.store.store();
        let tmp = store.tmp_dir();
        fs::create_dir_all(&tmp).with_context(|| format!("cannot create `{}`", tmp.display()))?;
        // On the store's file system, so that files are moved into place.
        let staging = tempfile::Builder::new().prefix("import-").tempdir_in(&tmp);
        let staging = staging.with_context(|| format!("cannot write in `{}`", tmp.display()))?;
        let folder = if self.bundle.is_dir() {
            self.bundle.clone()
        } else {
            unpack(&self.bundle, staging.path())
                .with_context(|| format!("cannot unpack `{}`", self.bundle.display()))?;
            staging.path().to_path_buf()
        };
        let contents = read_contents(&folder)?;
        let bundled = Store::new(folder.join("store"));
        contents.artifacts.par_iter().try_for_each(|id| verify(&bundled, id))?;
        for file in &contents.files {
            self.import_file(file, &folder)?;
        }
        for checkpoint in &contents.checkpoints {
            self.import_checkpoint(checkpoint, &folder)?;
        }
        let mut num_new = 0;
        for id in &contents.artifacts {
            num_new += usize::from(import_artifact(&bundled, &store, id)?);
        }
        terminal::note(format_args!(
            "{} artifacts, {num_new} of them new, in `{}`",
            contents.artifacts.len(),
            store.root().display()
        ));
        if let Some(expected) = &contents.plan {
            self.check_plan(&contents, expected)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Where a file of the bundle belongs.
    fn place(&self, path: &str) -> PathBuf {
        match path.strip_prefix("data-manifests/") {
            Some(name) => self.plan.manifests().join(name),
            None => workspace::path(path),
        }
    }

    fn import_file(&self, file: &BundledFile, folder: &Path) -> anyhow::Result<()> {
        let (source, target) = (folder.join(&file.path), self.place(&file.path));
        let found = file_blake3(&source)?.1;
        ensure!(found == file.blake3, "`{}` has blake3 {found}, expected {}", source.display(), file.blake3);
        if target.exists() {
            let present = file_blake3(&target)?.1;
            // What a pipeline is called or says beside its units changes no key.
            ensure!(
                present == file.blake3,
                "`{}` is there with other content; move it away, or import into another folder",
                target.display()
            );
            return Ok(());
        }
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        copy(&source, &target, folder)
    }

    fn import_checkpoint(&self, checkpoint: &CheckpointRef, folder: &Path) -> anyhow::Result<()> {
        let source = folder.join("models").join(&checkpoint.id);
        let target = self.plan.weights().join(&checkpoint.id);
        let check = |path: &Path| {
            let found = checkpoint_digest(path)?;
            let (path, expected) = (path.display(), &checkpoint.digest);
            ensure!(found == *expected, "`{path}` has digest {found}, expected {expected}");
            anyhow::Ok(())
        };
        check(&source)?;
        if target.exists() {
            return check(&target);
        }
        copy_folder(&source, &target)
    }

    /// Whether the pipeline that came along plans the same units here.
    fn check_plan(&self, contents: &Contents, expected: &str) -> anyhow::Result<()> {
        let mut pipelines = contents.files.iter().filter(|file| file.path.starts_with("pipelines/"));
        let Some(file) = pipelines.next() else { return Ok(()) };
        let path = self.place(&file.path);
        if contents.checkpoints.iter().any(|checkpoint| !self.plan.weights().join(&checkpoint.id).is_dir()) {
            return Ok(());
        }
        let plan = Pipeline::read(&path)
            .and_then(|pipeline| Plan::new(pipeline, &self.plan.manifests(), &self.plan.weights()));
        match plan {
            Ok(plan) if plan.id() == expected => {
                terminal::note(format_args!("`{}` has the same keys here", path.display()));
            }
            Ok(plan) => bail!("`{}` is plan {} here and was {expected} there", path.display(), plan.id()),
            Err(error) => {
                terminal::note(format_args!("`{}` cannot be planned here: {error}", path.display()));
            }
        }
        Ok(())
    }
}

fn read_contents(folder: &Path) -> anyhow::Result<Contents> {
    let path = folder.join(CONTENTS_FILE);
    let read = || {
        let mut bytes = Vec::new();
        File::open(&path)?.take(MAX_CONTENTS_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().with_context(|| format!("`{}` is no bundle", folder.display()))?;
    let contents: Contents =
        serde_json::from_slice(&bytes).with_context(|| format!("`{}` cannot be read", path.display()))?;
    ensure!(
        contents.format == FORMAT,
        "`{}` has format {}, expected {FORMAT}",
        path.display(),
        contents.format
    );
    for file in &contents.files {
        ensure!(is_below(Path::new(&file.path)), "`{}`: `{}` leads out of it", path.display(), file.path);
    }
    for checkpoint in &contents.checkpoints {
        let is_name = is_below(Path::new(&checkpoint.id));
        ensure!(is_name, "`{}`: checkpoint `{}` leads out of it", path.display(), checkpoint.id);
    }
    Ok(contents)
}

/// Every part of an artifact against its record, and the record against its name.
fn verify(store: &Store, id: &ArtifactId) -> anyhow::Result<()> {
    let record = store.record(id)?;
    let output = record.unit.output();
    let is_current = record.code_version == record.unit.spec.code_version();
    ensure!(!is_current || output == *id, "the record of `{id}` is that of `{output}`");
    for part in &record.parts {
        part.verify(&store.data_dir(id))?;
    }
    Ok(())
}

/// Puts an artifact in place, its record last; tells whether it was new.
fn import_artifact(from: &Store, to: &Store, id: &ArtifactId) -> anyhow::Result<bool> {
    let record = from.record(id)?;
    if to.contains(id) {
        let present = to.record(id)?.content_digest();
        if present != record.content_digest() {
            terminal::note(format_args!("`{id}` is there with other bytes ({present}); it was kept"));
        }
        return Ok(false);
    }
    for part in &record.parts {
        copy(&from.data_dir(id).join(&part.file), &to.data_dir(id).join(&part.file), &to.tmp_dir())?;
    }
    copy(&from.record_path(id), &to.record_path(id), &to.tmp_dir())?;
    // As it is in the store now.
    let stored = ArtifactRecord::read(&to.record_path(id), id)?;
    ensure!(
        to.contains(id) && stored.content_digest() == record.content_digest(),
        "`{id}` was not imported whole"
    );
    Ok(true)
}

/// Copies a file into `tmp`, syncs it and renames it.
fn copy(from: &Path, to: &Path, tmp: &Path) -> anyhow::Result<()> {
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
        let mut file = plan_files::temporary(tmp)?;
        std::io::copy(&mut File::open(from)?, &mut file)?;
        file.as_file().sync_all()?;
        file.persist(to).map_err(|error| error.error)?;
        std::io::Result::Ok(())
    };
    copy().with_context(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))
}

/// Copies a folder under another name and renames it.
fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    let staging = tempfile::Builder::new().prefix(".import-").tempdir_in(parent);
    let staging = staging.with_context(|| format!("cannot write in `{}`", parent.display()))?;
    copy_files(from, &staging.path().join("folder"), staging.path())?;
    fs::rename(staging.path().join("folder"), to).with_context(|| format!("cannot write `{}`", to.display()))
}

fn copy_files(from: &Path, to: &Path, tmp: &Path) -> anyhow::Result<()> {
    for path in crate::stored::entries(from)? {
        let target = to.join(crate::stored::file_name(&path));
        if path.is_dir() { copy_files(&path, &target, tmp)? } else { copy(&path, &target, tmp)? }
    }
    Ok(())
}

/// Unpacks an archive: ordinary files below `folder`, each name once, and nothing else.
fn unpack(archive: &Path, folder: &Path) -> anyhow::Result<()> {
    let decoder = zstd::Decoder::new(BufReader::new(File::open(archive)?))?;
    let mut archive = tar::Archive::new(decoder);
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        ensure!(index < MAX_ENTRIES, "more than {MAX_ENTRIES} entries");
        ensure!(entry.header().entry_type().is_file(), "entry `{}` is no ordinary file", path.display());
        ensure!(is_below(&path), "entry `{}` leads out of the archive", path.display());
        let target = folder.join(&path);
        fs::create_dir_all(target.parent().unwrap_or(folder))?;
        let file = File::options().write(true).create_new(true).open(&target);
        let mut file = file.with_context(|| format!("cannot write entry `{}`", path.display()))?;
        std::io::copy(&mut entry, &mut file)?;
    }
    Ok(())
}
