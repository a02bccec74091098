//! A run that trains the image encoder: FLIER and its controls.

use std::rc::Rc;

use burn::store::ModuleSnapshot;
use clip_model::{KeyTable, SaveDtype, save_safetensors};
use flier_model::run::{EMA_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, FlierConfig, FlierModel, Selection, SelectionRule};
use pipeline_spec::spec::{Augment, FineTuneSpec, GeneratedUse, HeadInit, Select};

use super::job::{Found, Job};
use crate::fine_tune::batch::Views;
use crate::fine_tune::run::Training;
use crate::fine_tune::{generated_per_class, initial_model, model_config, with_class_means};
use crate::images::{GeneratedSample, LabeledImage, check_latents, generated_samples, replace_latents};
use crate::metrics_log::MetricsLog;
use crate::shot_list::ShotList;
use crate::{Control, Error};

/// The generated samples of a run.
#[derive(Clone, Default)]
struct Generated {
    samples: Rc<Vec<GeneratedSample>>,
    /// `[C, H, W]`, where latents are used.
    latent_shape: Option<[usize; 3]>,
}

impl Job<'_> {
    pub(super) fn fine_tune(
        &self,
        method: &FineTuneSpec,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let (shots, device) = (self.shot_list()?, self.settings.device);
        let images = self.training_images(&shots)?;
        let Generated { samples, latent_shape } = self.generated(method, &shots)?;
        let real: Vec<&LabeledImage> = images.train().iter().collect();
        let generated: Vec<&LabeledImage> = samples.iter().map(|sample| &sample.image).collect();
        let val: Vec<&LabeledImage> = images.val().iter().collect();
        let (seed, augment, preprocess) =
            (self.spec.seed, method.augment, self.backbone()?.preprocess.clone());
        let config = model_config(&*self.backbone()?, method, shots.class_names.len(), latent_shape)?;
        let plain = Views::new(&real, &preprocess, Augment::None, seed);
        let model = self.first_model(method, &config, &shots, &plain)?;
        let metrics = self.settings.log_dir.map(|dir| MetricsLog::open(dir, &self.spec.run)).transpose()?;
        let training = Training {
            spec: method,
            seed,
            real: Views::new(&real, &preprocess, augment, seed),
            generated: Views::new(&generated, &preprocess, augment, seed),
            samples: &samples,
            val: Views::new(&val, &preprocess, Augment::None, seed),
            device,
            work_dir: Some(self.work_dir),
            save_every_steps: self.settings.save_every_steps,
            metrics: metrics.as_ref(),
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
            class_names: shots.class_names.clone(),
            shot_list_digest: Some(shots.digest.to_string()),
            selection: Selection {
                epoch: Some(trained.epoch),
                ema_epoch: trained.average_epoch,
                ema_val_accuracy: trained.average_val_accuracy,
                ..Selection::new(rule, val.len(), trained.val_accuracy)
            },
            has_ema: trained.average.is_some(),
            final_loss: Some(trained.final_loss),
            epochs: trained.epochs,
            log: Vec::new(),
        }))
    }

    /// The model before its first step; `plain` are the shots without augmentation.
    fn first_model(
        &self,
        method: &FineTuneSpec,
        config: &FlierConfig,
        shots: &ShotList,
        plain: &Views<'_>,
    ) -> Result<FlierModel, Error> {
        let device = self.settings.device;
        let (text, logit_scale) = match method.head_init {
            HeadInit::NearZero => (None, None),
            HeadInit::ZeroShotText => (Some(self.text_classifier(&shots.class_names)?), None),
            HeadInit::ClassMean => (None, Some(self.logit_scale()?)),
        };
        let model = initial_model(self.take_backbone()?, self.spec.seed, method, config, text, device)?;
        match logit_scale {
            None => Ok(model),
            Some(logit_scale) => with_class_means(model, plain, logit_scale, device),
        }
    }

    /// The generated samples of the run, and the shape of their latents where latents are used.
    fn generated(&self, method: &FineTuneSpec, shots: &ShotList) -> Result<Generated, Error> {
        let Some(per_class) = generated_per_class(method.generated, self.spec.shots.unwrap_or_default())
        else {
            return Ok(Generated::default());
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
        let name = format!("{} {per_class} {}", self.name_of_shots("latents")?, self.spec.seed);
        let drawn = self.settings.cache.get(&name, || self.draw(shots, per_class))?;
        let mut generated = Generated::clone(&drawn);
        match method.generated {
            GeneratedUse::ImagesAndLatents { control: None, .. } => {}
            GeneratedUse::ImagesAndLatents { control: Some(control), .. } => {
                let samples: &mut Vec<GeneratedSample> = Rc::make_mut(&mut generated.samples);
                replace_latents(samples, control, self.spec.seed);
            }
            _ => generated.latent_shape = None,
        }
        Ok(generated)
    }

    /// Generated samples of the run's seed, with their size in bytes.
    fn draw(&self, shots: &ShotList, per_class: usize) -> Result<(Generated, usize), Error> {
        let latents = self.reader("latents")?;
        check_latents(&latents, self.unit.input("fewshot-splits")?)?;
        let samples = generated_samples(&latents, &shots.class_names, per_class, self.spec.seed)?;
        let sizes = samples.iter().map(|s| s.image.image.as_raw().len() + size_of_val(s.latent.as_slice()));
        let size_bytes = sizes.sum();
        let latent_shape = Some(latents.latent_shape()?);
        Ok((Generated { samples: Rc::new(samples), latent_shape }, size_bytes))
    }

    fn save<M: ModuleSnapshot>(&self, module: &M, file: &str, table: &KeyTable) -> Result<(), Error> {
        Ok(save_safetensors(module, &self.staging.join(file), SaveDtype::F32, table)?)
    }
}
