//! Where images come from: one file per form of a data manifest.

pub mod benchmark;
pub mod csv_file;
pub mod emoji;
pub mod emoji_split;
pub mod files;
pub mod folder;
pub mod iconify;
pub mod table;
pub mod tree;

use std::path::Path;

use pipeline_spec::data_manifest::{DataManifest, Form};

use crate::Error;
use crate::item::Dataset;

/// Lists the images of a data set and checks their counts against the manifest.
///
/// `data_dir` is the folder that `cargo xtask fetch` fills and that benchmarks lie in (`$DATA` of CoOp's DATASETS.md):
/// sources lie in `<data_dir>/<dataset>/`, benchmarks where one of their layouts says.
///
/// # Errors
///
/// Fails if a source is missing, has a wrong digest or cannot be read, or a split has another number of
/// images than expected.
pub fn load(manifest: &DataManifest, data_dir: &Path) -> Result<Dataset, Error> {
    manifest.check()?;
    let dataset = match &manifest.form {
        Form::Emoji(form) => emoji::load(manifest, form, data_dir)?,
        Form::Folder(form) => folder::load(manifest, form, data_dir)?,
        Form::Csv(form) => table::load_csv(manifest, form, data_dir)?,
        Form::Parquet(form) => table::load_parquet(manifest, form, data_dir)?,
        Form::Benchmark(form) => benchmark::load(manifest, form, data_dir)?,
    };
    check_counts(manifest, &dataset)?;
    Ok(dataset)
}

fn check_counts(manifest: &DataManifest, dataset: &Dataset) -> Result<(), Error> {
    let Some(expected) = manifest.expected() else { return Ok(()) };
    let unlisted = dataset.splits().into_iter().filter(|s| !expected.contains_key(*s)).map(|s| (s, 0));
    for (split, expected) in expected.iter().map(|(s, n)| (s.as_str(), *n)).chain(unlisted) {
        let found = dataset.count(split);
        if found != expected {
            let (dataset, split) = (manifest.dataset.to_string(), split.to_owned());
            return Err(Error::Count { dataset, split, expected, found });
        }
    }
    Ok(())
}
