//! `scheduler/scheduler_config.json` of a diffusers folder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::{Fields, write_json};
use crate::Error;

/// A sampler, by the name of diffusers' class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerClass {
    /// Denoising diffusion implicit models (Song et al., 2021, arXiv 2010.02502).
    #[serde(rename = "DDIMScheduler")]
    Ddim,
    /// Pseudo linear multistep, the variant of Stable Diffusion without Runge-Kutta steps (Liu et al., 2022, arXiv
    /// 2202.09778).
    #[serde(rename = "PNDMScheduler")]
    Pndm,
    /// Euler's method in the parametrization of Karras et al., 2022 (arXiv 2206.00364), algorithm 2 without churn.
    #[serde(rename = "EulerDiscreteScheduler")]
    Euler,
    /// Euler's method with a share of fresh noise in each step.
    #[serde(rename = "EulerAncestralDiscreteScheduler")]
    EulerAncestral,
    /// DPM-Solver++ 2M (Lu et al., 2022, arXiv 2211.01095, algorithm 2).
    #[serde(rename = "DPMSolverMultistepScheduler")]
    DpmSolverMultistep,
    /// Multistep sampling of a latent consistency model (Luo et al., 2023, arXiv 2310.04378).
    #[serde(rename = "LCMScheduler")]
    Lcm,
}

impl SchedulerClass {
    /// Name of diffusers' class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::Lcm => "LCMScheduler",
        }
    }
}

/// How the noise variance grows over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Linear from `beta_start` to `beta_end` (Ho et al., 2020, arXiv 2006.11239).
    Linear,
    /// Linear in the square root of beta (Rombach et al., 2022, arXiv 2112.10752).
    ScaledLinear,
    /// Squared cosine in the cumulative product (Nichol and Dhariwal, 2021, arXiv 2102.09672); ignores
    /// `beta_start` and `beta_end`.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// What the UNet predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity of Salimans and Ho, 2022 (arXiv 2202.00512), section 2.4.
    VPrediction,
    /// The clean latent.
    Sample,
}

/// How inference timesteps are spread over the training timesteps (Lin et al., 2023, arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepSpacing {
    /// Multiples of an integer stride, counted from 0 and shifted by `steps_offset`.
    Leading,
    /// Counted down from the last timestep.
    Trailing,
    /// Both ends included.
    Linspace,
}

impl TimestepSpacing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::Linspace => "linspace",
        }
    }
}

/// What the last step of a sampler in sigmas leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// No noise.
    Zero,
    /// The noise of timestep 0.
    SigmaMin,
}

/// The fields of a scheduler file, as diffusers names them; `None` where the file says nothing.
///
/// What a missing field means depends on the class that reads it, as in diffusers' `from_config`: the scheduler file of
/// Stable Diffusion 2 says nothing of `timestep_spacing`, which is `leading` for DDIM and PNDM and `linspace` for Euler.
/// A field that a class does not have is not looked at by it; one that asks for what no class here implements refuses the
/// file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct SchedulerConfig {
    /// Class that wrote the file; any name, for another class may read it.
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    /// Number of timesteps of the noise schedule; 1000.
    pub num_train_timesteps: Option<usize>,
    /// First noise variance; 0.0001 (LCM: 0.00085).
    pub beta_start: Option<f64>,
    /// Last noise variance; 0.02 (LCM: 0.012).
    pub beta_end: Option<f64>,
    /// How the noise variance grows; linear (LCM: scaled linear).
    pub beta_schedule: Option<BetaSchedule>,
    /// What the UNet predicts; the noise.
    pub prediction_type: Option<PredictionType>,
    /// How inference timesteps are spread; leading (Euler, Euler ancestral, DPM-Solver: linspace). Not of LCM.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to the timesteps of leading spacing; 0.
    pub steps_offset: Option<usize>,
    /// Rescales the schedule so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1); false. Not of PNDM.
    pub rescale_betas_zero_snr: Option<bool>,
    /// DDIM, LCM: clips the predicted clean sample to `±clip_sample_range`, wrong for latents, meant for pixels; true
    /// (LCM: false).
    pub clip_sample: Option<bool>,
    /// Bound of `clip_sample`; 1.
    pub clip_sample_range: Option<f64>,
    /// DDIM, PNDM: the step after the last timestep is noise-free (true) or has the noise of timestep 0 (false); true
    /// (PNDM: false).
    pub set_alpha_to_one: Option<bool>,
    /// PNDM: no Runge-Kutta steps first. Always true here, the other is not implemented; diffusers' default is false, and
    /// Stable Diffusion's files say true.
    pub skip_prk_steps: Option<bool>,
    /// Euler, DPM-Solver: spreads the sigmas as Karras et al. (arXiv 2206.00364, equation 5); false.
    pub use_karras_sigmas: Option<bool>,
    /// Euler, DPM-Solver: what the last step leads to; zero.
    pub final_sigmas_type: Option<FinalSigmas>,
    /// DPM-Solver: 1 or 2; 2.
    pub solver_order: Option<usize>,
    /// DPM-Solver: with fewer than 15 steps, the last is of first order; true.
    pub lower_order_final: Option<bool>,
    /// DPM-Solver: the last step is Euler's; false.
    pub euler_at_final: Option<bool>,
    /// LCM: steps of the distillation, of which those of the inference are a subset; 50.
    pub original_inference_steps: Option<usize>,
    /// LCM: factor of the timestep in the boundary condition; 10.
    pub timestep_scaling: Option<f64>,
}

impl TryFrom<Map<String, Value>> for SchedulerConfig {
    type Error = Error;

    fn try_from(map: Map<String, Value>) -> Result<Self, Error> {
        Self::from_fields(&Fields::from_map("SchedulerConfig", map))
    }
}

impl SchedulerConfig {
    /// Reads `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if a field is malformed, out of range, or asks for something that this
    /// crate does not implement. The error names the file and the field.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        // Python writes the default of `lambda_min_clipped` so, which is not JSON.
        let text = text.replace(": -Infinity", ": null");
        let map = serde_json::from_str(&text).map_err(|source| Error::Json { path: path.into(), source })?;
        Self::from_fields(&Fields::from_map(&path.display().to_string(), map))
    }

    /// Writes the fields so that diffusers reads them too.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut value =
            serde_json::to_value(self).map_err(|source| Error::Json { path: path.into(), source })?;
        if let Value::Object(map) = &mut value {
            map.retain(|_, value| !value.is_null());
        }
        let thresholding = [("thresholding", json!(false))];
        let knows_it = matches!(
            self.class(),
            Ok(SchedulerClass::Ddim | SchedulerClass::DpmSolverMultistep | SchedulerClass::Lcm)
        );
        write_json(&value, if knows_it { &thresholding } else { &[] }, path)
    }

    /// The class that wrote the file.
    ///
    /// # Errors
    ///
    /// Fails if there is none or it is not implemented.
    pub fn class(&self) -> Result<SchedulerClass, Error> {
        let name = self.class_name.as_deref();
        let class = name.and_then(|name| serde_json::from_value(json!(name)).ok());
        class.ok_or_else(|| {
            let expected = "`DDIMScheduler`, `PNDMScheduler`, `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`, \
                            `DPMSolverMultistepScheduler` or `LCMScheduler`; or choose one of these";
            Error::config("SchedulerConfig", "_class_name", expected, format!("`{}`", name.unwrap_or("none")))
        })
    }

    /// What the UNet predicts.
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type.unwrap_or(PredictionType::Epsilon)
    }

    /// Number of timesteps of the noise schedule.
    pub fn num_train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(1000)
    }

    fn from_fields(fields: &Fields) -> Result<Self, Error> {
        for field in [
            "thresholding",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "use_flow_sigmas",
            "use_dynamic_shifting",
        ] {
            fields.only(field, &[json!(false)])?;
        }
        for field in ["trained_betas", "sigma_min", "sigma_max", "lambda_min_clipped", "variance_type"] {
            fields.only(field, &[])?;
        }
        fields.only("interpolation_type", &[json!("linear")])?;
        fields.only("timestep_type", &[json!("discrete")])?;
        fields.only("algorithm_type", &[json!("dpmsolver++")])?;
        fields.only("solver_type", &[json!("midpoint")])?;
        fields.only("skip_prk_steps", &[json!(true)])?;
        let boolean = |field| fields.optional(field, "a boolean");
        let number = |field| fields.optional(field, "a number");
        let count = |field| fields.optional(field, "a non-negative integer");
        let config = Self {
            class_name: fields.optional("_class_name", "a text")?,
            num_train_timesteps: count("num_train_timesteps")?,
            beta_start: number("beta_start")?,
            beta_end: number("beta_end")?,
            beta_schedule: fields
                .optional("beta_schedule", "`linear`, `scaled_linear` or `squaredcos_cap_v2`")?,
            prediction_type: fields.optional("prediction_type", "`epsilon`, `v_prediction` or `sample`")?,
            timestep_spacing: fields.optional("timestep_spacing", "`leading`, `trailing` or `linspace`")?,
            steps_offset: count("steps_offset")?,
            rescale_betas_zero_snr: boolean("rescale_betas_zero_snr")?,
            clip_sample: boolean("clip_sample")?,
            clip_sample_range: number("clip_sample_range")?,
            set_alpha_to_one: boolean("set_alpha_to_one")?,
            skip_prk_steps: boolean("skip_prk_steps")?,
            use_karras_sigmas: boolean("use_karras_sigmas")?,
            final_sigmas_type: fields.optional("final_sigmas_type", "`zero` or `sigma_min`")?,
            solver_order: count("solver_order")?,
            lower_order_final: boolean("lower_order_final")?,
            euler_at_final: boolean("euler_at_final")?,
            original_inference_steps: count("original_inference_steps")?,
            timestep_scaling: number("timestep_scaling")?,
        };
        config.check(fields.origin())?;
        Ok(config)
    }

    /// Checks the ranges of the fields; `origin` names the file in the error.
    pub(crate) fn check(&self, origin: &str) -> Result<(), Error> {
        let check = |holds: bool, field: &str, expected: &str, found: &dyn std::fmt::Display| match holds {
            true => Ok(()),
            false => Err(Error::config(origin, field, expected, format!("`{found}`"))),
        };
        let total = self.num_train_timesteps();
        check(total >= 2, "num_train_timesteps", "at least 2", &total)?;
        for (field, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            let beta = beta.unwrap_or(0.5);
            check(beta > 0.0 && beta < 1.0, field, "a number between 0 and 1", &beta)?;
        }
        for (field, value) in
            [("clip_sample_range", self.clip_sample_range), ("timestep_scaling", self.timestep_scaling)]
        {
            let value = value.unwrap_or(1.0);
            check(value > 0.0 && value.is_finite(), field, "a positive number", &value)?;
        }
        let order = self.solver_order.unwrap_or(2);
        check((1..=2).contains(&order), "solver_order", "1 or 2", &order)?;
        let steps = self.original_inference_steps.unwrap_or(1);
        check((1..=total).contains(&steps), "original_inference_steps", "1 to `num_train_timesteps`", &steps)
    }
}
