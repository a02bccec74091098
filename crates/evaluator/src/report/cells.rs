//! The cells of a sweep: every figure of a plan's metrics artifacts, and what has not run.

use std::collections::BTreeMap;

use artifacts::{ArtifactReader, MetricRow};
use pipeline_spec::plan::place;
use pipeline_spec::spec::{CheckpointsSpec, ImagesSpec, Method, PredictionsSpec, WeightsUsed};
use pipeline_spec::{ArtifactId, Plan, StageSpec, Store};

use super::summary::Group;
use crate::Error;

/// Selection rule of weights that were chosen on the test images: their figures are shown with a flag, never marked as the
/// best and never compared.
pub const TEST_BEST: &str = "test-best";

/// A method with the choice of its weights; one line of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MethodId {
    /// Name of the method in the pipeline.
    pub name: String,
    /// `raw` or `ema`.
    pub weights: String,
}

impl MethodId {
    /// Name for people: the moving average is named, the raw weights are not.
    pub fn label(&self) -> String {
        if self.weights == "ema" { format!("{} (EMA)", self.name) } else { self.name.clone() }
    }
}

/// One figure of one run on one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// CLIP checkpoint.
    pub backbone: String,
    /// Method and weights.
    pub method: MethodId,
    /// Training images per class; `None` for a method that sees none.
    pub shots: Option<u32>,
    /// Seed of shot list and run.
    pub seed: u64,
    /// Evaluated split, with the name of the classes or of the data set before it where they are not the run's own.
    pub split: String,
    /// Name of the figure.
    pub metric: String,
    /// Its value; a fraction from 0 to 1 for all but the log-likelihood.
    pub value: f64,
    /// Images behind it.
    pub n: u64,
    /// Rule that chose the weights.
    pub select: String,
    /// The metrics artifact it was read from.
    pub artifact: ArtifactId,
}

impl Cell {
    /// What it is summarised under.
    pub fn group(&self) -> Group {
        Group {
            backbone: self.backbone.clone(),
            method: self.method.clone(),
            split: self.split.clone(),
            metric: self.metric.clone(),
            shots: self.shots,
        }
    }
}

/// A run of the plan: the units behind one metrics artifact.
#[derive(Debug, Clone)]
pub struct PlannedRun<'a> {
    /// The metrics artifact.
    pub metrics: &'a ArtifactId,
    /// The predictions artifact.
    pub predictions: &'a ArtifactId,
    /// The checkpoints artifact.
    pub checkpoints: &'a ArtifactId,
    /// What was trained.
    pub training: &'a CheckpointsSpec,
    /// What was evaluated.
    pub evaluation: &'a PredictionsSpec,
    /// The evaluated images.
    images: &'a ImagesSpec,
}

impl PlannedRun<'_> {
    /// Method and weights.
    pub fn method(&self) -> MethodId {
        MethodId {
            name: self.training.method_name.clone(),
            weights: weights_name(self.evaluation.weights).to_owned(),
        }
    }

    /// Where it is evaluated on `split`, by its name in tables.
    pub fn place(&self, split: &str) -> String {
        place(&self.training.dataset, &self.images.dataset, self.images.classes, split)
    }

    /// Where it is evaluated.
    pub fn places(&self) -> Vec<String> {
        self.evaluation.splits.iter().map(|split| self.place(split)).collect()
    }

    /// Name for people.
    pub fn label(&self) -> String {
        let method = self.method().label();
        let backbone = &self.training.backbone.id;
        let on = match self.evaluation.classes {
            Some(_) => format!(", on `{}`", self.places().join("`, `")),
            None => String::new(),
        };
        match self.training.shots {
            Some(shots) => format!("{method}, {backbone}, {shots} shots, seed {}{on}", self.training.seed),
            None => format!("{method}, {backbone}{on}"),
        }
    }
}

/// The runs of a plan, in its order.
pub fn runs_of(plan: &Plan) -> Vec<PlannedRun<'_>> {
    let by_output: BTreeMap<_, _> = plan.units.iter().map(|p| (&p.output, &p.unit)).collect();
    let run = |planned: &'_ pipeline_spec::PlannedUnit| {
        let metrics_unit = by_output.get(&planned.output)?;
        let (predictions, unit) = by_output.get_key_value(metrics_unit.inputs.get("predictions")?)?;
        let (checkpoints, training) = by_output.get_key_value(metrics_unit.inputs.get("checkpoints")?)?;
        let (metrics, _) = by_output.get_key_value(&planned.output)?;
        let images = metrics_unit.inputs.get("images")?;
        let StageSpec::Images(images) = &by_output.get(images)?.spec else { return None };
        let (StageSpec::Predictions(evaluation), StageSpec::Checkpoints(training)) =
            (&unit.spec, &training.spec)
        else {
            return None;
        };
        Some(PlannedRun { metrics, predictions, checkpoints, training, evaluation, images })
    };
    plan.units.iter().filter(|p| matches!(p.unit.spec, StageSpec::Metrics(_))).filter_map(run).collect()
}

/// What of a plan has been measured, and what has not.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Every figure.
    pub cells: Vec<Cell>,
    /// Runs without a metrics artifact: name for people and artifact.
    pub missing: Vec<(String, ArtifactId)>,
}

/// Reads every metrics artifact of `plan` that is in `store`.
///
/// # Errors
///
/// Fails if an artifact that is there cannot be read.
pub fn collect(plan: &Plan, store: &Store) -> Result<Measured, Error> {
    let mut measured = Measured::default();
    for run in runs_of(plan) {
        if !store.contains(run.metrics) {
            measured.missing.push((run.label(), run.metrics.clone()));
            continue;
        }
        for row in ArtifactReader::open(store, run.metrics)?.rows::<MetricRow>()? {
            measured.cells.push(Cell {
                backbone: row.backbone,
                method: MethodId { name: row.method, weights: row.weights },
                shots: row.shots,
                seed: row.seed,
                split: row.split,
                metric: row.metric,
                value: row.value,
                n: row.n,
                select: row.select,
                artifact: run.metrics.clone(),
            });
        }
    }
    Ok(measured)
}

/// `raw` or `ema`, as in specifications.
pub fn weights_name(weights: WeightsUsed) -> &'static str {
    match weights {
        WeightsUsed::Raw => "raw",
        WeightsUsed::Ema => "ema",
    }
}

/// The rule that chose the weights of a run, as in specifications.
pub fn select_name(method: &Method) -> &'static str {
    method.selection_rule()
}
