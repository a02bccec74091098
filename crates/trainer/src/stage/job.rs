//! One training run: what it reads, what it has found, and how that is published.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use artifacts::{ArtifactReader, ArtifactWriter, FileSource};
use burn::tensor::Tensor;
use flier_model::run::{EMA_FILE, LOG_FILE, RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, EpochSummary, RunDescription, Selection};
use pipeline_spec::spec::{CheckpointsSpec, FeatureLayer};
use pipeline_spec::{Digest, Unit};

use super::Settings;
use crate::Error;
use crate::backbone::Backbone;
use crate::class_texts::{ClassTexts, class_texts};
use crate::features::TrainingFeatures;
use crate::images::TrainingImages;
use crate::shot_list::ShotList;

/// What a method has found, ready to be written.
pub(super) struct Found {
    pub(super) classifier: Classifier,
    pub(super) class_names: Vec<String>,
    pub(super) shot_list_digest: Option<String>,
    pub(super) selection: Selection,
    pub(super) has_ema: bool,
    pub(super) final_loss: Option<f64>,
    pub(super) epochs: Vec<EpochSummary>,
    pub(super) log: Vec<serde_json::Value>,
}

/// One training run.
pub(super) struct Job<'a> {
    pub(super) unit: &'a Unit,
    pub(super) spec: &'a CheckpointsSpec,
    pub(super) settings: &'a Settings<'a>,
    /// Folder of the training state.
    pub(super) work_dir: &'a Path,
    /// Folder of finished files before they are published.
    pub(super) staging: &'a Path,
    /// The checkpoint, once it was asked for: a run opens it once, also where the process keeps nothing.
    pub(super) opened: RefCell<Option<Rc<Backbone>>>,
}

impl Job<'_> {
    pub(super) fn reader(&self, input: &str) -> Result<ArtifactReader, Error> {
        Ok(ArtifactReader::open(self.settings.store, self.unit.input(input)?)?)
    }

    pub(super) fn backbone(&self) -> Result<Rc<Backbone>, Error> {
        let mut opened = self.opened.borrow_mut();
        if let Some(backbone) = &*opened {
            return Ok(Rc::clone(backbone));
        }
        Ok(Rc::clone(opened.insert(Backbone::shared(&self.spec.backbone, self.settings)?)))
    }

    /// The checkpoint for training, of which the job keeps nothing.
    pub(super) fn take_backbone(&self) -> Result<Backbone, Error> {
        let backbone = self.backbone()?;
        self.opened.take();
        Ok(Rc::unwrap_or_clone(backbone))
    }

    /// The checkpoint's factor on cosine similarities.
    pub(super) fn logit_scale(&self) -> Result<f64, Error> {
        let name = format!("logit scale {}", self.spec.backbone.digest);
        let scale =
            self.settings.cache.get(&name, || Ok::<_, Error>((self.backbone()?.logit_scale()?, 8)))?;
        Ok(*scale)
    }

    /// What `encode` makes of the texts of the classes, `[N, P]`; `name` tells it apart from others.
    fn text_features(
        &self,
        name: &str,
        class_names: &[String],
        encode: impl FnOnce(&Backbone, &[ClassTexts]) -> Result<Tensor<2>, Error>,
    ) -> Result<Tensor<2>, Error> {
        let texts = (&self.spec.class_texts, self.unit.inputs.get("prompts"), class_names);
        let texts = Digest::blake3(format!("{texts:?}").as_bytes());
        let name = format!("{name} {} {texts}", self.spec.backbone.digest);
        let features = self.settings.cache.get(&name, || {
            let features = encode(&*self.backbone()?, &self.class_texts(class_names)?)?;
            let size_bytes = features.shape().num_elements() * size_of::<f32>();
            Ok::<_, Error>((features, size_bytes))
        })?;
        Ok(Tensor::clone(&features))
    }

    /// See [`Backbone::text_classifier`].
    pub(super) fn text_classifier(&self, class_names: &[String]) -> Result<Tensor<2>, Error> {
        let device = self.settings.device;
        self.text_features("text classifier", class_names, |backbone, texts| {
            backbone.text_classifier(texts, device)
        })
    }

    /// See [`Backbone::mean_text_features`].
    pub(super) fn mean_text_features(&self, class_names: &[String]) -> Result<Tensor<2>, Error> {
        let device = self.settings.device;
        self.text_features("mean text features", class_names, |backbone, texts| {
            backbone.mean_text_features(texts, device)
        })
    }

    /// The texts of the text classifier that the spec asks for.
    pub(super) fn class_texts(&self, class_names: &[String]) -> Result<Vec<ClassTexts>, Error> {
        let spec = self.spec.class_texts.as_ref().ok_or_else(|| pipeline_spec::Error::Field {
            field: "class_texts".to_owned(),
            problem: "expected the texts of the text classifier, found none".to_owned(),
        })?;
        class_texts(spec, class_names, || self.reader("prompts"))
    }

    pub(super) fn shot_list(&self) -> Result<Rc<ShotList>, Error> {
        let shots = self.spec.shots.ok_or_else(|| pipeline_spec::Error::Field {
            field: "shots".to_owned(),
            problem: "expected the number of shots of the list, found none".to_owned(),
        })?;
        let seed = self.spec.seed;
        let name = format!("{} {shots} {seed}", self.unit.input("fewshot-splits")?);
        self.settings.cache.get(&name, || {
            let list = ShotList::open(&self.reader("fewshot-splits")?, Some((shots, seed)))?;
            let size_bytes = list.train.iter().chain(&list.val).map(|shot| shot.sample_id.len() + 32).sum();
            Ok((list, size_bytes))
        })
    }

    /// Name of what `input` holds of the images of the run's shot list.
    pub(super) fn name_of_shots(&self, input: &str) -> Result<String, Error> {
        Ok(format!("{} of {}", self.unit.input(input)?, self.unit.input("fewshot-splits")?))
    }

    /// The real images of the run.
    pub(super) fn training_images(&self, shots: &ShotList) -> Result<Rc<TrainingImages>, Error> {
        self.settings.cache.get(&self.name_of_shots("images")?, || {
            let images = TrainingImages::open(&self.reader("images")?, shots)?;
            let sizes = images.train().iter().chain(images.val()).map(|image| image.image.as_raw().len());
            let size_bytes = sizes.sum();
            Ok((images, size_bytes))
        })
    }

    /// Features of the images of the run's shot list, from `input`.
    pub(super) fn features(
        &self,
        input: &str,
        shots: &ShotList,
        layer: Option<FeatureLayer>,
    ) -> Result<Rc<TrainingFeatures>, Error> {
        self.cached_features(input, &format!("{layer:?}"), |reader| {
            TrainingFeatures::open(reader, shots, &self.spec.backbone, layer)
        })
    }

    /// Features of the run's generated images.
    pub(super) fn generated_features(&self, shots: &ShotList) -> Result<Rc<TrainingFeatures>, Error> {
        self.cached_features("generated-features", "all", |reader| {
            TrainingFeatures::open_generated(reader, shots, &self.spec.backbone)
        })
    }

    fn cached_features(
        &self,
        input: &str,
        what: &str,
        open: impl FnOnce(&ArtifactReader) -> Result<TrainingFeatures, Error>,
    ) -> Result<Rc<TrainingFeatures>, Error> {
        let name = format!("{} {what} {}", self.name_of_shots(input)?, self.spec.backbone.digest);
        self.settings.cache.get(&name, || {
            let features = open(&self.reader(input)?)?;
            let size_bytes = (features.train.len() + features.val.len()) * size_of::<f32>();
            Ok((features, size_bytes))
        })
    }

    /// Writes the description and publishes everything at once.
    pub(super) fn publish(&self, found: Found, writer: &ArtifactWriter) -> Result<(), Error> {
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

/// One JSON object a line.
fn epoch_lines(epochs: &[EpochSummary]) -> String {
    let values: Vec<_> = epochs.iter().map(|epoch| serde_json::json!(epoch)).collect();
    json_lines(&values)
}

fn json_lines(values: &[serde_json::Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}
