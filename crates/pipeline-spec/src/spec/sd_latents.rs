//! What `sd-latents` writes.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::{CheckpointRef, DatasetId, Error, Seed};

/// Bump when the same spec would yield different latents.
pub const CODE_VERSION: u32 = 2;

/// Latents and images that Stable Diffusion draws from the prompts of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentsSpec {
    /// Data set of the prompts.
    pub dataset: DatasetId,
    /// Stable Diffusion in diffusers' folder layout.
    pub checkpoint: CheckpointRef,
    /// Samples for each prompt.
    pub samples_per_prompt: u32,
    /// Sampler.
    pub scheduler: Scheduler,
    /// Denoising steps.
    pub num_inference_steps: u32,
    /// Weight of classifier-free guidance; 1.0 turns it off.
    pub guidance_scale: f64,
    /// Prompt of the unconditional branch, often empty.
    pub negative_prompt: String,
    /// Seed of the initial noise.
    pub seed: Seed,
    /// Files that the artifact is cut into: the units of resume and of `--shard`.
    pub num_parts: u32,
}

/// Samplers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// DDIM with eta 0 (arXiv 2010.02502).
    Ddim,
}

impl LatentsSpec {
    pub(super) fn slug(&self) -> String {
        let scheduler = match self.scheduler {
            Scheduler::Ddim => "ddim",
        };
        format!(
            "{}-{scheduler}{}-seed{}",
            self.checkpoint.id.to_lowercase(),
            self.num_inference_steps,
            self.seed
        )
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        expect(self.samples_per_prompt > 0, "samples_per_prompt", "at least 1", self.samples_per_prompt)?;
        expect(
            (1..=1000).contains(&self.num_inference_steps),
            "num_inference_steps",
            "1 to 1000",
            self.num_inference_steps,
        )?;
        let guidance = self.guidance_scale;
        expect(guidance.is_finite() && guidance >= 0.0, "guidance_scale", "a finite number >= 0", guidance)?;
        expect((1..=100_000).contains(&self.num_parts), "num_parts", "1 to 100000", self.num_parts)
    }
}
