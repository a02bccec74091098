//! Kind `features`: frozen image features under one backbone.

mod training;

pub use training::{TrainingFeatures, normalize_rows};

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use artifacts::{ArtifactReader, FeatureRow, ImageRow, LatentRow};
use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use pipeline_spec::spec::{FeaturesSpec, StageSpec, ViewAugment};
use pipeline_spec::{ArtifactId, Unit};
use rayon::prelude::*;

use crate::augment::crop_flip;
use crate::backbone::{Backbone, to_vec};
use crate::images::{decode, generated_id, generated_rows};
use crate::random::stream;
use crate::shot_list::{Shot, ShotList};
use crate::{Control, Error, Settings};

/// An encoded image with its label.
struct Source {
    sample_id: String,
    split: String,
    label: u32,
    path: String,
    bytes: Vec<u8>,
}

/// One view that is encoded.
struct View<'a> {
    source: &'a Source,
    view: u32,
}

/// Features of the images that `spec` names, not normalised, sorted by label, sample and view; `None` if `control` stopped
/// the work.
///
/// # Errors
///
/// Fails if an input cannot be read, an image has no label or cannot be decoded, or a split has no image.
pub fn encode(
    unit: &Unit,
    spec: &FeaturesSpec,
    backbone: &Backbone,
    settings: &Settings<'_>,
    control: &mut Control<'_>,
) -> Result<Option<Vec<FeatureRow>>, Error> {
    let input = ArtifactReader::open(settings.store, unit.input(input_name(spec))?)?;
    let sources = match (spec.generated_per_class, spec.view) {
        (Some(per_class), ViewAugment::CropFlip { seed, .. }) => generated(&input, per_class, seed)?,
        (None, ViewAugment::CropFlip { .. }) => {
            let list = ArtifactReader::open(settings.store, unit.input("fewshot-splits")?)?;
            wanted(&input, spec, Some(&ShotList::open(&list, None)?))?
        }
        (_, ViewAugment::Center) => wanted(&input, spec, None)?,
    };
    let views = match spec.view {
        ViewAugment::Center => 1,
        ViewAugment::CropFlip { views, .. } => views,
    };
    let all: Vec<View<'_>> =
        sources.iter().flat_map(|source| (0..views).map(move |view| View { source, view })).collect();
    let mut features = Vec::with_capacity(all.len());
    for batch in all.chunks(settings.batch.max(1)) {
        if control(features.len() as u64, all.len() as u64) == ControlFlow::Break(()) {
            return Ok(None);
        }
        features.extend(encode_batch(batch, spec, backbone, &input.record().id, settings.device)?);
    }
    let done = features.len() as u64;
    if control(done, done) == ControlFlow::Break(()) {
        return Ok(None);
    }
    Ok(Some(features))
}

/// Name of the input that holds the images.
pub fn input_name(spec: &FeaturesSpec) -> &'static str {
    if spec.generated_per_class.is_some() { "latents" } else { "images" }
}

/// The generated images of a run with this seed, which are those that fine-tuning with it uses.
fn generated(latents: &ArtifactReader, per_class: u32, seed: u64) -> Result<Vec<Source>, Error> {
    if let StageSpec::EncodedLatents(_) = latents.record().unit.spec {
        return Err(Error::Mismatch {
            artifact: Box::new(latents.record().id.clone()),
            what: "source of the images".to_owned(),
            expected: "generated samples, as `generated_per_class` says".to_owned(),
            found: "encoded images of a shot list".to_owned(),
        });
    }
    let rows = generated_rows(latents, latents.class_names()?, per_class as usize, seed)?;
    let source = |row: LatentRow| Source {
        sample_id: generated_id(&row),
        split: "train".to_owned(),
        label: row.class_id,
        path: row.image_path,
        bytes: row.image_png,
    };
    let mut sources: Vec<Source> = rows.into_iter().map(source).collect();
    sources.sort_by(|a, b| (a.label, &a.sample_id).cmp(&(b.label, &b.sample_id)));
    Ok(sources)
}

/// The real images to encode, sorted by label and sample.
fn wanted(
    images: &ArtifactReader,
    spec: &FeaturesSpec,
    shots: Option<&ShotList>,
) -> Result<Vec<Source>, Error> {
    let id = || Box::new(images.record().id.clone());
    if let Some(shots) = shots {
        shots.check_classes(images)?;
    }
    let listed: Option<HashSet<&str>> = shots.map(|shots| {
        let all = shots.train.iter().chain(&shots.val);
        all.map(|shot: &Shot| shot.sample_id.as_str()).collect()
    });
    let mut sources = Vec::new();
    let mut seen: HashMap<String, usize> = spec.splits.iter().map(|split| (split.clone(), 0)).collect();
    images.for_each_part::<ImageRow, Error>(|_, part| {
        for row in part {
            let Some(count) = seen.get_mut(&row.split) else { continue };
            if listed.as_ref().is_some_and(|listed| !listed.contains(row.sample_id.as_str())) {
                continue;
            }
            *count += 1;
            let label = row.label.ok_or_else(|| Error::Mismatch {
                artifact: id(),
                what: format!("label of sample `{}`", row.sample_id),
                expected: "a class".to_owned(),
                found: "none".to_owned(),
            })?;
            let ImageRow { sample_id, split, image, .. } = row;
            sources.push(Source { sample_id, split, label, path: image.path, bytes: image.bytes });
        }
        Ok(())
    })?;
    if let Some(split) = spec.splits.iter().find(|split| seen.get(*split) == Some(&0)) {
        return Err(Error::Mismatch {
            artifact: id(),
            what: format!("images of split `{split}`"),
            expected: "at least one".to_owned(),
            found: "none".to_owned(),
        });
    }
    sources.sort_by(|a, b| (a.label, &a.sample_id).cmp(&(b.label, &b.sample_id)));
    Ok(sources)
}

fn encode_batch(
    batch: &[View<'_>],
    spec: &FeaturesSpec,
    backbone: &Backbone,
    artifact: &ArtifactId,
    device: &Device,
) -> Result<Vec<FeatureRow>, Error> {
    let size = backbone.preprocess.image_size;
    let mut values = vec![0.0; batch.len() * 3 * size * size];
    values.par_chunks_mut(3 * size * size).zip(batch).try_for_each(|(values, view)| {
        let image = decode(&view.source.bytes, &view.source.path).map_err(|source| Error::Image {
            artifact: Box::new(artifact.clone()),
            sample_id: view.source.sample_id.clone(),
            source,
        })?;
        backbone.preprocess.write_pixel_values(&square_view(&image, view, spec, backbone), values);
        Ok::<(), Error>(())
    })?;
    let pixel_values = Tensor::<4>::from_data(TensorData::new(values, [batch.len(), 3, size, size]), device);
    let features = backbone.image_features(pixel_values, spec.layer);
    let [_, width] = features.dims();
    let values = to_vec(features)?;
    let row = |(view, feature): (&View<'_>, &[f32])| FeatureRow {
        sample_id: view.source.sample_id.clone(),
        split: view.source.split.clone(),
        label: view.source.label,
        view: view.view,
        feature: feature.to_vec(),
    };
    Ok(batch.iter().zip(values.chunks_exact(width)).map(row).collect())
}

fn square_view(image: &RgbImage, view: &View<'_>, spec: &FeaturesSpec, backbone: &Backbone) -> RgbImage {
    match spec.view {
        ViewAugment::Center => backbone.preprocess.square(image),
        ViewAugment::CropFlip { scale_min, seed, .. } => {
            let mut rng = stream(seed, "view", &[&view.view.to_string(), &view.source.sample_id]);
            crop_flip(image, backbone.preprocess.image_size, scale_min, &mut rng)
        }
    }
}
