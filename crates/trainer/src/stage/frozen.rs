//! A run on frozen features.

use std::rc::Rc;

use flier_model::run::WEIGHTS_FILE;
use flier_model::{Classifier, Selection, SelectionRule, TrainedClassifier, Weights, ZeroShot};
use pipeline_spec::spec::{CoOpSpec, Method};

use super::job::{Found, Job};
use crate::features::TrainingFeatures;
use crate::frozen::{
    Fitted, Inputs, ape, ape_t, clap, clip_adapter, coop, gda, linear_probe, lp_plus_plus, prolip, task_res,
    tip_adapter,
};
use crate::shot_list::ShotList;
use crate::{Control, Error};

impl Job<'_> {
    /// Fits what `method` asks for; `None` if `control` stopped the work.
    pub(super) fn frozen(&self, method: &Method, control: &mut Control<'_>) -> Result<Option<Found>, Error> {
        if *method == Method::ZeroShot {
            return self.zero_shot().map(Some);
        }
        let (shots, layer) = (self.shot_list()?, method.feature_layer());
        let plain = self.features("features", &shots, layer)?;
        let num_val_images = plain.val_labels.len();
        let fitted = match method {
            Method::LinearProbe(spec) => {
                let classes = shots.class_names.len();
                linear_probe::train(spec, Rc::unwrap_or_clone(plain), classes, self.settings.device, control)?
            }
            _ => {
                let mut cache = self.features("cache-features", &shots, layer)?;
                if let Method::Cafo(_) = method {
                    cache = Rc::new(cache.joined(&*self.generated_features(&shots)?));
                }
                match method {
                    Method::CoOp(spec) => self.coop(spec, &shots, &cache, &plain, control)?,
                    _ => self.adapter(method, &shots, &cache, &plain, control)?,
                }
            }
        };
        fitted.map(|fitted| self.found(fitted, &shots, num_val_images)).transpose()
    }

    fn adapter(
        &self,
        method: &Method,
        shots: &ShotList,
        cache: &TrainingFeatures,
        plain: &TrainingFeatures,
        control: &mut Control<'_>,
    ) -> Result<Option<Fitted>, Error> {
        let device = self.settings.device;
        let inputs = Inputs {
            seed: self.spec.seed,
            shots: self.spec.shots.unwrap_or_default(),
            cache,
            plain,
            text_features: self.text_classifier(&shots.class_names)?,
            logit_scale: self.logit_scale()?,
            device,
        };
        let mean_text_features = || self.mean_text_features(&shots.class_names);
        match method {
            Method::ZeroShot
            | Method::LinearProbe(_)
            | Method::CoOp(_)
            | Method::ClipLora(_)
            | Method::TwoStage(_)
            | Method::LatentOnly(_)
            | Method::FineTune(_) => {
                let problem = "expected a method on augmented views of the shots".to_owned();
                Err(pipeline_spec::Error::Field { field: "method.kind".to_owned(), problem }.into())
            }
            Method::TipAdapter(spec) => tip_adapter::fit(spec, &inputs).map(Some),
            Method::TipAdapterF(spec) => tip_adapter::train(spec, &inputs, control),
            Method::Cafo(spec) => tip_adapter::train_cafo(spec, &inputs, control),
            Method::ClipAdapter(spec) => {
                let layers = clip_adapter::initial_layers(spec, &inputs);
                clip_adapter::train(spec, &inputs, &layers, control)
            }
            Method::Gda(spec) => gda::fit(spec, &inputs).map(Some),
            Method::Clap(spec) => clap::train(spec, &inputs, mean_text_features()?, control),
            Method::ProLip(spec) => {
                prolip::train(spec, &inputs, &self.backbone()?.visual_projection()?, control)
            }
            Method::Ape(spec) => ape::fit(spec, &inputs).map(Some),
            Method::ApeT(spec) => ape_t::train(spec, &inputs, control),
            Method::LpPlusPlus(spec) => lp_plus_plus::train(spec, &inputs, control),
            Method::TaskRes(spec) => task_res::train(spec, &inputs, mean_text_features()?, control),
        }
    }

    fn coop(
        &self,
        spec: &CoOpSpec,
        shots: &ShotList,
        cache: &TrainingFeatures,
        plain: &TrainingFeatures,
        control: &mut Control<'_>,
    ) -> Result<Option<Fitted>, Error> {
        let (backbone, device, seed) = (self.backbone()?, self.settings.device, self.spec.seed);
        let logit_scale = backbone.logit_scale()?;
        let ids = backbone.prompt_ids(&shots.class_names, spec.context_length as usize)?;
        let width = backbone.config.text_config.hidden_size;
        let prompt = coop::Prompt::initial(spec, shots.class_names.len(), width, seed, device);
        let tower = coop::PromptTower::new(backbone.clip.clone(), ids, device);
        let inputs = Inputs {
            seed,
            shots: self.spec.shots.unwrap_or_default(),
            cache,
            plain,
            text_features: tower.text_features(&prompt),
            logit_scale,
            device,
        };
        coop::train(spec, &inputs, &tower, prompt, control)
    }

    fn zero_shot(&self) -> Result<Found, Error> {
        let class_names = self.reader("images")?.class_names()?.to_vec();
        let text = self.text_classifier(&class_names)?;
        let [_, projection_dim] = text.dims();
        let classifier = Classifier::ZeroShot { projection_dim, logit_scale: self.logit_scale()? };
        let trained = TrainedClassifier::new(Weights::ZeroShot(ZeroShot::new(text)), classifier);
        trained.save(&self.staging.join(WEIGHTS_FILE))?;
        Ok(Found {
            classifier: trained.classifier().clone(),
            class_names,
            shot_list_digest: None,
            selection: Selection::new(SelectionRule::None, 0, None),
            has_ema: false,
            final_loss: None,
            epochs: Vec::new(),
            log: Vec::new(),
        })
    }

    pub(super) fn found(
        &self,
        fitted: Fitted,
        shots: &ShotList,
        num_val_images: usize,
    ) -> Result<Found, Error> {
        fitted.trained.save(&self.staging.join(WEIGHTS_FILE))?;
        let selection = Selection::new(fitted.rule, num_val_images, fitted.val_accuracy);
        Ok(Found {
            classifier: fitted.trained.classifier().clone(),
            class_names: shots.class_names.clone(),
            shot_list_digest: Some(shots.digest.to_string()),
            selection: Selection { settings: fitted.settings, ..selection },
            has_ema: false,
            final_loss: fitted.final_loss,
            epochs: fitted.epochs,
            log: fitted.log,
        })
    }
}
