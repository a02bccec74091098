//! FLIER's latent branch without its image branch.

use serde::{Deserialize, Serialize};

use super::{AdapterTraining, expect};
use crate::Error;

/// Control: FLIER's latent encoder with a classifier of its own, trained and evaluated on latents alone. Held-out images
/// are seen by the latents that the autoencoder makes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentOnlySpec {
    /// What it is trained on.
    pub samples: LatentSamples,
    /// Adam, cosine to zero over the steps; the first weights are those of FLIER's latent branch.
    pub training: AdapterTraining,
}

/// Which latents are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LatentSamples {
    /// Those of the images of the shot list, by the autoencoder.
    Shots,
    /// Generated ones, as FLIER's latent branch has them.
    Generated {
        /// Samples per class; absent: as many as shots.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        per_class: Option<u32>,
    },
}

impl LatentOnlySpec {
    pub(super) fn check(&self) -> Result<(), Error> {
        if let LatentSamples::Generated { per_class: Some(count) } = self.samples {
            expect(count > 0, "method.samples.per_class", "at least 1", count)?;
        }
        self.training.check()
    }
}
