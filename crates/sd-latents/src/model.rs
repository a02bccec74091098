//! The checkpoint of a spec, checked against its digest and set up as the spec says.

use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};
use pipeline_spec::spec::{self, HalfType, LatentsOptions};
use pipeline_spec::{CheckpointRef, checkpoint_digest};
use sd_model::{Scheduler, SchedulerClass, SchedulerConfig, StableDiffusion, TimestepSpacing};

use crate::{Error, Settings};

/// The folder of `checkpoint`, whose digest is that of the spec.
pub fn folder(checkpoint: &CheckpointRef, settings: &Settings<'_>) -> Result<PathBuf, Error> {
    let path = settings.weights.join(&checkpoint.id);
    let found = checkpoint_digest(&path)?;
    if found != checkpoint.digest {
        return Err(Error::Checkpoint { path, expected: checkpoint.digest.clone(), found });
    }
    Ok(path)
}

/// The sampler of diffusers that a spec names.
pub fn class_of(scheduler: spec::Scheduler) -> SchedulerClass {
    match scheduler {
        spec::Scheduler::Ddim => SchedulerClass::Ddim,
        spec::Scheduler::Pndm => SchedulerClass::Pndm,
        spec::Scheduler::Euler => SchedulerClass::Euler,
        spec::Scheduler::EulerAncestral => SchedulerClass::EulerAncestral,
        spec::Scheduler::DpmSolverMultistep => SchedulerClass::DpmSolverMultistep,
        spec::Scheduler::Lcm => SchedulerClass::Lcm,
    }
}

/// Gives `model` the sampler and the number type of a spec.
pub fn set_up(
    model: StableDiffusion,
    class: SchedulerClass,
    options: &LatentsOptions,
) -> Result<StableDiffusion, Error> {
    let spacing = options.timestep_spacing.map(|spacing| match spacing {
        spec::TimestepSpacing::Leading => TimestepSpacing::Leading,
        spec::TimestepSpacing::Trailing => TimestepSpacing::Trailing,
        spec::TimestepSpacing::Linspace => TimestepSpacing::Linspace,
    });
    let config = model.scheduler.config().clone();
    let config = SchedulerConfig {
        timestep_spacing: spacing.or(config.timestep_spacing),
        use_karras_sigmas: options.use_karras_sigmas.or(config.use_karras_sigmas),
        ..config
    };
    let scheduler = Scheduler::new(class, config)?.with_eta(options.eta.unwrap_or(0.0));
    let model = StableDiffusion { scheduler, ..model };
    Ok(match options.dtype {
        None => model,
        Some(dtype) => {
            let dtype = match dtype {
                HalfType::Bf16 => DType::BF16,
                HalfType::F16 => DType::F16,
            };
            StableDiffusion {
                unet: model.unet.map(&mut Cast(dtype)),
                text_encoder: model.text_encoder.map(&mut Cast(dtype)),
                ..model
            }
        }
    })
}

/// Casts every float parameter.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}
