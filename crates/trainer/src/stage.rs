//! The stage: a unit in, an artifact out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use artifacts::{ArtifactReader, ArtifactWriter, FileContext, FileSource, Outcome, SchemaInfo, Shard};
use burn::store::ModuleSnapshot;
use burn::tensor::{Device, Tensor};
use clip_model::{KeyTable, SaveDtype, jpeg_decoder, save_safetensors};
use flier_model::run::{EMA_FILE, LOG_FILE, RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, EpochSummary, RunDescription, Selection, SelectionRule, ZeroShot};
use pipeline_spec::spec::{
    CheckpointsSpec, FeaturesSpec, FineTuneSpec, GeneratedUse, HeadInit, LinearProbeSpec, Method, Select,
    TipAdapterSpec,
};
use pipeline_spec::{ArtifactId, StageSpec, Store, Unit};

use crate::backbone::Backbone;
use crate::class_texts::class_texts;
use crate::features::{self, TrainingFeatures};
use crate::fine_tune::batch::Views;
use crate::fine_tune::run::Training;
use crate::fine_tune::{generated_per_class, initial_model, model_config};
use crate::images::{GeneratedSample, LabeledImage, TrainingImages, generated_samples};
use crate::shot_list::ShotList;
use crate::{Control, Error, linear_probe, tip_adapter};

/// Where and how a unit is computed; nothing here changes what is computed.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// Where artifacts lie.
    pub store: &'a Store,
    /// Folder of checkpoint folders.
    pub weights: &'a Path,
    /// Which parts this process makes; both kinds have one.
    pub shard: Shard,
    /// Images that go through a frozen encoder together.
    pub batch: usize,
    /// A plain device.
    pub device: &'a Device,
    /// Its name, for the record.
    pub device_name: &'a str,
    /// Write the training state after every so many steps; absent: every few seconds.
    pub save_every_steps: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The work of this shard is there.
    Done(Outcome),
    /// The work was stopped; a fine-tuning goes on from its last step next time.
    Stopped,
}

/// Computes what `unit` asks for. `control` is called with steps done and to do, and may stop the work.
///
/// # Errors
///
/// Fails if the unit is of another stage, an input does not fit, the checkpoint is not the pinned one, training diverges,
/// or the artifact cannot be written.
pub fn run(unit: &Unit, settings: &Settings<'_>, control: &mut Control<'_>) -> Result<Ending, Error> {
    let started = Instant::now();
    unit.check()?;
    let context = FileContext::new(env!("CARGO_PKG_VERSION")).with("jpeg_decoder", jpeg_decoder());
    let writer = match &unit.spec {
        StageSpec::Features(_) | StageSpec::Checkpoints(_) => {
            ArtifactWriter::open(settings.store, unit, 1, context)?
        }
        other => return Err(Error::NotMine { found: other.kind() }),
    };
    if !writer.missing_parts(settings.shard).is_empty() {
        let written = match &unit.spec {
            StageSpec::Features(spec) => write_features(unit, spec, &writer, settings, control)?,
            StageSpec::Checkpoints(spec) => write_checkpoints(unit, spec, &writer, settings, control)?,
            other => return Err(Error::NotMine { found: other.kind() }),
        };
        if !written {
            return Ok(Ending::Stopped);
        }
    }
    let outcome = writer.finish(settings.device_name, started)?;
    if matches!(outcome, Outcome::Finished(_)) {
        remove_work_dir(&settings.store.work_dir(writer.id()));
    }
    Ok(Ending::Done(outcome))
}

/// The state of a finished run is of no use; one that cannot be removed does no harm.
fn remove_work_dir(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove the training state of a finished run");
    }
}

/// `false` if `control` stopped the work.
fn write_features(
    unit: &Unit,
    spec: &FeaturesSpec,
    writer: &ArtifactWriter,
    settings: &Settings<'_>,
    control: &mut Control<'_>,
) -> Result<bool, Error> {
    let backbone = Backbone::open(&spec.backbone, settings.weights, settings.device)?;
    let images = ArtifactReader::open(settings.store, unit.input("images")?)?;
    let info = SchemaInfo {
        class_names: images.class_names()?.to_vec(),
        tensor_shape: vec![backbone.config.projection_dim],
        ..SchemaInfo::default()
    };
    let Some(rows) = features::encode(unit, spec, &backbone, settings, control)? else { return Ok(false) };
    writer.write_part(0, &rows, &info)?;
    Ok(true)
}

/// What a method has found, ready to be written.
struct Found {
    classifier: Classifier,
    class_names: Vec<String>,
    shot_list_digest: Option<String>,
    selection: Selection,
    has_ema: bool,
    final_loss: Option<f64>,
    epochs: Vec<EpochSummary>,
    log: Vec<serde_json::Value>,
}

/// `false` if `control` stopped the work.
fn write_checkpoints(
    unit: &Unit,
    spec: &CheckpointsSpec,
    writer: &ArtifactWriter,
    settings: &Settings<'_>,
    control: &mut Control<'_>,
) -> Result<bool, Error> {
    let work_dir = settings.store.work_dir(writer.id());
    let staging = Staging::new(settings.store, writer)?;
    let job = Job { unit, spec, settings, work_dir: &work_dir, staging: &staging.folder };
    let found = match &spec.method {
        Method::ZeroShot => job.zero_shot().map(Some),
        Method::LinearProbe(method) => job.linear_probe(method, control),
        Method::TipAdapterF(method) => job.tip_adapter(method, control),
        Method::FineTune(method) => job.fine_tune(method, control),
    }?;
    let Some(found) = found else { return Ok(false) };
    job.publish(found, writer)?;
    Ok(true)
}

/// One training run.
struct Job<'a> {
    unit: &'a Unit,
    spec: &'a CheckpointsSpec,
    settings: &'a Settings<'a>,
    /// Folder of the training state.
    work_dir: &'a Path,
    /// Folder of finished files before they are published.
    staging: &'a Path,
}

/// A folder of this process alone below the store's temporary folder, removed when dropped.
struct Staging {
    folder: PathBuf,
}

impl Staging {
    fn new(store: &Store, writer: &ArtifactWriter) -> Result<Self, Error> {
        let name = format!("{}-{}-{}", writer.id().kind, writer.id().key, std::process::id());
        let folder = store.tmp_dir().join(name);
        std::fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        Ok(Self { folder })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove a temporary folder");
        }
    }
}

impl Job<'_> {
    fn reader(&self, input: &str) -> Result<ArtifactReader, Error> {
        Ok(ArtifactReader::open(self.settings.store, self.unit.input(input)?)?)
    }

    fn backbone(&self) -> Result<Backbone, Error> {
        Backbone::open(&self.spec.backbone, self.settings.weights, self.settings.device)
    }

    /// The text classifier `[N, P]` that the spec asks for.
    fn text_classifier(&self, backbone: &Backbone, class_names: &[String]) -> Result<Tensor<2>, Error> {
        let spec = self.spec.class_texts.as_ref().ok_or_else(|| pipeline_spec::Error::Field {
            field: "class_texts".to_owned(),
            problem: "expected the texts of the text classifier, found none".to_owned(),
        })?;
        let texts = class_texts(spec, class_names, || self.reader("prompts"))?;
        backbone.text_classifier(&texts, self.settings.device)
    }

    fn shot_list(&self) -> Result<ShotList, Error> {
        let shots = self.spec.shots.ok_or_else(|| pipeline_spec::Error::Field {
            field: "shots".to_owned(),
            problem: "expected the number of shots of the list, found none".to_owned(),
        })?;
        ShotList::open(&self.reader("fewshot-splits")?, Some((shots, self.spec.seed)))
    }

    fn save<M: ModuleSnapshot>(&self, module: &M, file: &str, table: &KeyTable) -> Result<(), Error> {
        Ok(save_safetensors(module, &self.staging.join(file), SaveDtype::F32, table)?)
    }

    fn zero_shot(&self) -> Result<Found, Error> {
        let class_names = self.reader("images")?.class_names()?.to_vec();
        let backbone = self.backbone()?;
        let text = self.text_classifier(&backbone, &class_names)?;
        self.save(&ZeroShot::new(text), WEIGHTS_FILE, &KeyTable::new())?;
        let classifier = Classifier::ZeroShot {
            projection_dim: backbone.config.projection_dim,
            logit_scale: backbone.logit_scale()?,
        };
        Ok(Found {
            classifier,
            class_names,
            shot_list_digest: None,
            selection: selection(SelectionRule::None, 0, None),
            has_ema: false,
            final_loss: None,
            epochs: Vec::new(),
            log: Vec::new(),
        })
    }

    fn linear_probe(
        &self,
        method: &LinearProbeSpec,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let shots = self.shot_list()?;
        let features = TrainingFeatures::open(&self.reader("features")?, &shots, &self.spec.backbone)?;
        let (num_val, projection_dim) = (features.val_labels.len(), features.width);
        let classes = shots.class_names.len();
        let Some(fitted) = linear_probe::train(method, features, classes, self.settings.device, control)?
        else {
            return Ok(None);
        };
        self.save(&fitted.probe, WEIGHTS_FILE, &KeyTable::new())?;
        Ok(Some(Found {
            classifier: Classifier::LinearProbe { projection_dim, inverse_regularization: fitted.c },
            class_names: shots.class_names,
            shot_list_digest: Some(shots.digest.to_string()),
            selection: selection(SelectionRule::ValGrid, num_val, fitted.val_accuracy),
            has_ema: false,
            final_loss: Some(fitted.loss),
            epochs: Vec::new(),
            log: fitted.log,
        }))
    }

    fn tip_adapter(
        &self,
        method: &TipAdapterSpec,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let (shots, device) = (self.shot_list()?, self.settings.device);
        let cache = TrainingFeatures::open(&self.reader("cache-features")?, &shots, &self.spec.backbone)?;
        let val = TrainingFeatures::open(&self.reader("features")?, &shots, &self.spec.backbone)?;
        let backbone = self.backbone()?;
        let inputs = tip_adapter::Inputs {
            spec: method,
            seed: self.spec.seed,
            cache: &cache,
            val: &val,
            text_features: self.text_classifier(&backbone, &shots.class_names)?,
            logit_scale: backbone.logit_scale()?,
            device,
        };
        let Some(fitted) = tip_adapter::train(&inputs, control)? else { return Ok(None) };
        self.save(&fitted.adapter, WEIGHTS_FILE, &KeyTable::new())?;
        Ok(Some(Found {
            classifier: Classifier::TipAdapterF {
                projection_dim: cache.width,
                num_keys: cache.train_labels.len(),
                logit_scale: inputs.logit_scale,
                alpha: fitted.alpha,
                beta: fitted.beta,
            },
            class_names: shots.class_names,
            shot_list_digest: Some(shots.digest.to_string()),
            selection: selection(SelectionRule::ValGrid, val.val_labels.len(), fitted.val_accuracy),
            has_ema: false,
            final_loss: fitted.epochs.last().and_then(|epoch| epoch.real_loss),
            epochs: fitted.epochs,
            log: Vec::new(),
        }))
    }

    fn fine_tune(&self, method: &FineTuneSpec, control: &mut Control<'_>) -> Result<Option<Found>, Error> {
        let (shots, device) = (self.shot_list()?, self.settings.device);
        let images = TrainingImages::open(&self.reader("images")?, &shots)?;
        let (samples, latent_shape) = self.generated(method, &shots)?;
        let backbone = self.backbone()?;
        let preprocess = backbone.preprocess.clone();
        let config = model_config(&backbone, method, shots.class_names.len(), latent_shape)?;
        let text = match method.head_init {
            HeadInit::NearZero => None,
            HeadInit::ZeroShotText => Some(self.text_classifier(&backbone, &shots.class_names)?),
        };
        let model = initial_model(backbone, self.spec.seed, method, &config, text, device)?;
        let (real, augment): (Vec<&LabeledImage>, _) = (images.train().iter().collect(), method.augment);
        let generated: Vec<&LabeledImage> = samples.iter().map(|sample| &sample.image).collect();
        let val: Vec<&LabeledImage> = images.val().iter().collect();
        let seed = self.spec.seed;
        let training = Training {
            spec: method,
            seed,
            real: Views::new(&real, &preprocess, augment, seed),
            generated: Views::new(&generated, &preprocess, augment, seed),
            samples: &samples,
            val: Views::new(&val, &preprocess, pipeline_spec::spec::Augment::None, seed),
            device,
            work_dir: Some(self.work_dir),
            save_every_steps: self.settings.save_every_steps,
        };
        let Some(trained) = training.run(model, control)? else { return Ok(None) };
        self.save(&trained.model, WEIGHTS_FILE, &trained.model.key_table())?;
        if let Some(average) = &trained.average {
            self.save(average, EMA_FILE, &average.key_table())?;
        }
        let rule = match method.select {
            Select::Last => SelectionRule::Last,
            Select::ValBest => SelectionRule::ValBest,
        };
        Ok(Some(Found {
            classifier: Classifier::FineTune { config },
            class_names: shots.class_names,
            shot_list_digest: Some(shots.digest.to_string()),
            selection: Selection {
                epoch: Some(trained.epoch),
                ema_epoch: trained.average_epoch,
                ema_val_accuracy: trained.average_val_accuracy,
                ..selection(rule, val.len(), trained.val_accuracy)
            },
            has_ema: trained.average.is_some(),
            final_loss: Some(trained.final_loss),
            epochs: trained.epochs,
            log: Vec::new(),
        }))
    }

    /// The generated samples of the run, and the shape of their latents where latents are used.
    fn generated(
        &self,
        method: &FineTuneSpec,
        shots: &ShotList,
    ) -> Result<(Vec<GeneratedSample>, Option<[usize; 3]>), Error> {
        let Some(per_class) = generated_per_class(method.generated, self.spec.shots.unwrap_or_default())
        else {
            return Ok((Vec::new(), None));
        };
        if per_class == 0 {
            let problem =
                "expected at least 1, found `0`; use `generated.kind = \"none\"` for real images only"
                    .to_owned();
            return Err(pipeline_spec::Error::Field {
                field: "method.generated.per_class".to_owned(),
                problem,
            }
            .into());
        }
        let latents = self.reader("latents")?;
        check_shot_list(&latents, self.unit.input("fewshot-splits")?)?;
        let samples = generated_samples(&latents, &shots.class_names, per_class, self.spec.seed)?;
        let shape = match method.generated {
            GeneratedUse::ImagesAndLatents { .. } => {
                let shape = latents.tensor_shape()?;
                let shape = <[usize; 3]>::try_from(shape).map_err(|_| Error::Mismatch {
                    artifact: Box::new(latents.record().id.clone()),
                    what: "shape of a latent".to_owned(),
                    expected: "[C, H, W]".to_owned(),
                    found: format!("{shape:?}"),
                })?;
                Some(shape)
            }
            _ => None,
        };
        Ok((samples, shape))
    }

    /// Writes the description and publishes everything at once.
    fn publish(&self, found: Found, writer: &ArtifactWriter) -> Result<(), Error> {
        let spec = self.spec;
        let log = if found.log.is_empty() { epoch_lines(&found.epochs) } else { json_lines(&found.log) };
        let run = RunDescription {
            run: spec.run.clone(),
            method: spec.method_name.clone(),
            dataset: spec.dataset.to_string(),
            backbone: flier_model::Backbone {
                id: spec.backbone.id.clone(),
                digest: spec.backbone.digest.to_string(),
            },
            class_names: found.class_names,
            shots: spec.shots,
            seed: spec.seed,
            shot_list_digest: found.shot_list_digest,
            classifier: found.classifier,
            selection: found.selection,
            has_ema: found.has_ema,
            final_loss: found.final_loss,
            epochs: found.epochs,
        };
        run.check()?;
        run.write(&self.staging.join(RUN_FILE))?;
        let weights = self.staging.join(WEIGHTS_FILE);
        let (run_file, ema) = (self.staging.join(RUN_FILE), self.staging.join(EMA_FILE));
        let mut files = vec![
            (WEIGHTS_FILE, FileSource::Path(&weights)),
            (RUN_FILE, FileSource::Path(&run_file)),
            (LOG_FILE, FileSource::Bytes(log.as_bytes())),
        ];
        if run.has_ema {
            files.push((EMA_FILE, FileSource::Path(&ema)));
        }
        writer.write_files(&files)?;
        Ok(())
    }
}

/// Latents of real images must be those of the run's own shot list: any other shows images that the run may not see.
fn check_shot_list(latents: &ArtifactReader, shots: &ArtifactId) -> Result<(), Error> {
    let record = latents.record();
    match record.unit.inputs.get("fewshot-splits") {
        Some(found) if found.key != shots.key => Err(Error::Mismatch {
            artifact: Box::new(record.id.clone()),
            what: "shot list of the encoded images".to_owned(),
            expected: shots.to_string(),
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}

fn selection(rule: SelectionRule, num_val_images: usize, val_accuracy: Option<f64>) -> Selection {
    Selection { rule, num_val_images, val_accuracy, ema_val_accuracy: None, epoch: None, ema_epoch: None }
}

/// One JSON object a line.
fn epoch_lines(epochs: &[EpochSummary]) -> String {
    let values: Vec<_> = epochs.iter().map(|epoch| serde_json::json!(epoch)).collect();
    json_lines(&values)
}

fn json_lines(values: &[serde_json::Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}
