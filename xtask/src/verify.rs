//! `verify`: whether the files of artifacts still are what their records say.

use anyhow::Context;
use clap::Args;
use pipeline_spec::{ArtifactId, ArtifactRecord, Error, PartRecord, Store};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::options::PlanOptions;
use crate::unit_state::discard_record;
use crate::{exit, stored, terminal};

/// Recompute the digests of artifacts and list every damaged file
///
/// Exit code 65 if anything is damaged.
#[derive(Args)]
pub struct Verify {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    /// Every artifact of the store, whatever pipeline it came from
    #[arg(long, conflicts_with = "pipeline")]
    all: bool,
    /// Remove the records of damaged artifacts, so that the next run computes the damaged parts again
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    plan: PlanOptions,
}

/// A file that is not what the record says.
struct Damage {
    id: ArtifactId,
    reason: String,
}

impl Verify {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let start = Instant::now();
        let store = self.plan.store.store();
        let ids = self.artifacts(&store)?;
        let (mut files, mut damages) = (Vec::new(), Vec::new());
        for id in &ids {
            match read_record(&store, id) {
                Ok(record) => {
                    damages.extend(unlisted_files(&store, &record)?);
                    files.extend(record.parts.into_iter().map(|part| (id, part)));
                }
                Err(error) => damages.push(Damage { id: id.clone(), reason: chain(&error) }),
            }
        }
        let size: u64 = files.iter().map(|(_, part)| part.size_bytes).sum();
        let check = |(id, part): &(&ArtifactId, PartRecord)| {
            let error = part.verify(&store.data_dir(id)).err()?;
            Some(Damage { id: (*id).clone(), reason: chain(&error) })
        };
        damages.par_extend(files.par_iter().filter_map(check));
        damages.sort_by(|a, b| (&a.id, &a.reason).cmp(&(&b.id, &b.reason)));
        for damage in &damages {
            terminal::print(format_args!("damaged {}: {}", damage.id, damage.reason));
        }
        let seconds = start.elapsed().as_secs_f64();
        terminal::note(format_args!(
            "verified {} artifacts, {} files, {} in {seconds:.1} s ({:.2} GB/s): {} damaged",
            ids.len(),
            files.len(),
            terminal::bytes(size),
            size as f64 / 1e9 / seconds.max(1e-9),
            damages.len()
        ));
        if damages.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let damaged: BTreeSet<&ArtifactId> = damages.iter().map(|damage| &damage.id).collect();
        if self.repair {
            for id in damaged {
                discard_record(&store, id).with_context(|| format!("cannot remove the record of `{id}`"))?;
            }
            terminal::note(
                "records of damaged artifacts removed; `cargo xtask reproduce` computes them again",
            );
        } else {
            terminal::note("`cargo xtask verify --repair` marks them to be computed again");
        }
        Ok(ExitCode::from(exit::BAD_INPUT))
    }

    /// The finished artifacts to look at.
    fn artifacts(&self, store: &Store) -> anyhow::Result<Vec<ArtifactId>> {
        let has_record = |id: &ArtifactId| store.record_path(id).exists();
        if !self.all {
            let plan = self.plan.plan(self.pipeline.as_ref())?;
            return Ok(plan.units.into_iter().map(|planned| planned.output).filter(has_record).collect());
        }
        let mut ids = Vec::new();
        for artifact in stored::artifacts(store)? {
            match artifact.id {
                Some(id) => ids.extend(Some(id).filter(has_record)),
                None => terminal::note(format_args!(
                    "not verified, its name or schema version is not known: {}",
                    artifact.path.display()
                )),
            }
        }
        Ok(ids)
    }
}

/// The record of `id`, if it describes what its name says.
fn read_record(store: &Store, id: &ArtifactId) -> Result<ArtifactRecord, Error> {
    let record = store.record(id)?;
    // A record of an older code version has another key by design.
    let output = record.unit.output();
    if record.code_version == record.unit.spec.code_version() && output != *id {
        let reason = format!("field `unit`: expected that of `{id}`, found that of `{output}`");
        return Err(Error::Malformed { path: store.record_path(id), what: "artifact record", reason });
    }
    Ok(record)
}

/// Files below `data/` that the record does not list: other tools would read them as parts.
fn unlisted_files(store: &Store, record: &ArtifactRecord) -> anyhow::Result<Vec<Damage>> {
    let mut damages = Vec::new();
    for path in stored::entries(&store.data_dir(&record.id))? {
        let name = stored::file_name(&path);
        if record.parts.iter().all(|part| part.file != name) {
            let reason = format!("`{}` is not in the record; remove it", path.display());
            damages.push(Damage { id: record.id.clone(), reason });
        }
    }
    Ok(damages)
}

/// An error with its causes in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
