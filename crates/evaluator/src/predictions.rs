//! Logits of every image of the evaluated splits under one run.

mod latents;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FeatureRow, FileContext, ImageRow, Outcome, PredictionRow, SchemaInfo,
    Shard,
};
use burn::tensor::{Device, Tensor, TensorData};
use clip_model::{Checkpoint, DecodedImage, Preprocess, VisionConfig, jpeg_decoder};
use flier_model::run::{EMA_FILE, RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, RunDescription, TrainedClassifier};
use image::RgbImage;
use pipeline_spec::spec::{OtherClasses, PredictionSource, PredictionsSpec, WeightsUsed};
use pipeline_spec::{ArtifactId, Store, Unit, checkpoint_digest};
use stage_cli::Cache;

use crate::Error;
use crate::metrics::present_splits;

/// Where and how predictions are made; nothing here changes what they are, save the last digits.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The store.
    pub store: &'a Store,
    /// Folder of checkpoint folders, which hold the backbones' preprocessing.
    pub weights: &'a Path,
    /// Which parts this process makes; there is one.
    pub shard: Shard,
    /// Images that go through the encoder together.
    pub batch: usize,
    /// Where the networks run.
    pub device: &'a Device,
    /// Its name, for the record.
    pub device_name: &'a str,
    /// What was read for units before.
    pub cache: &'a Cache,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Everything of the shard is there.
    Done(Outcome),
    /// The work was stopped; nothing was written.
    Stopped,
}

/// Makes the predictions of `unit` unless they are there. `progress` is told how many images are finished and how many
/// there are, before each batch, and may stop the work.
///
/// # Errors
///
/// Fails if an input cannot be read or does not fit the run, a logit is not finite, or the artifact cannot be written.
pub fn run(
    unit: &Unit,
    spec: &PredictionsSpec,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Ending, Error> {
    let started = Instant::now();
    let context = FileContext::new(env!("CARGO_PKG_VERSION")).with("jpeg_decoder", jpeg_decoder());
    let writer = ArtifactWriter::open(settings.store, unit, 1, context)?;
    if !writer.missing_parts(settings.shard).is_empty() {
        let run = TrainedRun::open(unit, spec, settings)?;
        let rows = match spec.source {
            PredictionSource::Images => run.predict_images(unit, spec, settings, progress)?,
            PredictionSource::Features => run.predict_features(unit, spec, settings, progress)?,
            PredictionSource::Latents => run.predict_latents(unit, spec, settings, progress)?,
        };
        let Some(mut rows) = rows else { return Ok(Ending::Stopped) };
        rows.sort_by(|a, b| (&a.split, a.label, &a.sample_id).cmp(&(&b.split, b.label, &b.sample_id)));
        for split in &spec.splits {
            if rows.iter().all(|r| r.split != *split) {
                let input = source_name(spec.source);
                let present = present_splits(rows.iter().map(|r| r.split.as_str()));
                return Err(Error::MissingSplit { input, split: split.clone(), present });
            }
        }
        let class_names = run.class_names.clone();
        let tensor_shape = vec![class_names.len()];
        writer.write_part(0, &rows, &SchemaInfo { class_names, tensor_shape, metadata: BTreeMap::new() })?;
    }
    Ok(Ending::Done(writer.finish(settings.device_name, started)?))
}

fn source_name(source: PredictionSource) -> &'static str {
    match source {
        PredictionSource::Images => "images",
        PredictionSource::Features => "features",
        PredictionSource::Latents => "latents",
    }
}

/// The classifier of a run with its description.
struct TrainedRun {
    description: RunDescription,
    classifier: TrainedClassifier,
    /// Classes of the images, and of the logits that are kept.
    class_names: Vec<String>,
    /// Positions of these among the logits, if they are not all of them in order.
    columns: Option<Vec<usize>>,
}

/// What is known of an image before its logits are.
struct Labelled {
    sample_id: String,
    split: String,
    label: u32,
}

impl TrainedRun {
    fn open(unit: &Unit, spec: &PredictionsSpec, settings: &Settings<'_>) -> Result<Self, Error> {
        let weights = match spec.weights {
            WeightsUsed::Raw => WEIGHTS_FILE,
            WeightsUsed::Ema => EMA_FILE,
        };
        let (description, classifier) = read_run(unit, "checkpoints", weights, settings)?;
        let own = description.class_names.clone();
        let (classifier, class_names, columns) = match spec.classes {
            None => (classifier, own, None),
            Some(OtherClasses::Subset) => {
                let images = ArtifactReader::open(settings.store, unit.input(source_name(spec.source))?)?;
                let class_names = images.class_names()?.to_vec();
                let columns = columns(&description, &class_names)?;
                (classifier, class_names, Some(columns))
            }
            Some(OtherClasses::Texts) => {
                let (texts, zero_shot) = read_run(unit, "texts", WEIGHTS_FILE, settings)?;
                if texts.backbone != description.backbone {
                    return Err(Error::OtherBackbone {
                        run: description.run,
                        expected: description.backbone.id,
                        found: texts.backbone.id,
                    });
                }
                (classifier.with_texts(zero_shot)?, texts.class_names, None)
            }
        };
        Ok(Self { description, classifier, class_names, columns })
    }

    fn predict_images(
        &self,
        unit: &Unit,
        spec: &PredictionsSpec,
        settings: &Settings<'_>,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<PredictionRow>>, Error> {
        let reader = ArtifactReader::open(settings.store, unit.input("images")?)?;
        self.check_classes(&reader, "images")?;
        let preprocess = self.preprocess(settings.weights)?;
        let total = usize::try_from(reader.record().rows).unwrap_or(usize::MAX);
        let (mut rows, mut seen) = (Vec::new(), 0);
        let mut is_stopped = false;
        reader.for_each_part::<ImageRow, Error>(|_, part| {
            let num_rows = part.len();
            let part: Vec<ImageRow> = part.into_iter().filter(|r| spec.splits.contains(&r.split)).collect();
            for batch in part.chunks(settings.batch.max(1)) {
                is_stopped = is_stopped || progress(seen + rows.len().min(num_rows), total).is_break();
                if is_stopped {
                    return Ok(());
                }
                let (labelled, images) = decode(batch, &reader)?;
                let pixel_values = preprocess.pixel_values(&images, settings.device);
                let logits = self.classifier.logits_from_images(pixel_values)?;
                self.extend(&mut rows, labelled, logits)?;
            }
            seen += num_rows;
            Ok(())
        })?;
        Ok((!is_stopped).then_some(rows))
    }

    fn predict_features(
        &self,
        unit: &Unit,
        spec: &PredictionsSpec,
        settings: &Settings<'_>,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<PredictionRow>>, Error> {
        let id = unit.input("features")?;
        let held_out = settings.cache.get(&format!("{id} {:?}", spec.splits), || {
            let reader = ArtifactReader::open(settings.store, id)?;
            let mut features = reader.rows::<FeatureRow>()?;
            features.retain(|r| r.view == 0 && spec.splits.contains(&r.split));
            let size_bytes = features.iter().map(size_of_feature).sum();
            Ok::<_, Error>(((features, reader.class_names()?.to_vec()), size_bytes))
        })?;
        let (features, class_names) = &*held_out;
        self.check_class_names(class_names, id, "features")?;
        let mut rows = Vec::new();
        for batch in features.chunks(settings.batch.max(1)) {
            if progress(rows.len(), features.len()).is_break() {
                return Ok(None);
            }
            let width = batch.first().map_or(0, |r| r.feature.len());
            let values: Vec<f32> = batch.iter().flat_map(|r| r.feature.iter().copied()).collect();
            let tensor =
                Tensor::<2>::from_data(TensorData::new(values, [batch.len(), width]), settings.device);
            let logits = self.classifier.logits_from_features(tensor)?;
            let labelled = batch.iter().map(|r| Labelled {
                sample_id: r.sample_id.clone(),
                split: r.split.clone(),
                label: r.label,
            });
            self.extend(&mut rows, labelled.collect(), logits)?;
        }
        Ok(Some(rows))
    }

    /// Adds the rows of a batch; `logits` is `[B, K]`.
    fn extend(
        &self,
        rows: &mut Vec<PredictionRow>,
        batch: Vec<Labelled>,
        logits: Tensor<2>,
    ) -> Result<(), Error> {
        let [_, num_logits] = logits.dims();
        let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
        for (Labelled { sample_id, split, label }, logits) in
            batch.into_iter().zip(values.chunks_exact(num_logits.max(1)))
        {
            if let Some((class_id, &value)) = logits.iter().enumerate().find(|(_, v)| !v.is_finite()) {
                let run = self.description.run.clone();
                return Err(Error::NotFinite { sample_id, class_id, value, run });
            }
            let logits = match &self.columns {
                Some(columns) => columns.iter().map(|&column| logits[column]).collect(),
                None => logits.to_vec(),
            };
            rows.push(PredictionRow { sample_id, split, label, logits });
        }
        Ok(())
    }

    /// Fails unless the input has the classes that logits are made for.
    fn check_classes(&self, reader: &ArtifactReader, input: &'static str) -> Result<(), Error> {
        self.check_class_names(reader.class_names()?, &reader.record().id, input)
    }

    fn check_class_names(&self, found: &[String], id: &ArtifactId, input: &'static str) -> Result<(), Error> {
        let expected = &self.class_names;
        if expected == found {
            return Ok(());
        }
        let differs = expected.iter().zip(found).position(|(a, b)| a != b);
        let name = |names: &[String]| differs.and_then(|at| names.get(at)).cloned().unwrap_or_default();
        Err(Error::Classes {
            input,
            artifact: id.to_string(),
            expected: format!("{} classes{}", expected.len(), first_name(differs, &name(expected))),
            found: format!("{}{}", found.len(), first_name(differs, &name(found))),
        })
    }

    /// The preprocessing of the run: that of its backbone, at the size of the trained encoder.
    fn preprocess(&self, weights: &Path) -> Result<Preprocess, Error> {
        let folder: PathBuf = weights.join(&self.description.backbone.id);
        let found = checkpoint_digest(&folder)?;
        if found.as_str() != self.description.backbone.digest {
            let expected = self.description.backbone.digest.clone();
            return Err(Error::Backbone { folder, expected, found });
        }
        let preprocess = Checkpoint::preprocess_of(&folder)?;
        if let Classifier::FineTune { config } = &self.description.classifier {
            let expected = match &config.vision {
                VisionConfig::VisionTransformer(vision) => vision.image_size,
                VisionConfig::ModifiedResNet(vision) => vision.image_size,
            };
            if preprocess.image_size != expected {
                return Err(Error::ImageSize { folder, expected, found: preprocess.image_size });
            }
        }
        Ok(preprocess)
    }
}

/// Bytes that a row takes in memory.
fn size_of_feature(row: &FeatureRow) -> usize {
    size_of_val(row) + row.sample_id.len() + row.split.len() + size_of_val(row.feature.as_slice())
}

/// Description and classifier of the run that is the input `name`.
fn read_run(
    unit: &Unit,
    name: &str,
    weights: &str,
    settings: &Settings<'_>,
) -> Result<(RunDescription, TrainedClassifier), Error> {
    let reader = ArtifactReader::open(settings.store, unit.input(name)?)?;
    let description = RunDescription::read(&reader.file_path(RUN_FILE)?)?;
    let weights = reader.file_path(weights)?;
    let classifier = TrainedClassifier::from_files(&description, &weights, settings.device)?;
    Ok((description, classifier))
}

/// Position of each of `class_names` among the classes of a run.
fn columns(run: &RunDescription, class_names: &[String]) -> Result<Vec<usize>, Error> {
    let column = |class: &String| {
        let found = run.class_names.iter().position(|own| own == class);
        found.ok_or_else(|| Error::UnknownClass { class: class.clone(), run: run.run.clone() })
    };
    class_names.iter().map(column).collect()
}

fn first_name(differs: Option<usize>, name: &str) -> String {
    differs.map_or(String::new(), |at| format!(", class {at} `{name}`"))
}

/// Labels and pixels of a batch.
fn decode(batch: &[ImageRow], reader: &ArtifactReader) -> Result<(Vec<Labelled>, Vec<RgbImage>), Error> {
    let (mut labelled, mut images) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for row in batch {
        let Some(label) = row.label else {
            return Err(Error::Unlabelled { sample_id: row.sample_id.clone(), split: row.split.clone() });
        };
        let decoded =
            DecodedImage::from_bytes(&row.image.bytes, Path::new(&row.image.path)).map_err(|source| {
                Error::Image {
                    name: row.image.path.clone(),
                    artifact: reader.record().id.to_string(),
                    source: Box::new(source),
                }
            })?;
        images.push(decoded.into_rgb());
        labelled.push(Labelled { sample_id: row.sample_id.clone(), split: row.split.clone(), label });
    }
    Ok((labelled, images))
}
