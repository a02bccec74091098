//! `export`: artifacts with everything needed to repeat them.

use anyhow::{Context, ensure};
use clap::Args;
use pipeline_spec::spec::PromptProvider;
use pipeline_spec::{ArtifactId, CheckpointRef, StageSpec, Store, checkpoint_digest, file_blake3};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::bundle::{BundledFile, CONTENTS_FILE, Contents, FORMAT, is_below};
use crate::options::PlanOptions;
use crate::{plan_files, stored, terminal};

/// Level of zstd: the parts are compressed already.
const ZSTD_LEVEL: i32 = 1;

/// Export an artifact, or the whole result of a pipeline, with everything needed to repeat it
///
/// With an artifact go all that it was made from, the data manifest and the checkpoints. Sources of images stay out: their
/// manifest pins them, and `fetch` gets them.
#[derive(Args)]
pub struct Export {
    /// A pipeline file, an artifact's name, or the first digits of its key
    what: String,
    /// A folder to be made, or a file that ends in `.tar.zst`
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Leave the checkpoints out
    #[arg(long)]
    without_weights: bool,
    #[command(flatten)]
    plan: PlanOptions,
}

/// What goes into a bundle: path in it to path here.
type Files = BTreeMap<PathBuf, PathBuf>;

impl Export {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(!self.out.exists(), "`{}` exists already", self.out.display());
        let store = self.plan.store.store();
        let (mut contents, mut files) = (self.contents(&store)?, Files::new());
        for id in &contents.artifacts {
            add_artifact(&store, id, &mut files)?;
        }
        for checkpoint in &contents.checkpoints {
            let folder = self.plan.weights().join(&checkpoint.id);
            add_folder(&folder, &Path::new("models").join(&checkpoint.id), &mut files)?;
        }
        self.add_other_files(&store, &mut contents, &mut files)?;
        let description = serde_json::to_vec_pretty(&contents)?;
        if self.out.to_string_lossy().ends_with(".tar.zst") {
            write_archive(&self.out, &description, &files)?;
        } else {
            write_folder(&self.out, &description, &files)?;
        }
        let size = files.values().map(|path| Ok(fs::metadata(path)?.len())).sum::<std::io::Result<u64>>()?;
        terminal::note(format_args!(
            "{} artifacts, {} checkpoints, {} files, {}",
            contents.artifacts.len(),
            contents.checkpoints.len(),
            files.len(),
            terminal::bytes(size)
        ));
        terminal::print(self.out.display());
        Ok(ExitCode::SUCCESS)
    }

    /// The artifacts and checkpoints to export.
    fn contents(&self, store: &Store) -> anyhow::Result<Contents> {
        let path = PathBuf::from(&self.what);
        let (wanted, plan) = if path.is_file() {
            let plan = self.plan.plan(Some(&path))?;
            let missing = plan.units.iter().filter(|planned| !store.contains(&planned.output)).count();
            ensure!(missing == 0, "{missing} units of `{}` are not in the store", path.display());
            (plan.units.iter().map(|planned| planned.output.clone()).collect(), Some(plan))
        } else {
            (vec![stored::find(store, &self.what)?], None)
        };
        let artifacts = closure(store, wanted)?;
        let mut checkpoints: Vec<CheckpointRef> = Vec::new();
        for id in &artifacts {
            for checkpoint in checkpoints_of(&store.record(id)?.unit.spec) {
                if !self.without_weights && !checkpoints.contains(checkpoint) {
                    self.check(checkpoint)?;
                    checkpoints.push(checkpoint.clone());
                }
            }
        }
        let plan = plan.map(|plan| plan.id());
        Ok(Contents { format: FORMAT, artifacts, checkpoints, files: vec![], plan })
    }

    fn check(&self, checkpoint: &CheckpointRef) -> anyhow::Result<()> {
        let folder = self.plan.weights().join(&checkpoint.id);
        let found = checkpoint_digest(&folder)?;
        ensure!(
            found == checkpoint.digest,
            "`{}` has digest {found}, the artifacts were made with {}; give the folder of those by `--weights`",
            folder.display(),
            checkpoint.digest
        );
        Ok(())
    }

    /// Adds manifests, prompt files, the pipeline and the plan.
    fn add_other_files(
        &self,
        store: &Store,
        contents: &mut Contents,
        files: &mut Files,
    ) -> anyhow::Result<()> {
        let mut others: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for id in &contents.artifacts {
            let manifest = format!("{}.toml", id.dataset);
            others.insert(Path::new("data-manifests").join(&manifest), self.plan.manifests().join(&manifest));
            if let StageSpec::Prompts(spec) = &store.record(id)?.unit.spec
                && let PromptProvider::File { path, .. } = &spec.provider
            {
                if is_below(Path::new(path)) {
                    others.insert(path.into(), path.into());
                } else {
                    terminal::note(format_args!(
                        "not exported, as its path leads out of this folder: `{path}`"
                    ));
                }
            }
        }
        let pipeline = PathBuf::from(&self.what);
        if let (Some(_), Some(name)) = (&contents.plan, pipeline.file_name()) {
            others.insert(Path::new("pipelines").join(name), pipeline.clone());
        }
        for (bundled, here) in others {
            let blake3 = file_blake3(&here)?.1;
            contents.files.push(BundledFile { path: bundled.to_string_lossy().into_owned(), blake3 });
            files.insert(bundled, here);
        }
        Ok(())
    }
}

/// `wanted` and all that they were made from, each after its inputs.
fn closure(store: &Store, wanted: Vec<ArtifactId>) -> anyhow::Result<Vec<ArtifactId>> {
    let mut seen = BTreeSet::new();
    let mut ordered = Vec::new();
    // Bound to the entry of an artifact: `true` once its inputs were pushed.
    let mut stack: Vec<(ArtifactId, bool)> = wanted.into_iter().rev().map(|id| (id, false)).collect();
    while let Some((id, is_expanded)) = stack.pop() {
        if is_expanded {
            ordered.push(id);
        } else if seen.insert(id.clone()) {
            let inputs: Vec<_> = store.record(&id)?.unit.inputs.into_values().collect();
            stack.push((id, true));
            stack.extend(inputs.into_iter().map(|input| (input, false)));
        }
    }
    Ok(ordered)
}

/// The checkpoints that a specification names.
fn checkpoints_of(spec: &StageSpec) -> Vec<&CheckpointRef> {
    match spec {
        StageSpec::Latents(spec) => {
            let clip = spec.selection.as_ref().map(|selection| &selection.clip);
            std::iter::once(&spec.checkpoint).chain(clip).collect()
        }
        StageSpec::EncodedLatents(spec) => vec![&spec.checkpoint],
        StageSpec::Features(spec) => vec![&spec.backbone],
        StageSpec::Checkpoints(spec) => vec![&spec.backbone],
        StageSpec::Prompts(_)
        | StageSpec::Images(_)
        | StageSpec::FewshotSplits(_)
        | StageSpec::Predictions(_)
        | StageSpec::Metrics(_) => vec![],
    }
}

fn add_artifact(store: &Store, id: &ArtifactId, files: &mut Files) -> anyhow::Result<()> {
    let record = store.record(id)?;
    let bundled = Store::new("store");
    for part in &record.parts {
        files.insert(bundled.data_dir(id).join(&part.file), store.data_dir(id).join(&part.file));
    }
    files.insert(bundled.record_path(id), store.record_path(id));
    Ok(())
}

/// Adds every file below `folder`; links are followed, as stages follow them.
fn add_folder(folder: &Path, bundled: &Path, files: &mut Files) -> anyhow::Result<()> {
    for path in stored::entries(folder)? {
        let name = bundled.join(stored::file_name(&path));
        if path.is_dir() {
            add_folder(&path, &name, files)?;
        } else {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn write_folder(out: &Path, description: &[u8], files: &Files) -> anyhow::Result<()> {
    for (bundled, here) in files {
        let target = out.join(bundled);
        let folder = target.parent().unwrap_or(out);
        fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        fs::copy(here, &target)
            .with_context(|| format!("cannot copy `{}` to `{}`", here.display(), target.display()))?;
    }
    // Last: a folder without it is no bundle.
    let path = out.join(CONTENTS_FILE);
    fs::write(&path, description).with_context(|| format!("cannot write `{}`", path.display()))
}

/// Writes the archive beside its place and renames it.
fn write_archive(out: &Path, description: &[u8], files: &Files) -> anyhow::Result<()> {
    let write = || {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = plan_files::temporary(folder)?;
        let encoder = zstd::Encoder::new(BufWriter::new(file.as_file()), ZSTD_LEVEL)?;
        let mut archive = tar::Builder::new(encoder);
        let mut header = tar::Header::new_gnu();
        header.set_size(description.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, CONTENTS_FILE, description)?;
        for (bundled, here) in files {
            archive.append_file(bundled, &mut File::open(here)?)?;
        }
        archive.into_inner()?.finish()?.into_inner().map_err(|error| error.into_error())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(out).map_err(|error| error.error)?;
        std::io::Result::Ok(())
    };
    write().with_context(|| format!("cannot write `{}`", out.display()))
}
