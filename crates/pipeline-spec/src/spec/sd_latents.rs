//! What `sd-latents` writes.

use serde::{Deserialize, Serialize};

use super::{InputSlot, expect, slot};
use crate::{ArtifactKind, CheckpointRef, DatasetId, Error, Seed};

/// Bump when the same spec would yield different latents.
pub const CODE_VERSION: u32 = 2;
/// Bump when the same spec would yield different latents of real images.
pub const ENCODED_CODE_VERSION: u32 = 1;

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
    /// Seed of the noise.
    pub seed: Seed,
    /// Files that the artifact is cut into: the units of resume and of `--shard`.
    pub num_parts: u32,
    /// Settings beyond the usual; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<LatentsOptions>,
    /// Keeps the best samples of each class; absent to keep all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<SelectionSpec>,
}

/// Samplers; what the checkpoint's scheduler file sets holds for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// DDIM (arXiv 2010.02502).
    Ddim,
    /// PNDM without Runge-Kutta steps, called PLMS (arXiv 2202.09778); calls the network once more than there are steps.
    Pndm,
    /// Euler's method (arXiv 2206.00364, algorithm 2).
    Euler,
    /// Euler's method with fresh noise in each step.
    EulerAncestral,
    /// DPM-Solver++ 2M (arXiv 2211.01095).
    DpmSolverMultistep,
    /// Latent consistency model (arXiv 2310.04378); for checkpoints distilled for it.
    Lcm,
}

impl Scheduler {
    /// Every sampler.
    pub const ALL: [Self; 6] =
        [Self::Ddim, Self::Pndm, Self::Euler, Self::EulerAncestral, Self::DpmSolverMultistep, Self::Lcm];

    /// Its name in specs and slugs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::DpmSolverMultistep => "dpm-solver-multistep",
            Self::Lcm => "lcm",
        }
    }
}

/// Settings of the sampler beyond the usual. What is absent is as the checkpoint's scheduler file says, or off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentsOptions {
    /// How the timesteps are spread; not with `lcm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Spreads the noise levels as Karras et al. (arXiv 2206.00364, equation 5); with `euler` and `dpm-solver-multistep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    /// Share of fresh noise in each step of `ddim`; 1 has the variance of DDPM. Absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Share of the guided prediction that is scaled back to the deviation of the prompted one (arXiv 2305.08891, section
    /// 3.4). Absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_rescale: Option<f64>,
    /// Number type of UNet and text encoder; the autoencoder and the sampler stay f32. Absent for f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<HalfType>,
    /// What becomes of a prompt beyond the text encoder's context. Absent to refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_prompts: Option<LongPrompts>,
    /// Keeps the latents after these denoising steps, from 1 and ascending, stacked along the channels, instead of the
    /// final ones. They are as the network takes them in the next step; the image stays that of the final latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent_steps: Option<Vec<u32>>,
}

/// How inference timesteps are spread over the training timesteps (arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepSpacing {
    /// Multiples of an integer stride from the cleanest.
    Leading,
    /// Counted down from the noisiest.
    Trailing,
    /// Both ends included.
    Linspace,
}

/// A number type of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HalfType {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// What becomes of a prompt that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LongPrompts {
    /// It is cut, as in diffusers; the metadata of the part say which were.
    Truncate,
}

/// Keeps the samples of each class that CLIP finds most like it, as CaFo does (arXiv 2303.02151, section 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionSpec {
    /// CLIP.
    pub clip: CheckpointRef,
    /// Text of a class, with one `{}` for its name.
    pub template: String,
    /// Samples kept of each class.
    pub keep_per_class: u32,
}

/// Latents of real images: what the autoencoder of Stable Diffusion makes of the training images of a shot list, or of all
/// images of whole splits, which evaluation reads and training refuses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedLatentsSpec {
    /// Data set of the images.
    pub dataset: DatasetId,
    /// Stable Diffusion in diffusers' folder layout.
    pub checkpoint: CheckpointRef,
    /// Name for people, for example `sd2-shots4-seed1`.
    pub run: String,
    /// The splits whose images are encoded, all of them. Absent: the training images of the shot list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<Vec<String>>,
    /// Side in pixels to which an image is resized and cropped at the centre.
    pub image_size: u32,
    /// Files that the artifact is cut into.
    pub num_parts: u32,
}

impl LatentsSpec {
    pub(super) fn slug(&self) -> String {
        let (checkpoint, scheduler) = (self.checkpoint.id.to_lowercase(), self.scheduler.name());
        format!("{checkpoint}-{scheduler}{}-seed{}", self.num_inference_steps, self.seed)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        expect(self.samples_per_prompt > 0, "samples_per_prompt", "at least 1", self.samples_per_prompt)?;
        let steps = self.num_inference_steps;
        expect((1..=1000).contains(&steps), "num_inference_steps", "1 to 1000", steps)?;
        let guidance = self.guidance_scale;
        expect(guidance.is_finite() && guidance >= 0.0, "guidance_scale", "a finite number >= 0", guidance)?;
        expect((1..=100_000).contains(&self.num_parts), "num_parts", "1 to 100000", self.num_parts)?;
        if let Some(options) = &self.options {
            options.check(self.scheduler, steps)?;
        }
        let Some(selection) = &self.selection else { return Ok(()) };
        let (keep, template) = (selection.keep_per_class, &selection.template);
        expect(keep > 0, "selection.keep_per_class", "at least 1", keep)?;
        expect(template.matches("{}").count() == 1, "selection.template", "one `{}`", template)
    }
}

impl LatentsOptions {
    fn check(&self, scheduler: Scheduler, num_inference_steps: u32) -> Result<(), Error> {
        expect(*self != Self::default(), "options", "at least one setting, or no `options`", "none")?;
        let only = |is_set: bool, field: &str, schedulers: &[Scheduler]| {
            let names: Vec<_> = schedulers.iter().map(|s| format!("`{}`", s.name())).collect();
            let expected = format!("the scheduler {}, or no such field", names.join(" or "));
            let holds = !is_set || schedulers.contains(&scheduler);
            expect(holds, &format!("options.{field}"), &expected, scheduler.name())
        };
        let all_but_lcm = &Scheduler::ALL[..5];
        only(self.timestep_spacing.is_some(), "timestep_spacing", all_but_lcm)?;
        let karras = [Scheduler::Euler, Scheduler::DpmSolverMultistep];
        only(self.use_karras_sigmas.is_some(), "use_karras_sigmas", &karras)?;
        only(self.eta.is_some(), "eta", &[Scheduler::Ddim])?;
        let share = "a number above 0, at most 1";
        for (field, value) in [("options.eta", self.eta), ("options.guidance_rescale", self.guidance_rescale)]
        {
            let value = value.unwrap_or(1.0);
            expect(value > 0.0 && value <= 1.0, field, share, value)?;
        }
        let Some(kept) = &self.latent_steps else { return Ok(()) };
        let inside = kept.iter().all(|step| (1..=num_inference_steps).contains(step));
        let holds = !kept.is_empty() && inside && kept.is_sorted_by(|a, b| a < b);
        let expected = format!("ascending steps from 1 to {num_inference_steps}");
        expect(holds, "options.latent_steps", &expected, format!("{kept:?}"))
    }
}

impl EncodedLatentsSpec {
    pub(super) fn input_slots(&self) -> Vec<InputSlot> {
        let shots = slot("fewshot-splits", ArtifactKind::FewshotSplits);
        let shots = self.splits.is_none().then_some(shots);
        [slot("images", ArtifactKind::Images)].into_iter().chain(shots).collect()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let names_splits = self.splits.as_ref().is_none_or(|splits| !splits.is_empty());
        expect(names_splits, "splits", "at least one split, or no such field", "[]")?;
        expect((8..=4096).contains(&self.image_size), "image_size", "8 to 4096 pixels", self.image_size)?;
        expect((1..=100_000).contains(&self.num_parts), "num_parts", "1 to 100000", self.num_parts)
    }
}
