//! Figures over the predictions of one run.

use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FileContext, MetricRow, Outcome, PredictionRow, SchemaInfo, Shard,
};
use pipeline_spec::plan::place;
use pipeline_spec::spec::{CheckpointsSpec, PredictionsSpec};
use pipeline_spec::{ArtifactId, ArtifactKind, StageSpec, Store, Unit};

use crate::Error;
use crate::accuracy::accuracy;
use crate::calibration::calibration;
use crate::report::cells::{select_name, weights_name};

/// Name of the share of images whose largest logit is that of their label.
pub const TOP1: &str = "top1";
/// Name of the mean over classes of that share within the class.
pub const PER_CLASS_MEAN: &str = "per_class_mean";
/// Name of the share of images whose label is among the five largest logits.
pub const TOP5: &str = "top5";
/// Name of the expected calibration error, [`crate::calibration::Calibration::ece`].
pub const ECE: &str = "ece";
/// Name of the mean negative log-likelihood, [`crate::calibration::Calibration::nll`].
pub const NLL: &str = "nll";

/// Writes the figures of `unit`, unless they are there: for each split of its predictions [`TOP1`],
/// [`PER_CLASS_MEAN`], [`TOP5`] where there are more than five classes, and [`ECE`], as fractions from 0 to 1, and [`NLL`].
///
/// # Errors
///
/// Fails if an input cannot be read, is not what its name says, or the artifact cannot be written.
pub fn run(unit: &Unit, store: &Store, shard: Shard) -> Result<Outcome, Error> {
    let started = Instant::now();
    let writer = ArtifactWriter::open(store, unit, 1, FileContext::new(env!("CARGO_PKG_VERSION")))?;
    if !writer.missing_parts(shard).is_empty() {
        let rows = figures(unit, store)?;
        writer.write_part(0, &rows, &SchemaInfo::default())?;
    }
    Ok(writer.finish("none", started)?)
}

fn figures(unit: &Unit, store: &Store) -> Result<Vec<MetricRow>, Error> {
    let predictions = ArtifactReader::open(store, unit.input("predictions")?)?;
    let evaluation = predictions_spec(unit, &predictions.record().unit)?;
    let training = store.record(unit.input("checkpoints")?)?.unit;
    let training = checkpoints_spec(unit, &training)?;
    let num_classes = predictions.class_names()?.len();
    let all = predictions.rows::<PredictionRow>()?;
    let mut splits = evaluation.splits.clone();
    splits.sort();
    let mut rows = Vec::new();
    for split in splits {
        let Some((figures, num_images)) = figures_of(&all, &split, num_classes) else {
            let present = present_splits(all.iter().map(|r| r.split.as_str()));
            return Err(Error::MissingSplit { input: "predictions", split, present });
        };
        let place = place_of(store, unit.input("images")?, training, &split)?;
        for (metric, value) in figures {
            rows.push(MetricRow {
                run: training.run.clone(),
                method: training.method_name.clone(),
                dataset: training.dataset.to_string(),
                backbone: training.backbone.id.clone(),
                shots: training.shots,
                seed: training.seed,
                split: place.clone(),
                weights: weights_name(evaluation.weights).to_owned(),
                select: select_name(&training.method).to_owned(),
                metric: metric.to_owned(),
                value,
                n: num_images,
            });
        }
    }
    Ok(rows)
}

/// Every figure of the rows of `split`, by name in alphabetical order, and the number of images; `None` without images.
pub(crate) fn figures_of(
    rows: &[PredictionRow],
    split: &str,
    num_classes: usize,
) -> Option<(Vec<(&'static str, f64)>, u64)> {
    let of_split = || rows.iter().filter(|r| r.split == split).map(|r| (r.label, r.logits.as_slice()));
    let found = accuracy(of_split(), num_classes)?;
    let calibration = calibration(of_split())?;
    let figures = [
        (ECE, Some(calibration.ece)),
        (NLL, Some(calibration.nll)),
        (PER_CLASS_MEAN, Some(found.per_class_mean)),
        (TOP1, Some(found.top1)),
        (TOP5, found.top5),
    ];
    let figures = figures.into_iter().filter_map(|(metric, value)| Some((metric, value?)));
    Some((figures.collect(), found.num_images))
}

/// Where predictions on `split` of `images` were made, by its name in tables.
pub(crate) fn place_of(
    store: &Store,
    images: &ArtifactId,
    training: &CheckpointsSpec,
    split: &str,
) -> Result<String, Error> {
    let unit = store.record(images)?.unit;
    match &unit.spec {
        StageSpec::Images(spec) => Ok(place(&training.dataset, &spec.dataset, spec.classes, split)),
        other => Err(wrong_record("images", &unit, ArtifactKind::Images, other)),
    }
}

/// The spec behind the predictions that `unit` reads.
fn predictions_spec<'a>(unit: &Unit, input: &'a Unit) -> Result<&'a PredictionsSpec, Error> {
    match &input.spec {
        StageSpec::Predictions(spec) => Ok(spec),
        other => Err(wrong_record("predictions", unit, ArtifactKind::Predictions, other)),
    }
}

/// The spec behind the checkpoints that `unit` reads.
fn checkpoints_spec<'a>(unit: &Unit, input: &'a Unit) -> Result<&'a CheckpointsSpec, Error> {
    match &input.spec {
        StageSpec::Checkpoints(spec) => Ok(spec),
        other => Err(wrong_record("checkpoints", unit, ArtifactKind::Checkpoints, other)),
    }
}

fn wrong_record(input: &'static str, unit: &Unit, expected: ArtifactKind, found: &StageSpec) -> Error {
    Error::InputRecord { input, unit: unit.output().to_string(), expected, found: found.kind() }
}

/// The distinct splits, for a message.
pub(crate) fn present_splits<'a>(splits: impl Iterator<Item = &'a str>) -> String {
    let distinct: std::collections::BTreeSet<&str> = splits.collect();
    let quoted: Vec<String> = distinct.iter().map(|s| format!("`{s}`")).collect();
    if quoted.is_empty() { "no rows".to_owned() } else { quoted.join(", ") }
}
