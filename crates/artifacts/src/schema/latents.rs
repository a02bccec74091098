//! Kind `latents`, schema version 1: one row is one generated sample, or one real image that was encoded.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, required, sparse};
use crate::{Error, ImageFile, SchemaInfo};

/// One sample drawn by Stable Diffusion: its latent and its decoded image. Or one real image and its latent.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentRow {
    /// Label of the class.
    pub class_id: u32,
    /// Name of the class.
    pub class_name: String,
    /// Position of the prompt among those of the class.
    pub prompt_index: u32,
    /// Position of the sample among those of the prompt; of an encoded image, among those of the class.
    pub sample_index: u32,
    /// The prompt; of an encoded image, its `sample_id`.
    pub prompt: String,
    /// Seed of the noise of this sample; 0 for an encoded image.
    pub noise_seed: u64,
    /// Scaled latent z0 `[C, H, W]`, row-major, rounded to f16 precision (see [`round_to_f16`]). Where the specification
    /// keeps S steps instead, `[S * C, H, W]`.
    pub latent: Vec<f32>,
    /// Mean of the latent.
    pub mean: f32,
    /// Standard deviation of the latent.
    pub std: f32,
    /// Decoded image as a PNG file.
    pub image_png: Vec<u8>,
    /// File name of the image, for example `cat-000-001.png`.
    pub image_path: String,
    /// Cosine similarity of image and class under CLIP, where the specification selects by it.
    pub clip_score: Option<f32>,
}

/// Rounds every value to the nearest f16, ties to even; values beyond the range of f16 become infinite and are refused
/// when they are written.
///
/// Latents keep f16 precision in an f32 column: the zero mantissa bytes vanish in the file, and every reader knows f32.
pub fn round_to_f16(values: &mut [f32]) {
    for value in values {
        *value = half::f16::from_f32(*value).to_f32();
    }
}

/// Whether a value is an f16.
fn has_f16_precision(value: f32) -> bool {
    let (bits, size) = (value.to_bits(), value.abs());
    // Normal f16 numbers are told by their bits, which takes a fraction of the time.
    let is_normal = bits & 0x1fff == 0 && (6.103_515_6e-5..65_536.0).contains(&size);
    is_normal || half::f16::from_f32(value).to_f32().to_bits() == bits
}

/// How much of each of the first latent channels goes into red, green and blue; further channels start over.
///
/// Latents are about standard normal, so that three deviations fill the range.
const CHANNEL_RGB: [[f32; 3]; 4] = [[0.14, 0.0, 0.0], [0.0, 0.14, 0.0], [0.0, 0.0, 0.14], [0.08, 0.08, 0.08]];

/// A latent in false colours, one pixel for each of its positions: a fixed map for the eye, no decoder; the colours mean
/// nothing.
///
/// # Shapes
///
/// - `latent`: `[C, H, W]` = `shape`, in row-major order
/// - output: `[H, W, 3]` in row-major order
pub fn false_colors(latent: &[f32], [channels, height, width]: [usize; 3]) -> Vec<u8> {
    let area = height * width;
    let mut bytes = Vec::with_capacity(3 * area);
    for position in 0..area {
        let mut rgb = [0.5_f32; 3];
        for channel in 0..channels {
            let value = latent.get(channel * area + position).copied().unwrap_or(0.0);
            for (part, weight) in rgb.iter_mut().zip(CHANNEL_RGB[channel % CHANNEL_RGB.len()]) {
                *part += weight * value;
            }
        }
        bytes.extend(rgb.map(|part| (part.clamp(0.0, 1.0) * 255.0).round() as u8));
    }
    bytes
}

impl RowCodec for LatentRow {
    const KIND: ArtifactKind = ArtifactKind::Latents;
    const COLUMNS: &'static [Column] = &[
        required("class_id", ColumnType::ClassLabel, "label of the class"),
        required("class_name", ColumnType::Text, "name of the class"),
        required("prompt_index", ColumnType::UInt32, "position of the prompt among those of the class"),
        required(
            "sample_index",
            ColumnType::UInt32,
            "position of the sample among those of the prompt; of an encoded image, among those of the class",
        ),
        required("prompt", ColumnType::Text, "the prompt; of an encoded image, its `sample_id`"),
        required(
            "noise_seed",
            ColumnType::UInt64,
            "seed of the noise of this sample; 0 for an encoded image",
        ),
        required(
            "latent",
            ColumnType::Tensor,
            "scaled latent z0 `[C, H, W]`, row-major, values of f16 precision; `[S * C, H, W]` where S steps were kept",
        ),
        required("mean", ColumnType::Float32, "mean of the latent"),
        required("std", ColumnType::Float32, "standard deviation of the latent"),
        required("image", ColumnType::Image, "decoded image as PNG"),
        sparse(
            "clip_score",
            ColumnType::Float32,
            "cosine similarity of image and class under CLIP, where samples were selected by it",
        ),
    ];
    const SORTED_BY: &'static [&'static str] = &["class_id", "prompt_index", "sample_index"];

    fn order(a: &Self, b: &Self) -> Ordering {
        let key = |r: &Self| (r.class_id, r.prompt_index, r.sample_index);
        key(a).cmp(&key(b))
    }

    fn identity(&self) -> String {
        format!("{}/{}/{}", self.class_id, self.prompt_index, self.sample_index)
    }

    fn class(&self) -> Option<u32> {
        Some(self.class_id)
    }

    fn size_hint(&self) -> usize {
        128 + 4 * self.latent.len() + self.image_png.len()
    }

    fn fills(&self, name: &str) -> bool {
        name == "clip_score" && self.clip_score.is_some()
    }

    fn check(&self, info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_class("class_id", self.class_id, "class_name", Some(&self.class_name), info)?;
        codec::check_filled("prompt", &self.prompt)?;
        codec::check_tensor("latent", &self.latent, info)?;
        if let Some(value) = self.latent.iter().find(|value| !has_f16_precision(**value)) {
            return Err(Fault::new(
                "latent",
                format!("holds {value}, expected f16 precision (`round_to_f16`)"),
            ));
        }
        if self.latent.iter().all(|v| *v == self.latent[0]) {
            return Err(Fault::new(
                "latent",
                format!("is {} everywhere, expected a latent that varies", self.latent[0]),
            ));
        }
        codec::check_finite("mean", f64::from(self.mean))?;
        codec::check_finite("std", f64::from(self.std))?;
        codec::check_finite("clip_score", f64::from(self.clip_score.unwrap_or(0.0)))?;
        codec::check_image("image", &self.image_png, &self.image_path)
    }

    fn encode(rows: &[Self], numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::labels(rows.iter().map(|r| Some(r.class_id))),
            codec::text(rows.iter().map(|r| r.class_name.as_str())),
            codec::uint32(rows.iter().map(|r| r.prompt_index)),
            codec::uint32(rows.iter().map(|r| r.sample_index)),
            codec::text(rows.iter().map(|r| r.prompt.as_str())),
            codec::uint64(rows.iter().map(|r| r.noise_seed)),
            codec::tensor(rows.iter().map(|r| r.latent.as_slice()), numel),
            codec::float32(rows.iter().map(|r| r.mean)),
            codec::float32(rows.iter().map(|r| r.std)),
            codec::image(rows.iter().map(|r| (r.image_png.as_slice(), r.image_path.as_str()))),
            codec::optional_float32(rows.iter().map(|r| r.clip_score)),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut class_id = columns.labels("class_id")?;
        let mut class_name = columns.text("class_name")?;
        let mut prompt_index = columns.uint32("prompt_index")?;
        let mut sample_index = columns.uint32("sample_index")?;
        let mut prompt = columns.text("prompt")?;
        let mut noise_seed = columns.uint64("noise_seed")?;
        let mut latent = columns.tensor("latent")?;
        let mut mean = columns.float32("mean")?;
        let mut std = columns.float32("std")?;
        let mut image = columns.image("image")?;
        let mut clip_score = columns.sparse_float32("clip_score")?;
        Ok(columns.rows(|| {
            let ImageFile { bytes: image_png, path: image_path } = image.take();
            Self {
                class_id: class_id.take(),
                class_name: class_name.take(),
                prompt_index: prompt_index.take(),
                sample_index: sample_index.take(),
                prompt: prompt.take(),
                noise_seed: noise_seed.take(),
                latent: latent.take(),
                mean: mean.take(),
                std: std.take(),
                image_png,
                image_path,
                clip_score: clip_score.take(),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latent_zero_is_grey_and_channels_have_their_colour() {
        let latent = [0.0, 3.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(false_colors(&latent, [3, 1, 2]), [128, 128, 128, 235, 128, 128]);
    }
}
