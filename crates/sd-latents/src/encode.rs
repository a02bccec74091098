//! Latents of real images: what the autoencoder makes of the training images of a shot list, and of no other image; or of
//! all images of whole splits.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use artifacts::{
    ArtifactReader, ArtifactWriter, FewshotRow, FileContext, ImageRow, LatentRow, SchemaInfo, round_to_f16,
};
use burn::tensor::{Tensor, TensorData};
use clip_model::{DecodedImage, Preprocess};
use pipeline_spec::Unit;
use pipeline_spec::spec::EncodedLatentsSpec;
use sd_model::StableDiffusion;

use crate::generate::{check_latent, moments};
use crate::picture::encode_png;
use crate::{Error, Part, Progress, Settings, Tick, model, samples, write_parts};

/// Makes the missing parts of the shard; `None` if the work was stopped.
pub fn parts(
    unit: &Unit,
    spec: &EncodedLatentsSpec,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<ArtifactWriter>, Error> {
    let images = ArtifactReader::open(settings.store, unit.input("images")?)?;
    let shots = match &spec.splits {
        Some(splits) => whole_splits(&images, splits)?,
        None => shot_list(settings, unit)?,
    };
    let rows = samples::parts_of_rows(shots.len(), spec.num_parts)?;
    let context = FileContext::new(env!("CARGO_PKG_VERSION"))
        .with("checkpoint", &spec.checkpoint.id)
        .with("checkpoint_digest", spec.checkpoint.digest.as_str());
    let writer = ArtifactWriter::open(settings.store, unit, spec.num_parts, context)?;
    let missing = writer.missing_parts(settings.shard);
    if missing.is_empty() {
        return Ok(Some(writer));
    }
    let folder = model::folder(&spec.checkpoint, settings)?;
    let model = StableDiffusion::from_path(&folder, settings.device)?;
    let scale = model.vae_config.scale();
    if !(spec.image_size as usize).is_multiple_of(scale) {
        let multiple = scale as u32;
        return Err(Error::ImageSize { what: "field `image_size`", found: spec.image_size, multiple });
    }
    let class_names = images.class_names()?.to_vec();
    let train = ["train".to_owned()];
    let splits = spec.splits.as_deref().unwrap_or(&train);
    let encoder = Encoder { model: &model, size: spec.image_size as usize, images: &images, splits };
    let lengths: Vec<usize> = rows.iter().map(ExactSizeIterator::len).collect();
    let mut make = |part: u32, tick: &mut Tick<'_>| -> Result<Part, Error> {
        let shots = &shots[rows[part as usize].clone()];
        let files = encoder.images_of(shots)?;
        let (mut rows, mut shape) = (Vec::with_capacity(shots.len()), Vec::new());
        for shot in shots {
            if tick(rows.len()).is_break() {
                return Ok(None);
            }
            let (row, latent_shape) = encoder.row(shot, &files[&shot.sample_id], &class_names)?;
            rows.push(row);
            shape = latent_shape.to_vec();
        }
        if tick(rows.len()).is_break() {
            return Ok(None);
        }
        let class_names = class_names.clone();
        Ok(Some((rows, SchemaInfo { class_names, tensor_shape: shape, ..SchemaInfo::default() })))
    };
    let is_done = write_parts(&writer, &missing, &lengths, progress, &mut make)?;
    Ok(is_done.then_some(writer))
}

/// An image to encode.
struct Shot {
    sample_id: String,
    label: u32,
    /// Position among those of its class.
    index: u32,
}

/// Images by class, each with its position there.
fn numbered(images: impl Iterator<Item = (String, u32)>) -> Vec<Shot> {
    let mut shots: Vec<Shot> = Vec::new();
    for (sample_id, label) in images {
        let index = shots.last().filter(|last| last.label == label).map_or(0, |last| last.index + 1);
        shots.push(Shot { sample_id, label, index });
    }
    shots
}

/// The training images of the shot list, by class and order of the draw.
fn shot_list(settings: &Settings<'_>, unit: &Unit) -> Result<Vec<Shot>, Error> {
    let reader = ArtifactReader::open(settings.store, unit.input("fewshot-splits")?)?;
    let mut rows = reader.rows::<FewshotRow>()?;
    rows.retain(|row| row.split == "train");
    rows.sort_by_key(|row| (row.label, row.order));
    Ok(numbered(rows.into_iter().map(|row| (row.sample_id, row.label))))
}

/// All images of `splits`, by class and identifier.
fn whole_splits(images: &ArtifactReader, splits: &[String]) -> Result<Vec<Shot>, Error> {
    let mut all = Vec::new();
    let mut missing: BTreeSet<&String> = splits.iter().collect();
    images.for_each_part::<ImageRow, Error>(|_, rows| {
        for row in rows.into_iter().filter(|row| splits.contains(&row.split)) {
            missing.remove(&row.split);
            let Some(label) = row.label else {
                return Err(fault(
                    images,
                    &row.sample_id,
                    "has no label: pack the data set with labelled images",
                ));
            };
            all.push((label, row.sample_id));
        }
        Ok(())
    })?;
    if let Some(split) = missing.pop_first() {
        let artifact = Box::new(images.record().id.clone());
        return Err(Error::MissingSplit { artifact, split: split.clone() });
    }
    all.sort_unstable();
    Ok(numbered(all.into_iter().map(|(label, sample_id)| (sample_id, label))))
}

fn fault(images: &ArtifactReader, sample_id: &str, problem: &str) -> Error {
    Error::ImageRow {
        artifact: Box::new(images.record().id.clone()),
        sample_id: sample_id.to_owned(),
        problem: problem.to_owned(),
    }
}

struct Encoder<'a> {
    model: &'a StableDiffusion,
    /// Side of the square in pixels.
    size: usize,
    images: &'a ArtifactReader,
    /// Where an image may stand.
    splits: &'a [String],
}

impl Encoder<'_> {
    /// The rows of the images that `shots` name.
    fn images_of(&self, shots: &[Shot]) -> Result<HashMap<String, ImageRow>, Error> {
        let wanted: HashMap<&str, u32> = shots.iter().map(|s| (s.sample_id.as_str(), s.label)).collect();
        let mut found = HashMap::with_capacity(wanted.len());
        self.images.for_each_part::<ImageRow, Error>(|_, rows| {
            let named = rows.into_iter().filter(|row| wanted.contains_key(row.sample_id.as_str()));
            found.extend(named.map(|row| (row.sample_id.clone(), row)));
            Ok(())
        })?;
        for (sample_id, label) in wanted {
            match found.get(sample_id) {
                None => return Err(fault(self.images, sample_id, "is not there: make the shot list again")),
                Some(row) if !self.splits.contains(&row.split) => {
                    let expected = self.splits.join("`, `");
                    let problem = format!("is of split `{}`, expected `{expected}`", row.split);
                    return Err(fault(self.images, sample_id, &problem));
                }
                Some(row) if row.label != Some(label) => {
                    let problem = format!("has the label {:?}, expected {label} of the shot list", row.label);
                    return Err(fault(self.images, sample_id, &problem));
                }
                Some(_) => {}
            }
        }
        Ok(found)
    }

    /// One image at a time: no other image can change a digit.
    fn row(
        &self,
        shot: &Shot,
        image: &ImageRow,
        class_names: &[String],
    ) -> Result<(LatentRow, [usize; 3]), Error> {
        let decoded = DecodedImage::from_bytes(&image.image.bytes, Path::new(&image.image.path))?;
        let square = Preprocess::new(self.size).square(&decoded.into_rgb());
        let side = self.size;
        let planes = (0..3).flat_map(|c| square.as_raw().iter().skip(c).step_by(3));
        let pixels: Vec<f32> = planes.map(|&value| f32::from(value) / 255.0).collect();
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, side, side]), &self.model.device);
        let latent = self.model.encode(pixels);
        let [_, channels, height, width] = latent.dims();
        let mut latent: Vec<f32> = latent.into_data().iter::<f32>().collect();
        round_to_f16(&mut latent);
        let name = format!("image `{}`", shot.sample_id);
        check_latent(name.clone(), &latent)?;
        let image_png = encode_png(square.as_raw(), [side, side])
            .map_err(|source| Error::Image { sample: name, source })?;
        let (mean, std) = moments(&latent);
        let class_name = class_names.get(shot.label as usize).cloned().unwrap_or_default();
        let row = LatentRow {
            class_id: shot.label,
            image_path: format!("{}-{:03}.png", samples::file_stem(&class_name), shot.index),
            class_name,
            prompt_index: 0,
            sample_index: shot.index,
            prompt: shot.sample_id.clone(),
            noise_seed: 0,
            latent,
            mean,
            std,
            image_png,
            clip_score: None,
        };
        Ok((row, [channels, height, width]))
    }
}
