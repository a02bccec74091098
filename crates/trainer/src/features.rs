//! Kind `features`: frozen image features under one backbone.

use std::collections::HashMap;
use std::ops::ControlFlow;

use artifacts::{ArtifactReader, FeatureRow, ImageRow};
use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use pipeline_spec::spec::{FeaturesSpec, ViewAugment};
use pipeline_spec::{ArtifactId, StageSpec, Unit};
use rayon::prelude::*;

use crate::augment::crop_flip;
use crate::backbone::{Backbone, to_vec};
use crate::images::{decode, is_training_split};
use crate::random::stream;
use crate::shot_list::{Shot, ShotList};
use crate::{Control, Error, Settings};

/// One view that is encoded.
struct View<'a> {
    sample_id: &'a str,
    split: &'a str,
    label: u32,
    path: &'a str,
    bytes: &'a [u8],
    view: u32,
}

/// Features of the images that `spec` names, as the projection gives them (not normalised), sorted by label, sample and
/// view; `None` if `control` stopped the work.
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
    let images = ArtifactReader::open(settings.store, unit.input("images")?)?;
    let shots = match spec.view {
        ViewAugment::Center => None,
        ViewAugment::CropFlip { .. } => {
            let list = ArtifactReader::open(settings.store, unit.input("fewshot-splits")?)?;
            Some(ShotList::open(&list, None)?)
        }
    };
    let rows = wanted_rows(&images, spec, shots.as_ref())?;
    let views = match spec.view {
        ViewAugment::Center => 1,
        ViewAugment::CropFlip { views, .. } => views,
    };
    let all: Vec<View<'_>> = rows
        .iter()
        .flat_map(|(row, label)| {
            (0..views).map(|view| View {
                sample_id: &row.sample_id,
                split: &row.split,
                label: *label,
                path: &row.image.path,
                bytes: &row.image.bytes,
                view,
            })
        })
        .collect();
    let mut features = Vec::with_capacity(all.len());
    for batch in all.chunks(settings.batch.max(1)) {
        if control(features.len() as u64, all.len() as u64) == ControlFlow::Break(()) {
            return Ok(None);
        }
        features.extend(encode_batch(batch, spec, backbone, &images.record().id, settings.device)?);
    }
    let done = features.len() as u64;
    if control(done, done) == ControlFlow::Break(()) {
        return Ok(None);
    }
    Ok(Some(features))
}

/// The rows to encode with their labels, sorted by label and sample.
fn wanted_rows(
    images: &ArtifactReader,
    spec: &FeaturesSpec,
    shots: Option<&ShotList>,
) -> Result<Vec<(ImageRow, u32)>, Error> {
    let id = || Box::new(images.record().id.clone());
    if let Some(shots) = shots {
        shots.check_classes(images)?;
    }
    let listed: Option<HashMap<&str, ()>> = shots.map(|shots| {
        let all = shots.train.iter().chain(&shots.val);
        all.map(|shot: &Shot| (shot.sample_id.as_str(), ())).collect()
    });
    let mut rows = Vec::new();
    let mut seen: HashMap<String, usize> = spec.splits.iter().map(|split| (split.clone(), 0)).collect();
    images.for_each_part::<ImageRow, Error>(|_, part| {
        for row in part {
            let Some(count) = seen.get_mut(&row.split) else { continue };
            if listed.as_ref().is_some_and(|listed| !listed.contains_key(row.sample_id.as_str())) {
                continue;
            }
            *count += 1;
            let label = row.label.ok_or_else(|| Error::Mismatch {
                artifact: id(),
                what: format!("label of sample `{}`", row.sample_id),
                expected: "a class".to_owned(),
                found: "none".to_owned(),
            })?;
            rows.push((row, label));
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
    rows.sort_by(|(a, label_a), (b, label_b)| (label_a, &a.sample_id).cmp(&(label_b, &b.sample_id)));
    Ok(rows)
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
        let image = decode(view.bytes, view.path).map_err(|source| Error::Image {
            artifact: Box::new(artifact.clone()),
            sample_id: view.sample_id.to_owned(),
            source,
        })?;
        backbone.preprocess.write_pixel_values(&square_view(&image, view, spec, backbone), values);
        Ok::<(), Error>(())
    })?;
    let pixel_values = Tensor::<4>::from_data(TensorData::new(values, [batch.len(), 3, size, size]), device);
    let features = backbone.clip.image_features(pixel_values);
    let [_, width] = features.dims();
    let values = to_vec(features)?;
    let row = |(view, feature): (&View<'_>, &[f32])| FeatureRow {
        sample_id: view.sample_id.to_owned(),
        split: view.split.to_owned(),
        label: view.label,
        view: view.view,
        feature: feature.to_vec(),
    };
    Ok(batch.iter().zip(values.chunks_exact(width)).map(row).collect())
}

fn square_view(image: &RgbImage, view: &View<'_>, spec: &FeaturesSpec, backbone: &Backbone) -> RgbImage {
    match spec.view {
        ViewAugment::Center => backbone.preprocess.square(image),
        ViewAugment::CropFlip { scale_min, seed, .. } => {
            let mut rng = stream(seed, "view", &[&view.view.to_string(), view.sample_id]);
            crop_flip(image, backbone.preprocess.image_size, scale_min, &mut rng)
        }
    }
}

/// Frozen features of the images of a shot list, and of no other image.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingFeatures {
    /// Width P.
    pub width: usize,
    /// Number of views of each image.
    pub views: usize,
    /// `[V, M, P]`, row-major: the training images in the order of the list, view after view.
    pub train: Vec<f32>,
    /// Labels `[M]` of the training images.
    pub train_labels: Vec<usize>,
    /// `[L, P]` of the validation images; empty for augmented views.
    pub val: Vec<f32>,
    /// Labels `[L]` of the validation images.
    pub val_labels: Vec<usize>,
}

impl TrainingFeatures {
    /// Reads the features of the images that `shots` names.
    ///
    /// # Errors
    ///
    /// Fails if the artifact was made with another backbone, holds a held-out split, or lacks an image.
    pub fn open(
        reader: &ArtifactReader,
        shots: &ShotList,
        backbone: &pipeline_spec::CheckpointRef,
    ) -> Result<Self, Error> {
        let id = || Box::new(reader.record().id.clone());
        let StageSpec::Features(spec) = &reader.record().unit.spec else {
            return Err(Error::NotMine { found: reader.record().unit.spec.kind() });
        };
        if let Some(split) = spec.splits.iter().find(|split| !is_training_split(split)) {
            return Err(Error::HeldOutSplit { artifact: id(), split: split.clone() });
        }
        if spec.backbone != *backbone {
            let show = |b: &pipeline_spec::CheckpointRef| format!("`{}` with digest {}", b.id, b.digest);
            return Err(Error::Mismatch {
                artifact: id(),
                what: "backbone".to_owned(),
                expected: show(backbone),
                found: show(&spec.backbone),
            });
        }
        shots.check_classes(reader)?;
        let (views, needs_val) = match spec.view {
            ViewAugment::Center => (1, true),
            ViewAugment::CropFlip { views, .. } => (views, false),
        };
        let mut features: HashMap<(String, u32), Vec<f32>> = HashMap::new();
        reader.for_each_part::<FeatureRow, Error>(|_, rows| {
            for row in rows {
                if !is_training_split(&row.split) {
                    return Err(Error::HeldOutSplit { artifact: id(), split: row.split });
                }
                features.insert((row.sample_id, row.view), row.feature);
            }
            Ok(())
        })?;
        let pick = |shots: &[Shot], view: u32, out: &mut Vec<f32>| -> Result<(), Error> {
            for shot in shots {
                let feature = features.get(&(shot.sample_id.clone(), view));
                out.extend(feature.ok_or_else(|| Error::MissingSample {
                    artifact: id(),
                    sample_id: shot.sample_id.clone(),
                })?);
            }
            Ok(())
        };
        let (mut train, mut val) = (Vec::new(), Vec::new());
        for view in 0..views {
            pick(&shots.train, view, &mut train)?;
        }
        if needs_val {
            pick(&shots.val, 0, &mut val)?;
        }
        let labels = |shots: &[Shot]| shots.iter().map(|shot| shot.label).collect::<Vec<_>>();
        Ok(Self {
            width: reader.tensor_shape()?.iter().product(),
            views: views as usize,
            train,
            train_labels: labels(&shots.train),
            val,
            val_labels: if needs_val { labels(&shots.val) } else { Vec::new() },
        })
    }
}

/// Divides every row of `[M, width]` by its length.
pub fn normalize_rows(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width) {
        let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}
