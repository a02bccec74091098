//! `gc`: what a store holds and no longer needs.

use anyhow::{Context, bail};
use clap::Args;
use pipeline_spec::Store;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::options::PlanOptions;
use crate::{stored, terminal};

/// List what can go from the store; `--delete` removes it
///
/// Old unfinished files and training states of finished runs; with `--unreferenced` also the artifacts that none of
/// the given pipelines uses.
#[derive(Args)]
pub struct Gc {
    /// Pipeline files whose artifacts are kept
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    /// Remove what is listed
    #[arg(long)]
    delete: bool,
    /// Age from which an unfinished file counts as left behind, as in `30m`, `12h`, `2d`
    #[arg(long, value_name = "AGE", default_value = "1d", value_parser = parse_age)]
    age: Duration,
    /// Also artifacts that no given pipeline uses; needs at least one pipeline
    #[arg(long)]
    unreferenced: bool,
    #[command(flatten)]
    plan: PlanOptions,
}

/// Something that can go.
struct Garbage {
    path: PathBuf,
    reason: &'static str,
    size_bytes: u64,
}

impl Gc {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.unreferenced && self.pipelines.is_empty() {
            bail!(
                "`--unreferenced` needs the pipelines whose artifacts are kept, for example `pipelines/*.toml`"
            );
        }
        let store = self.plan.store.store();
        let mut garbage = left_behind(&store, self.age)?;
        garbage.extend(finished_work(&store)?);
        if self.unreferenced {
            garbage.extend(self.unreferenced_artifacts(&store)?);
        }
        for item in &garbage {
            let size = terminal::bytes(item.size_bytes);
            terminal::print(format_args!("{size:>10}  {}  {}", item.reason, item.path.display()));
        }
        let total = terminal::bytes(garbage.iter().map(|item| item.size_bytes).sum());
        if !self.delete {
            terminal::note(format_args!("{} items, {total}; `--delete` removes them", garbage.len()));
            return Ok(ExitCode::SUCCESS);
        }
        for item in &garbage {
            remove(&item.path).with_context(|| format!("cannot remove `{}`", item.path.display()))?;
        }
        terminal::note(format_args!("{} items removed, {total}", garbage.len()));
        Ok(ExitCode::SUCCESS)
    }

    fn unreferenced_artifacts(&self, store: &Store) -> anyhow::Result<Vec<Garbage>> {
        let mut kept = BTreeSet::new();
        for pipeline in &self.pipelines {
            kept.extend(self.plan.plan(Some(pipeline))?.units.into_iter().map(|planned| planned.output));
        }
        let artifacts = stored::artifacts(store)?.into_iter();
        let unused = artifacts.filter(|artifact| artifact.id.as_ref().is_none_or(|id| !kept.contains(id)));
        unused.map(|artifact| garbage(artifact.path, "used by no given pipeline")).collect()
    }
}

/// Files of processes that died before they could finish them.
fn left_behind(store: &Store, age: Duration) -> anyhow::Result<Vec<Garbage>> {
    let is_old = |path: &PathBuf| {
        let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|passed| passed >= age))
    };
    let old = stored::entries(&store.tmp_dir())?.into_iter().filter(is_old);
    old.map(|path| garbage(path, "left behind")).collect()
}

/// Training states whose run is finished.
fn finished_work(store: &Store) -> anyhow::Result<Vec<Garbage>> {
    let artifacts = stored::artifacts(store)?;
    let finished =
        artifacts.iter().filter_map(|artifact| artifact.id.as_ref()).filter(|id| store.contains(id));
    let folders = finished.map(|id| store.work_dir(id)).filter(|folder| folder.is_dir());
    folders.map(|folder| garbage(folder, "state of a finished run")).collect()
}

fn garbage(path: PathBuf, reason: &'static str) -> anyhow::Result<Garbage> {
    let size_bytes = size(&path)?;
    Ok(Garbage { path, reason, size_bytes })
}

fn size(path: &Path) -> anyhow::Result<u64> {
    let metadata =
        std::fs::symlink_metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    stored::entries(path)?.iter().map(|entry| size(entry)).sum()
}

/// Removes a file or a folder. The record of an artifact goes first, so that no finished artifact lacks files.
fn remove(path: &Path) -> std::io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return std::fs::remove_file(path);
    }
    match std::fs::remove_file(path.join("artifact.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_dir_all(path)
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let parse = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
    };
    parse().ok_or_else(|| format!("expected a number with `s`, `m`, `h` or `d` as in `12h`, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(parse_age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_age("2d"), Ok(Duration::from_secs(172_800)));
        for text in ["", "d", "12", "1w", "-1d", "1é"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }
}
