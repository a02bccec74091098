//! Checking finished artifacts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use pipeline_spec::{ArtifactId, ArtifactKind, PartRecord, Store};
use rayon::prelude::*;

use crate::{
    ArtifactReader, Error, FeatureRow, FewshotRow, ImageRow, LatentRow, MetricRow, PredictionRow, PromptRow,
    Row, parquet_file, read_part,
};

/// Checks the artifact `id`: its record, and length, digests, metadata and every value of each part. Parts are checked
/// in parallel.
///
/// # Errors
///
/// Fails with everything that was found, each naming its file.
pub fn verify(store: &Store, id: &ArtifactId) -> Result<(), Vec<Error>> {
    let reader = ArtifactReader::open(store, id).map_err(|e| vec![e])?;
    let errors: Vec<Error> =
        reader.record().parts.par_iter().filter_map(|part| verify_part(store, id, part).err()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn verify_part(store: &Store, id: &ArtifactId, part: &PartRecord) -> Result<(), Error> {
    fn read<R: Row>(store: &Store, id: &ArtifactId, part: &PartRecord) -> Result<(), Error> {
        read_part::<R>(&store.data_dir(id), part, &id.key).map(drop)
    }
    part.verify(&store.data_dir(id))?;
    match id.kind {
        ArtifactKind::Prompts => read::<PromptRow>(store, id, part),
        ArtifactKind::Latents => read::<LatentRow>(store, id, part),
        ArtifactKind::Images => read::<ImageRow>(store, id, part),
        ArtifactKind::FewshotSplits => read::<FewshotRow>(store, id, part),
        ArtifactKind::Features => read::<FeatureRow>(store, id, part),
        ArtifactKind::Checkpoints => Ok(()),
        ArtifactKind::Predictions => read::<PredictionRow>(store, id, part),
        ArtifactKind::Metrics => read::<MetricRow>(store, id, part),
    }
}

/// Names of the classes that have no row in any of the files `paths`, for kinds in which every class must have one.
///
/// A shot list needs a training row of each class; unlabelled images alone need none.
pub(crate) fn classes_without_rows(kind: ArtifactKind, paths: &[PathBuf]) -> Result<Vec<String>, Error> {
    match kind {
        ArtifactKind::Prompts => missing_classes(kind, paths, &["class_id"]),
        ArtifactKind::Latents => missing_classes(kind, paths, &["class_id"]),
        ArtifactKind::Images => missing_classes(kind, paths, &["label"]),
        ArtifactKind::FewshotSplits => missing_classes(kind, paths, &["label", "split"]),
        ArtifactKind::Features
        | ArtifactKind::Checkpoints
        | ArtifactKind::Predictions
        | ArtifactKind::Metrics => Ok(Vec::new()),
    }
}

fn missing_classes(kind: ArtifactKind, paths: &[PathBuf], columns: &[&str]) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut present = BTreeSet::new();
    for path in paths {
        let (class_names, labels) = parquet_file::labels(path, kind, columns)?;
        names = class_names;
        present.extend(labels);
    }
    if kind == ArtifactKind::Images && present.is_empty() {
        return Ok(Vec::new());
    }
    let absent = |(label, name): (usize, String)| {
        (!u32::try_from(label).is_ok_and(|l| present.contains(&l))).then(|| format!("`{name}`"))
    };
    Ok(names.into_iter().enumerate().filter_map(absent).collect())
}
