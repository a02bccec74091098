//! `config.json` of a tiny autoencoder.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::Fields;
use crate::Error;
use crate::autoencoder::AutoencoderTiny;

/// Shape of an [`AutoencoderTiny`], as in diffusers' class of this name; the defaults are TAESD's.
///
/// All stages have the same number of channels: diffusers' network cannot change it either.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct AutoencoderTinyConfig {
    /// Channels of an image to encode.
    pub in_channels: usize,
    /// Channels of a decoded image.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each encoder stage, from the image's resolution down.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each decoder stage, up to the image's resolution.
    pub decoder_block_out_channels: Vec<usize>,
    /// Residual blocks of each encoder stage.
    pub num_encoder_blocks: Vec<usize>,
    /// Residual blocks of each decoder stage.
    pub num_decoder_blocks: Vec<usize>,
    /// Enlargement between two decoder stages.
    pub upsampling_scaling_factor: usize,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            upsampling_scaling_factor: 2,
        }
    }
}

impl TryFrom<Map<String, Value>> for AutoencoderTinyConfig {
    type Error = Error;

    fn try_from(map: Map<String, Value>) -> Result<Self, Error> {
        Self::from_fields(&Fields::from_map(Self::NAME, map))
    }
}

impl AutoencoderTinyConfig {
    const NAME: &str = "AutoencoderTinyConfig";

    /// Reads `config.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if a field is malformed, inconsistent with the others, or asks for
    /// something that this crate does not implement. The error names the file and the field.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_fields(&Fields::read(path)?)
    }

    /// A tiny autoencoder of this shape with random parameters on `device`.
    ///
    /// # Errors
    ///
    /// Fails if the fields do not fit each other.
    pub fn init(&self, device: &Device) -> Result<AutoencoderTiny, Error> {
        self.validate(Self::NAME)?;
        Ok(AutoencoderTiny::new(self, device))
    }

    /// Channels of every stage.
    pub(crate) fn width(&self) -> usize {
        self.encoder_block_out_channels[0]
    }

    fn from_fields(fields: &Fields) -> Result<Self, Error> {
        let list = [
            ("act_fn", vec![json!("relu")]),
            ("upsample_fn", vec![json!("nearest")]),
            ("scaling_factor", vec![json!(1), json!(1.0)]),
            ("shift_factor", vec![json!(0), json!(0.0)]),
        ];
        list.iter().try_for_each(|(field, allowed)| fields.only(field, allowed))?;
        let default = Self::default();
        let (number, numbers) = ("a non-negative integer", "a list of non-negative integers");
        let config = Self {
            in_channels: fields.or("in_channels", number, default.in_channels)?,
            out_channels: fields.or("out_channels", number, default.out_channels)?,
            latent_channels: fields.or("latent_channels", number, default.latent_channels)?,
            encoder_block_out_channels: fields.or(
                "encoder_block_out_channels",
                numbers,
                default.encoder_block_out_channels,
            )?,
            decoder_block_out_channels: fields.or(
                "decoder_block_out_channels",
                numbers,
                default.decoder_block_out_channels,
            )?,
            num_encoder_blocks: fields.or("num_encoder_blocks", numbers, default.num_encoder_blocks)?,
            num_decoder_blocks: fields.or("num_decoder_blocks", numbers, default.num_decoder_blocks)?,
            upsampling_scaling_factor: fields.or(
                "upsampling_scaling_factor",
                number,
                default.upsampling_scaling_factor,
            )?,
        };
        config.validate(fields.origin())?;
        Ok(config)
    }

    /// Checks that the fields fit each other, so that building the network cannot fail.
    fn validate(&self, origin: &str) -> Result<(), Error> {
        let positive = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("upsampling_scaling_factor", self.upsampling_scaling_factor),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::config(origin, field, "a positive integer", "`0`"));
            }
        }
        let halves = [
            ("encoder_block_out_channels", &self.encoder_block_out_channels, &self.num_encoder_blocks),
            ("decoder_block_out_channels", &self.decoder_block_out_channels, &self.num_decoder_blocks),
        ];
        for (field, channels, num_blocks) in halves {
            let found = || format!("`{channels:?}`");
            if channels.is_empty() || channels.len() != num_blocks.len() {
                let expected =
                    format!("{} stages, as many as numbers of blocks, and at least one", num_blocks.len());
                return Err(Error::config(origin, field, expected, found()));
            }
            let width = self.encoder_block_out_channels[0];
            if width == 0 || channels.iter().any(|&channels| channels != width) {
                return Err(Error::config(
                    origin,
                    field,
                    "the same positive number for every stage",
                    found(),
                ));
            }
        }
        Ok(())
    }
}
