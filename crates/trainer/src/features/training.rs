//! Features as training may read them.

use std::collections::HashMap;

use artifacts::{ArtifactReader, FeatureRow};
use burn::tensor::{Device, Tensor, TensorData};
use pipeline_spec::spec::{FeatureLayer, FeaturesSpec, ViewAugment};
use pipeline_spec::{CheckpointRef, StageSpec};

use crate::Error;
use crate::images::is_training_split;
use crate::shot_list::{Shot, ShotList};

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
    /// Reads the features of the images that `shots` names, taken under `backbone` at `layer`.
    ///
    /// # Errors
    ///
    /// Fails if the artifact was made otherwise, holds a held-out split, or lacks an image.
    pub fn open(
        reader: &ArtifactReader,
        shots: &ShotList,
        backbone: &CheckpointRef,
        layer: Option<FeatureLayer>,
    ) -> Result<Self, Error> {
        let id = || Box::new(reader.record().id.clone());
        let spec = checked_spec(reader, backbone, layer)?;
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

    /// Reads the features of generated images, all of them, as training images.
    ///
    /// # Errors
    ///
    /// Fails if the artifact was made otherwise or its classes are not those of `shots`.
    pub fn open_generated(
        reader: &ArtifactReader,
        shots: &ShotList,
        backbone: &CheckpointRef,
    ) -> Result<Self, Error> {
        let spec = checked_spec(reader, backbone, None)?;
        shots.check_classes(reader)?;
        let views = match spec.view {
            ViewAugment::Center => 1,
            ViewAugment::CropFlip { views, .. } => views as usize,
        };
        let mut rows = reader.rows::<FeatureRow>()?;
        rows.sort_by(|a, b| (a.view, a.label, &a.sample_id).cmp(&(b.view, b.label, &b.sample_id)));
        let count = rows.len() / views;
        Ok(Self {
            width: reader.tensor_shape()?.iter().product(),
            views,
            train_labels: rows[..count].iter().map(|row| row.label as usize).collect(),
            train: rows.into_iter().flat_map(|row| row.feature).collect(),
            val: Vec::new(),
            val_labels: Vec::new(),
        })
    }

    /// The training images of both, view by view; views that only one of them has are left out.
    pub fn joined(&self, other: &Self) -> Self {
        let views = self.views.min(other.views);
        let view_of = |features: &Self, view: usize| {
            let size = features.train_labels.len() * features.width;
            features.train[view * size..(view + 1) * size].to_vec()
        };
        let both = |view| [view_of(self, view), view_of(other, view)].concat();
        Self {
            views,
            train: (0..views).flat_map(both).collect(),
            train_labels: [self.train_labels.as_slice(), &other.train_labels].concat(),
            ..self.clone()
        }
    }

    /// Some of the rows, `[rows, P]`, on a device.
    pub fn tensor(&self, rows: &[f32], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len() / self.width, self.width]), device)
    }
}

/// The spec of an artifact of features that training may read.
fn checked_spec<'a>(
    reader: &'a ArtifactReader,
    backbone: &CheckpointRef,
    layer: Option<FeatureLayer>,
) -> Result<&'a FeaturesSpec, Error> {
    let id = || Box::new(reader.record().id.clone());
    let StageSpec::Features(spec) = &reader.record().unit.spec else {
        return Err(Error::NotMine { found: reader.record().unit.spec.kind() });
    };
    if let Some(split) = spec.splits.iter().find(|split| !is_training_split(split)) {
        return Err(Error::HeldOutSplit { artifact: id(), split: split.clone() });
    }
    if (&spec.backbone, spec.layer) != (backbone, layer) {
        let show = |b: &CheckpointRef, layer: Option<FeatureLayer>| {
            let layer = layer.map_or("the projection's output", |_| "pre-projection");
            format!("`{}` with digest {}, {layer}", b.id, b.digest)
        };
        return Err(Error::Mismatch {
            artifact: id(),
            what: "backbone".to_owned(),
            expected: show(backbone, layer),
            found: show(&spec.backbone, spec.layer),
        });
    }
    Ok(spec)
}

/// Divides every row of `[M, width]` by its length.
pub fn normalize_rows(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width) {
        let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}
