//! `vae/config.json` of a diffusers folder.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::{Fields, write_json};
use crate::Error;
use crate::autoencoder::AutoencoderKl;

/// Shape of an [`AutoencoderKl`], as in diffusers' `AutoencoderKL`.
///
/// The defaults are those of Stable Diffusion 1 and 2. Every down stage is a `DownEncoderBlock2D` and every up stage
/// an `UpDecoderBlock2D`; there is one stage per entry of `block_out_channels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct AutoencoderKlConfig {
    /// Channels of an image to encode.
    pub in_channels: usize,
    /// Channels of a decoded image.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each stage, from the image's resolution down.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of an encoder stage; a decoder stage has one more.
    pub layers_per_block: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// A scaled latent is a raw latent times this number.
    pub scaling_factor: f64,
    /// Side length of an image in pixels.
    pub sample_size: usize,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            sample_size: 512,
        }
    }
}

impl TryFrom<Map<String, Value>> for AutoencoderKlConfig {
    type Error = Error;

    fn try_from(map: Map<String, Value>) -> Result<Self, Error> {
        Self::from_fields(&Fields::from_map(Self::NAME, map))
    }
}

impl AutoencoderKlConfig {
    const NAME: &str = "AutoencoderKlConfig";

    /// Reads `vae/config.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if a field is malformed, inconsistent with the others, or asks for
    /// something that this crate does not implement. The error names the file and the field.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_fields(&Fields::read(path)?)
    }

    /// Writes the configuration so that diffusers reads it too.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let num_blocks = self.block_out_channels.len();
        let constants = [
            ("_class_name", json!("AutoencoderKL")),
            ("act_fn", json!("silu")),
            ("down_block_types", json!(vec!["DownEncoderBlock2D"; num_blocks])),
            ("up_block_types", json!(vec!["UpDecoderBlock2D"; num_blocks])),
        ];
        write_json(self, &constants, path)
    }

    /// An autoencoder of this shape with random parameters on `device`.
    ///
    /// # Errors
    ///
    /// Fails if the fields do not fit each other.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKl, Error> {
        self.validate(Self::NAME)?;
        Ok(AutoencoderKl::new(self, device))
    }

    /// Image pixels per latent pixel along one side: 8 for Stable Diffusion.
    pub fn scale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    fn from_fields(fields: &Fields) -> Result<Self, Error> {
        let default = Self::default();
        let number = "a non-negative integer";
        let config = Self {
            in_channels: fields.or("in_channels", number, default.in_channels)?,
            out_channels: fields.or("out_channels", number, default.out_channels)?,
            latent_channels: fields.or("latent_channels", number, default.latent_channels)?,
            // diffusers' defaults describe a toy; a file that leaves these out is not a Stable Diffusion file.
            block_out_channels: require(fields, "block_out_channels", "a list of positive integers")?,
            layers_per_block: require(fields, "layers_per_block", number)?,
            norm_num_groups: fields.or("norm_num_groups", number, default.norm_num_groups)?,
            scaling_factor: fields.or("scaling_factor", "a number", default.scaling_factor)?,
            sample_size: fields.or("sample_size", number, default.sample_size)?,
        };
        reject_unsupported(fields, config.block_out_channels.len())?;
        config.validate(fields.origin())?;
        Ok(config)
    }

    /// Checks that the fields fit each other, so that building the network cannot fail.
    pub(crate) fn validate(&self, origin: &str) -> Result<(), Error> {
        let positive = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
            ("sample_size", self.sample_size),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::config(origin, field, "a positive integer", "`0`"));
            }
        }
        let num_blocks = self.block_out_channels.len();
        if !(1..=16).contains(&num_blocks) {
            return Err(Error::config(origin, "block_out_channels", "1 to 16 stages", num_blocks));
        }
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            if channels == 0 || channels % self.norm_num_groups != 0 {
                let expected = format!("multiples of `norm_num_groups` {}", self.norm_num_groups);
                let found = format!("`{channels}` in stage {index}");
                return Err(Error::config(origin, "block_out_channels", expected, found));
            }
        }
        if !self.scaling_factor.is_finite() || self.scaling_factor <= 0.0 {
            let found = format!("`{}`", self.scaling_factor);
            return Err(Error::config(origin, "scaling_factor", "a positive number", found));
        }
        Ok(())
    }
}

fn require<T: serde::de::DeserializeOwned>(fields: &Fields, field: &str, expected: &str) -> Result<T, Error> {
    fields
        .optional(field, expected)?
        .ok_or_else(|| Error::config(fields.origin(), field, expected, "nothing"))
}

/// Fails on fields of `AutoencoderKL` that would change the computation and are not implemented.
fn reject_unsupported(fields: &Fields, num_blocks: usize) -> Result<(), Error> {
    let list = [
        ("down_block_types", vec![json!(vec!["DownEncoderBlock2D"; num_blocks])]),
        ("up_block_types", vec![json!(vec!["UpDecoderBlock2D"; num_blocks])]),
        ("act_fn", vec![json!("silu"), json!("swish")]),
        ("use_quant_conv", vec![json!(true)]),
        ("use_post_quant_conv", vec![json!(true)]),
        ("mid_block_add_attention", vec![json!(true)]),
        ("shift_factor", vec![]),
        ("latents_mean", vec![]),
        ("latents_std", vec![]),
    ];
    list.iter().try_for_each(|(field, allowed)| fields.only(field, allowed))
}
