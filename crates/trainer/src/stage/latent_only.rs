//! A run of the latent branch alone.

use artifacts::{ArtifactReader, LatentRow};
use flier_model::LatentEncoderConfig;
use pipeline_spec::spec::{LatentOnlySpec, LatentSamples};

use super::job::{Found, Job};
use crate::features::TrainingFeatures;
use crate::frozen::latent_only;
use crate::frozen::steps::Samples;
use crate::images::{check_latents, generated_rows};
use crate::shot_list::{ShotList, check_classes};
use crate::{Control, Error};

impl Job<'_> {
    pub(super) fn latent_only(
        &self,
        spec: &LatentOnlySpec,
        control: &mut Control<'_>,
    ) -> Result<Option<Found>, Error> {
        let shots = self.shot_list()?;
        let latents = self.reader("latents")?;
        let [latent_channels, latent_height, latent_width] = latents.latent_shape()?;
        let rows = self.latent_rows(spec, &latents, &shots)?;
        let features = TrainingFeatures {
            width: latent_channels * latent_height * latent_width,
            views: 1,
            train_labels: rows.iter().map(|row| row.class_id as usize).collect(),
            train: rows.into_iter().flat_map(|row| row.latent).collect(),
            val: Vec::new(),
            val_labels: Vec::new(),
        };
        let (num_classes, seed, device) = (shots.class_names.len(), self.spec.seed, self.settings.device);
        let samples = Samples { features: &features, num_classes, seed, device };
        let encoder = LatentEncoderConfig { latent_channels, latent_height, latent_width };
        let fitted = latent_only::train(spec, samples, encoder, control)?;
        fitted.map(|fitted| self.found(fitted, &shots, 0)).transpose()
    }

    /// The latents that `spec` names, never those of an image outside the shot list.
    fn latent_rows(
        &self,
        spec: &LatentOnlySpec,
        latents: &ArtifactReader,
        shots: &ShotList,
    ) -> Result<Vec<LatentRow>, Error> {
        let is_encoded = check_latents(latents, self.unit.input("fewshot-splits")?)?;
        let (expected, found) = match (spec.samples, is_encoded) {
            (LatentSamples::Shots, true) => {
                check_classes(latents, &shots.class_names)?;
                return Ok(latents.rows()?);
            }
            (LatentSamples::Generated { per_class }, false) => {
                let per_class = per_class.unwrap_or(self.spec.shots.unwrap_or_default()) as usize;
                return generated_rows(latents, &shots.class_names, per_class, self.spec.seed);
            }
            (LatentSamples::Shots, false) => ("encoded images of the shot list", "generated samples"),
            (LatentSamples::Generated { .. }, true) => {
                ("generated samples", "encoded images of the shot list")
            }
        };
        Err(Error::Mismatch {
            artifact: Box::new(latents.record().id.clone()),
            what: "source of the latents, field `method.samples`".to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        })
    }
}
