//! The files of a plan: `<store>/plans/<plan>/plan.json` and one unit file for each unit.

use anyhow::Context;
use pipeline_spec::{Plan, Store};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// File name of unit `index` in its plan's folder.
pub fn unit_file_name(index: usize) -> String {
    format!("unit-{index:05}.json")
}

/// Writes the files of `plan` that are not there yet; gives the plan's folder.
///
/// # Errors
///
/// Fails if a file cannot be written.
pub fn write(plan: &Plan, store: &Store) -> anyhow::Result<PathBuf> {
    let folder = store.plan_dir(&plan.id());
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    for (index, planned) in plan.units.iter().enumerate() {
        let path = folder.join(unit_file_name(index));
        if !path.is_file() {
            replace(&path, &json(&planned.unit)?)?;
        }
    }
    // Last: who finds a plan finds its units. The units are in the folder's name; the pipeline's description beside
    // them is not, so it may be newer than the file.
    let path = folder.join("plan.json");
    let text = json(plan)?;
    if std::fs::read(&path).is_ok_and(|found| found == text) {
        Ok(folder)
    } else {
        replace(&path, &text).map(|()| folder)
    }
}

/// Indented JSON with a line end.
fn json(value: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// A temporary file that others may read once it has its name, as people share a store.
pub fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let readable = std::fs::Permissions::from_mode(0o644);
    tempfile::Builder::new().prefix(".").suffix(".tmp").permissions(readable).tempfile_in(folder)
}

/// Writes `path` under another name and renames it.
pub fn replace(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = temporary(folder)?;
        file.write_all(contents)?;
        file.persist(path).map_err(|error| error.error)?;
        std::io::Result::Ok(())
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}
