//! What the runs of a plan are evaluated on.

use super::{Expansion, missing, plain_features};
use crate::pipeline::{ClassSplit, MethodTable};
use crate::spec::{
    CheckpointsSpec, ClassHalf, ClassTexts, EncodedLatentsSpec, FeatureLayer, ImagesSpec, Method,
    MetricsSpec, OtherClasses, PredictionSource, PredictionsSpec, StageSpec, WeightsUsed,
};
use crate::{ArtifactId, CheckpointRef, DatasetId, Error, Pipeline, file_blake3};

/// Held-out images that every run of a pipeline is evaluated on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Data set of the images.
    pub dataset: DatasetId,
    /// The evaluated splits.
    pub splits: Vec<String>,
    /// Which half of its classes the images have; absent: all.
    pub half: Option<ClassHalf>,
    /// How runs meet its classes; absent: they are their own.
    pub classes: Option<OtherClasses>,
    num_parts: u32,
}

/// Name of a split in tables: `test`, `new/test` for the new classes, `imagenet_a/test` for another data set than the run's.
pub fn place(run: &DatasetId, images: &DatasetId, half: Option<ClassHalf>, split: &str) -> String {
    match half {
        _ if run != images => format!("{images}/{split}"),
        Some(half) => format!("{}/{split}", half.name()),
        None => split.to_owned(),
    }
}

impl Pipeline {
    /// What every run is evaluated on: the data set of the pipeline first, its new classes, the other data sets.
    pub fn targets(&self) -> Vec<Target> {
        let is_split = self.class_split == Some(ClassSplit::BaseToNew);
        let own = Target {
            dataset: self.dataset.clone(),
            splits: self.evaluation_splits.clone(),
            half: is_split.then_some(ClassHalf::Base),
            classes: None,
            num_parts: self.images.num_parts,
        };
        let new = is_split.then(|| Target {
            half: Some(ClassHalf::New),
            classes: Some(OtherClasses::Texts),
            ..own.clone()
        });
        let transfers = self.transfers.iter().map(|table| Target {
            dataset: table.dataset.clone(),
            splits: table.splits.clone(),
            half: None,
            classes: Some(table.classes),
            num_parts: table.num_parts,
        });
        [own].into_iter().chain(new).chain(transfers).collect()
    }

    /// Every place of evaluation, by its name in tables; the first is the test split.
    pub fn places(&self) -> Vec<String> {
        let places = |target: &Target| -> Vec<String> {
            let name = |split: &String| place(&self.dataset, &target.dataset, target.half, split);
            target.splits.iter().map(name).collect()
        };
        self.targets().iter().flat_map(places).collect()
    }
}

/// A target with its images.
#[derive(Debug, Clone)]
pub(super) struct PlannedTarget {
    target: Target,
    images: ArtifactId,
}

/// What the classifier of a run reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reads {
    /// Images: the run has an encoder of its own.
    Images,
    /// Features of the frozen encoder.
    Features(Option<FeatureLayer>),
    /// Latents of the images.
    Latents,
}

impl Expansion<'_> {
    /// Adds the images that are trained on, with the held-out ones of the same classes.
    pub(super) fn training_images(&mut self) -> Result<ArtifactId, Error> {
        let pipeline = self.pipeline;
        let half = pipeline.class_split.map(|ClassSplit::BaseToNew| ClassHalf::Base);
        self.images(&pipeline.dataset, pipeline.images.splits.clone(), half, pipeline.images.num_parts)
    }

    fn images(
        &mut self,
        dataset: &DatasetId,
        splits: Vec<String>,
        classes: Option<ClassHalf>,
        num_parts: u32,
    ) -> Result<ArtifactId, Error> {
        let spec = ImagesSpec {
            dataset: dataset.clone(),
            manifest_digest: file_blake3(&self.manifest(dataset))?.1,
            splits,
            image_size: self.pipeline.images.image_size,
            stored: self.pipeline.images.stored,
            classes,
            num_parts,
        };
        self.add(StageSpec::Images(spec), &[])
    }

    /// Adds the images of every target; those of the first are the `training_images`.
    pub(super) fn plan_targets(&mut self, training_images: &ArtifactId) -> Result<(), Error> {
        for target in self.pipeline.targets() {
            let images = match target.classes {
                None => training_images.clone(),
                Some(_) => {
                    self.images(&target.dataset, target.splits.clone(), target.half, target.num_parts)?
                }
            };
            self.targets.push(PlannedTarget { target, images });
        }
        Ok(())
    }

    /// Adds the features of the target number `index`.
    pub(super) fn target_features(
        &mut self,
        backbone: &CheckpointRef,
        layer: Option<FeatureLayer>,
        index: usize,
    ) -> Result<ArtifactId, Error> {
        let PlannedTarget { target, images } = self.targets[index].clone();
        let spec = plain_features(target.dataset, backbone, target.splits, layer);
        self.add(StageSpec::Features(spec), &[("images", &images)])
    }

    /// Adds predictions and metrics of a run on every target, for the raw weights and, where the run keeps one, their
    /// moving average.
    pub(super) fn evaluate(
        &mut self,
        table: &MethodTable,
        run: &CheckpointsSpec,
        checkpoints: &ArtifactId,
        reads: Reads,
    ) -> Result<(), Error> {
        let keeps_average = matches!(&run.method, Method::FineTune(s) if s.ema_decay.is_some());
        for index in 0..self.targets.len() {
            let PlannedTarget { target, images } = self.targets[index].clone();
            let (source, read) = match reads {
                Reads::Images => (PredictionSource::Images, vec![("images", images.clone())]),
                Reads::Features(layer) => {
                    let features = self.target_features(&run.backbone, layer, index)?;
                    (PredictionSource::Features, vec![("features", features)])
                }
                Reads::Latents => {
                    let latents = self.target_latents(table, &target, &images)?;
                    (PredictionSource::Latents, vec![("images", images.clone()), ("latents", latents)])
                }
            };
            let texts = match target.classes {
                Some(OtherClasses::Texts) => Some(self.texts(table, run, &target, &images)?),
                Some(OtherClasses::Subset) | None => None,
            };
            let weights = [WeightsUsed::Raw].into_iter().chain(keeps_average.then_some(WeightsUsed::Ema));
            for weights in weights {
                let ema = if weights == WeightsUsed::Ema { "-ema" } else { "" };
                let run_name = format!("{}{ema}{}", run.run, target.suffix());
                let spec = PredictionsSpec {
                    dataset: target.dataset.clone(),
                    run: run_name.clone(),
                    splits: target.splits.clone(),
                    source,
                    weights,
                    classes: target.classes,
                };
                let texts = texts.iter().map(|id| ("texts", id));
                let read = read.iter().map(|(name, id)| (*name, id));
                let inputs: Vec<_> = read.chain([("checkpoints", checkpoints)]).chain(texts).collect();
                let predictions = self.add(StageSpec::Predictions(spec), &inputs)?;
                let metrics = MetricsSpec { dataset: target.dataset.clone(), run: run_name };
                self.add(
                    StageSpec::Metrics(metrics),
                    &[("predictions", &predictions), ("checkpoints", checkpoints), ("images", &images)],
                )?;
            }
        }
        Ok(())
    }

    /// Adds the latents of a target's images, encoded as `table` says.
    fn target_latents(
        &mut self,
        table: &MethodTable,
        target: &Target,
        images: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let encoded = table.encoded_latents_of(self.pipeline).ok_or_else(|| missing("encoded_latents"))?;
        let splits = target.splits.join("-");
        let spec = EncodedLatentsSpec {
            dataset: target.dataset.clone(),
            checkpoint: self.checkpoint(&encoded.checkpoint)?,
            run: format!("{}-{splits}{}", encoded.checkpoint.to_lowercase(), target.suffix()),
            splits: Some(target.splits.clone()),
            image_size: encoded.image_size,
            num_parts: encoded.num_parts,
        };
        self.add(StageSpec::EncodedLatents(spec), &[("images", images)])
    }

    /// Adds the zero-shot run that holds the text features of a target's classes.
    fn texts(
        &mut self,
        table: &MethodTable,
        run: &CheckpointsSpec,
        target: &Target,
        images: &ArtifactId,
    ) -> Result<ArtifactId, Error> {
        let class_texts = self.class_texts(table.text_classifier.as_ref(), &target.dataset)?;
        if matches!(class_texts, ClassTexts::Prompts { .. }) {
            let problem = "expected templates with `class_split` or `classes = \"texts\"`, found `prompts`: the prompts \
                           are those of the classes that are trained on";
            return Err(Error::Field { field: "text_classifier".to_owned(), problem: problem.to_owned() });
        }
        let spec = CheckpointsSpec {
            dataset: target.dataset.clone(),
            run: format!("texts-{}{}", run.backbone.id.to_lowercase(), target.suffix()),
            method_name: "texts".to_owned(),
            backbone: run.backbone.clone(),
            shots: None,
            seed: 0,
            class_texts: Some(class_texts),
            method: Method::ZeroShot,
        };
        self.add(StageSpec::Checkpoints(spec), &[("images", images)])
    }
}

impl Target {
    /// What the names of runs on it end in; nothing on the run's own classes.
    fn suffix(&self) -> String {
        match (self.classes, self.half) {
            (None, _) => String::new(),
            (Some(_), Some(half)) => format!("-{}", half.name()),
            (Some(_), None) => format!("-{}", self.dataset),
        }
    }
}
