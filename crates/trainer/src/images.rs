//! Images as training may see them: decoded samples of a shot list, and generated samples.

use std::collections::HashMap;
use std::path::Path;

use artifacts::{ArtifactReader, ImageRow, LatentRow};
use clip_model::DecodedImage;
use flier_model::init::normal;
use image::RgbImage;
use pipeline_spec::ArtifactId;
use pipeline_spec::spec::{LatentControl, StageSpec};

use crate::Error;
use crate::random::{below, shuffle, stream};
use crate::shot_list::{Shot, ShotList, check_classes};

/// A decoded image with its label.
#[derive(Debug, Clone)]
pub struct LabeledImage {
    /// Identifier; names its stream of random numbers.
    pub sample_id: String,
    /// Class.
    pub label: usize,
    /// The image at its stored size.
    pub image: RgbImage,
}

/// The images of a shot list, and no other image of the data set.
///
/// This is the only way in which training gets at real images: it is made from the identifiers of a shot list, decodes
/// those images only, and refuses one that the data set keeps in any split but `train` and `val`.
#[derive(Debug, Clone)]
pub struct TrainingImages {
    train: Vec<LabeledImage>,
    val: Vec<LabeledImage>,
}

impl TrainingImages {
    /// Decodes the images that `shots` names.
    ///
    /// # Errors
    ///
    /// Fails if the images cannot be read or decoded, an identifier is missing, stands in a held-out split or has
    /// another label, or the classes differ.
    pub fn open(images: &ArtifactReader, shots: &ShotList) -> Result<Self, Error> {
        shots.check_classes(images)?;
        let id = || Box::new(images.record().id.clone());
        let mut wanted: HashMap<&str, Option<LabeledImage>> =
            shots.train.iter().chain(&shots.val).map(|shot| (shot.sample_id.as_str(), None)).collect();
        images.for_each_part::<ImageRow, Error>(|_, rows| {
            for row in rows {
                let Some(slot) = wanted.get_mut(row.sample_id.as_str()) else { continue };
                if !is_training_split(&row.split) {
                    return Err(Error::HeldOutSplit { artifact: id(), split: row.split });
                }
                let image = decode(&row.image.bytes, &row.image.path).map_err(|source| Error::Image {
                    artifact: id(),
                    sample_id: row.sample_id.clone(),
                    source,
                })?;
                let label = row.label.map_or(usize::MAX, |label| label as usize);
                *slot = Some(LabeledImage { sample_id: row.sample_id, label, image });
            }
            Ok(())
        })?;
        let pick = |shot: &Shot| -> Result<LabeledImage, Error> {
            let image = wanted.get(shot.sample_id.as_str()).and_then(Option::as_ref);
            let image = image
                .ok_or_else(|| Error::MissingSample { artifact: id(), sample_id: shot.sample_id.clone() })?;
            if image.label != shot.label {
                return Err(Error::Mismatch {
                    artifact: id(),
                    what: format!("label of sample `{}`", shot.sample_id),
                    expected: shot.label.to_string(),
                    found: image.label.to_string(),
                });
            }
            Ok(image.clone())
        };
        Ok(Self {
            train: shots.train.iter().map(pick).collect::<Result<_, _>>()?,
            val: shots.val.iter().map(pick).collect::<Result<_, _>>()?,
        })
    }

    /// Training images, in the order of the list.
    pub fn train(&self) -> &[LabeledImage] {
        &self.train
    }

    /// Validation images, in the order of the list.
    pub fn val(&self) -> &[LabeledImage] {
        &self.val
    }
}

/// Whether training may see the split.
pub fn is_training_split(split: &str) -> bool {
    matches!(split, "train" | "val")
}

/// A generated image with its latent.
#[derive(Debug, Clone)]
pub struct GeneratedSample {
    /// The image.
    pub image: LabeledImage,
    /// Scaled latent `[C, H, W]` in row-major order.
    pub latent: Vec<f32>,
}

/// Whether `latents` are of real images. Those must be the images of the run's own shot list: any other, and above all whole
/// splits, show images that the run may not see.
///
/// # Errors
///
/// Fails if they are of other real images.
pub fn check_latents(latents: &ArtifactReader, shots: &ArtifactId) -> Result<bool, Error> {
    let record = latents.record();
    let StageSpec::EncodedLatents(spec) = &record.unit.spec else { return Ok(false) };
    let found = match (&spec.splits, record.unit.inputs.get("fewshot-splits")) {
        (None, Some(found)) if found.key == shots.key => return Ok(true),
        (None, Some(found)) => found.to_string(),
        (splits, _) => format!("all images of `{}`", splits.as_deref().unwrap_or_default().join("`, `")),
    };
    Err(Error::Mismatch {
        artifact: Box::new(record.id.clone()),
        what: "shot list of the encoded images".to_owned(),
        expected: shots.to_string(),
        found,
    })
}

/// `per_class` generated samples of each class: a draw by the run's seed from those in the order of prompt and sample.
///
/// # Errors
///
/// Fails if the latents cannot be read or an image cannot be decoded, the classes differ, or a class has too few samples.
pub fn generated_samples(
    latents: &ArtifactReader,
    class_names: &[String],
    per_class: usize,
    seed: u64,
) -> Result<Vec<GeneratedSample>, Error> {
    let sample = |row: LatentRow| {
        let sample_id = generated_id(&row);
        let image = decode(&row.image_png, &row.image_path).map_err(|source| Error::Image {
            artifact: Box::new(latents.record().id.clone()),
            sample_id: sample_id.clone(),
            source,
        })?;
        let image = LabeledImage { sample_id, label: row.class_id as usize, image };
        Ok(GeneratedSample { image, latent: row.latent })
    };
    generated_rows(latents, class_names, per_class, seed)?.into_iter().map(sample).collect()
}

/// The rows of [`generated_samples`], in their order.
///
/// # Errors
///
/// Fails if the latents cannot be read, the classes differ, or a class has too few samples.
pub fn generated_rows(
    latents: &ArtifactReader,
    class_names: &[String],
    per_class: usize,
    seed: u64,
) -> Result<Vec<LatentRow>, Error> {
    check_classes(latents, class_names)?;
    let chosen = choose_generated(latents, class_names, per_class, seed)?;
    let mut found: HashMap<SampleKey, Option<LatentRow>> = chosen.iter().map(|key| (*key, None)).collect();
    latents.for_each_part::<LatentRow, Error>(|_, rows| {
        for row in rows {
            if let Some(place) = found.get_mut(&key_of(&row)) {
                place.get_or_insert(row);
            }
        }
        Ok(())
    })?;
    let missing = |key: &SampleKey| Error::MissingSample {
        artifact: Box::new(latents.record().id.clone()),
        sample_id: format!("{}/{}/{}", key.0, key.1, key.2),
    };
    chosen.iter().map(|key| found.remove(key).flatten().ok_or_else(|| missing(key))).collect()
}

/// Gives every sample what `control` puts in place of its latent, by the run's seed.
pub fn replace_latents(samples: &mut [GeneratedSample], control: LatentControl, seed: u64) {
    match control {
        LatentControl::Shuffled => {
            let mut rng = stream(seed, "shuffled-latents", &[]);
            // Sattolo's cycle: no latent stays where it was.
            for last in (1..samples.len()).rev() {
                let other = below(&mut rng, last);
                let (before, after) = samples.split_at_mut(last);
                std::mem::swap(&mut before[other].latent, &mut after[0].latent);
            }
        }
        LatentControl::Noise => {
            for sample in samples {
                let mut rng = stream(seed, "noise-latents", &[&sample.image.sample_id]);
                sample.latent.iter_mut().for_each(|value| *value = normal(&mut rng) as f32);
            }
        }
    }
}

/// Name of a generated sample.
pub fn generated_id(row: &LatentRow) -> String {
    let (class, prompt, sample) = key_of(row);
    format!("{class}/{prompt}/{sample}")
}

/// Class, prompt and sample.
type SampleKey = (u32, u32, u32);

fn key_of(row: &LatentRow) -> SampleKey {
    (row.class_id, row.prompt_index, row.sample_index)
}

fn choose_generated(
    latents: &ArtifactReader,
    class_names: &[String],
    per_class: usize,
    seed: u64,
) -> Result<Vec<SampleKey>, Error> {
    let mut keys: Vec<Vec<SampleKey>> = vec![Vec::new(); class_names.len()];
    latents.for_each_part::<LatentRow, Error>(|_, rows| {
        for row in &rows {
            // The reader has checked that the class is one of the names.
            if let Some(keys) = keys.get_mut(row.class_id as usize) {
                keys.push(key_of(row));
            }
        }
        Ok(())
    })?;
    let mut chosen = Vec::with_capacity(per_class * class_names.len());
    for (class, mut keys) in keys.into_iter().enumerate() {
        if keys.len() < per_class {
            return Err(Error::TooFewGenerated {
                artifact: Box::new(latents.record().id.clone()),
                class_name: class_names[class].clone(),
                expected: per_class,
                found: keys.len(),
            });
        }
        keys.sort_unstable();
        shuffle(&mut keys, &mut stream(seed, "generated", &[&class.to_string()]));
        keys.truncate(per_class);
        chosen.extend(keys);
    }
    Ok(chosen)
}

/// Decodes PNG or JPEG to 8-bit RGB, as Pillow's `convert("RGB")` does; `path` names the image in errors.
pub(crate) fn decode(bytes: &[u8], path: &str) -> Result<RgbImage, Box<clip_model::Error>> {
    Ok(DecodedImage::from_bytes(bytes, Path::new(path))?.into_rgb())
}
