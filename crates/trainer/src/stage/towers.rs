//! A run that trains inside both towers.

use clip_model::Clip;
use flier_model::run::WEIGHTS_FILE;
use flier_model::{Classifier, Selection, SelectionRule, TrainedClassifier, Weights};
use pipeline_spec::spec::{Augment, ClipLoraSpec, TowerTraining, TwoStageSpec};

use super::job::{Found, Job};
use crate::backbone::Backbone;
use crate::fine_tune::batch::Views;
use crate::images::LabeledImage;
use crate::metrics_log::MetricsLog;
use crate::towers::ClassPrompts;
use crate::towers::methods::{Stage, clip_lora, two_stage, with_low_rank};
use crate::towers::run::Training;
use crate::{Control, Error};

impl Job<'_> {
    pub(super) fn clip_lora(
        &self,
        spec: &ClipLoraSpec,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let (seed, device) = (self.spec.seed, self.settings.device);
        let stages = clip_lora(spec, self.spec.shots.unwrap_or_default());
        self.towers(&spec.training, &stages, |clip| with_low_rank(clip, spec, seed, device), control)
    }

    pub(super) fn two_stage(
        &self,
        spec: &TwoStageSpec,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let stages = two_stage(spec, self.spec.shots.unwrap_or_default());
        self.towers(&spec.training, &stages, |clip| clip, control)
    }

    fn towers(
        &self,
        spec: &TowerTraining,
        stages: &[Stage],
        prepare: impl FnOnce(Clip) -> Clip,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let shots = self.shot_list()?;
        let images = self.training_images(&shots)?;
        let backbone = self.take_backbone()?;
        let prompts = ClassPrompts::open(&backbone, &self.class_texts(&shots.class_names)?)?;
        let logit_scale = backbone.logit_scale()?;
        let Backbone { config, clip, preprocess, .. } = backbone;
        let train: Vec<&LabeledImage> = images.train().iter().collect();
        let val: Vec<&LabeledImage> = images.val().iter().collect();
        let seed = self.spec.seed;
        let metrics = self.settings.log_dir.map(|dir| MetricsLog::open(dir, &self.spec.run)).transpose()?;
        let training = Training {
            spec,
            seed,
            images: Views::new(&train, &preprocess, spec.augment, seed),
            val: Views::new(&val, &preprocess, Augment::None, seed),
            prompts,
            vision: &config.vision_config,
            projection_dim: config.projection_dim,
            logit_scale,
            device: self.settings.device,
            work_dir: Some(self.work_dir),
            save_every_steps: self.settings.save_every_steps,
            metrics: metrics.as_ref(),
        };
        let Some(trained) = training.run(prepare(clip), stages, control)? else { return Ok(None) };
        let classifier = Classifier::FineTune { config: trained.model.config().clone() };
        let model = TrainedClassifier::new(Weights::FineTune(Box::new(trained.model)), classifier);
        model.save(&self.staging.join(WEIGHTS_FILE))?;
        let last = trained.epochs.last();
        Ok(Some(Found {
            classifier: model.classifier().clone(),
            class_names: shots.class_names.clone(),
            shot_list_digest: Some(shots.digest.to_string()),
            selection: Selection {
                epoch: last.map(|epoch| epoch.epoch),
                ..Selection::new(SelectionRule::Last, val.len(), trained.val_accuracy)
            },
            has_ema: false,
            final_loss: last.and_then(|epoch| epoch.real_loss),
            epochs: trained.epochs,
            log: Vec::new(),
        }))
    }
}
