//! Training images in memory: rows of an `images` artifact, decoded.

use artifacts::{ArtifactReader, ImageRow};
use pipeline_spec::{ArtifactId, Store};
use std::path::Path;

use crate::augment::plain;
use crate::error::Error;
use crate::recipe::BatchRecipe;
use crate::rng::StepRng;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingImage {
    /// Identifier, unique in the artifact.
    pub sample_id: String,
    /// Label; `None` for an image of no class.
    pub label: Option<u32>,
    /// Name of the class.
    pub class_name: Option<String>,
    /// The parts of the source caption: label first, then keywords.
    pub names: Vec<String>,
    /// Who made it.
    pub source: String,
    /// `[3, S, S]`, row-major.
    pub pixels: Vec<u8>,
}

/// Images of one split, sorted by sample id.
#[derive(Debug, Clone)]
pub struct ImageSet {
    /// Split.
    pub split: String,
    /// Name of the artifact.
    pub origin: String,
    /// Side S of every image in pixels.
    pub side: usize,
    /// The images.
    pub images: Vec<TrainingImage>,
    /// Name of each class, by label.
    pub class_names: Vec<String>,
    /// Indices of the labelled images of each class, by label.
    by_class: Vec<Vec<usize>>,
    /// Indices of all labelled images.
    labelled: Vec<usize>,
}

impl ImageSet {
    /// Reads one split of the `images` artifact `id`; every image must have `side` x `side` pixels.
    ///
    /// # Errors
    ///
    /// Fails if the artifact is missing or damaged, has no image of the split, or an image has another size.
    pub fn read(store: &Store, id: &ArtifactId, split: &str, side: usize) -> Result<Self, Error> {
        let reader = ArtifactReader::open(store, id)?;
        let class_names = reader.class_names()?.to_vec();
        let mut rows: Vec<ImageRow> = reader.rows()?;
        rows.retain(|row| row.split == split);
        Self::from_rows(rows, split, &id.to_string(), side, class_names)
    }

    /// Decodes the rows of one split.
    ///
    /// # Errors
    ///
    /// Fails if there is no row or an image cannot be decoded or has another size.
    pub fn from_rows(
        mut rows: Vec<ImageRow>,
        split: &str,
        origin: &str,
        side: usize,
        class_names: Vec<String>,
    ) -> Result<Self, Error> {
        if rows.is_empty() {
            return Err(Error::EmptySplit { split: split.to_owned(), origin: origin.to_owned() });
        }
        rows.sort_by(|a, b| a.sample_id.cmp(&b.sample_id));
        let images = rows.into_iter().map(|row| decode(row, side)).collect::<Result<Vec<_>, _>>()?;
        let mut by_class = vec![Vec::new(); class_names.len()];
        for (index, image) in images.iter().enumerate() {
            if let Some(class) = image.label.and_then(|label| by_class.get_mut(label as usize)) {
                class.push(index);
            }
        }
        let labelled = by_class.concat();
        by_class.retain(|class: &Vec<usize>| !class.is_empty());
        Ok(Self {
            split: split.to_owned(),
            origin: origin.to_owned(),
            side,
            images,
            class_names,
            by_class,
            labelled,
        })
    }

    /// Draws the images of one batch, with replacement.
    pub fn draw_batch(&self, recipe: &BatchRecipe, rng: &mut StepRng) -> Vec<usize> {
        let num_labelled = (recipe.size as f32 * recipe.labelled_share).round() as usize;
        let draw = |position: usize| {
            if position >= num_labelled {
                rng.below(self.images.len())
            } else if rng.chance(recipe.balanced_share) {
                let class = &self.by_class[rng.below(self.by_class.len())];
                class[rng.below(class.len())]
            } else {
                self.labelled[rng.below(self.labelled.len())]
            }
        };
        (0..recipe.size).map(draw).collect()
    }

    /// Fails if `recipe` draws labelled images and there are none.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn check_batches(&self, recipe: &BatchRecipe) -> Result<(), Error> {
        if recipe.labelled_share > 0.0 && self.labelled.is_empty() {
            return Err(Error::NoLabel { split: self.split.clone() });
        }
        Ok(())
    }

    /// The images at `indices` unchanged, `[B, 3, S, S]` in 0..=1.
    pub fn plain_batch(&self, indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|&index| plain(&self.images[index].pixels)).collect()
    }

    /// Indices of all labelled images, by class.
    pub fn labelled(&self) -> &[usize] {
        &self.labelled
    }
}

/// Finds the artifact in `dir`, a folder of a store that holds `artifact.json`.
///
/// # Errors
///
/// Fails if the folder has no record or does not lie where a store keeps it.
pub fn locate(dir: &Path) -> Result<(Store, ArtifactId), Error> {
    let path = dir.join("artifact.json");
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    let record: pipeline_spec::ArtifactRecord = serde_json::from_slice(&text).map_err(|source| {
        Error::Json { path: path.clone(), expected: "the record of an artifact", source }
    })?;
    let dir = dir.canonicalize().map_err(Error::io(dir))?;
    let root = dir.ancestors().nth(3).unwrap_or(&dir);
    Ok((Store::new(root), record.id))
}

fn decode(row: ImageRow, side: usize) -> Result<TrainingImage, Error> {
    let refuse =
        |expected: String, found: String| Error::Image { sample_id: row.sample_id.clone(), expected, found };
    let image = clip_model::DecodedImage::from_bytes(&row.image.bytes, Path::new(&row.image.path))
        .map_err(|error| refuse("a PNG or JPEG file".to_owned(), error.to_string()))?
        .into_rgb();
    let (width, height) = image.dimensions();
    if width as usize != side || height as usize != side {
        return Err(refuse(format!("{side} x {side} pixels"), format!("{width} x {height}")));
    }
    let interleaved = image.into_raw();
    let pixels = (0..3).flat_map(|channel| interleaved.iter().skip(channel).step_by(3).copied()).collect();
    let names = row.caption.as_deref().unwrap_or_default().split(',').map(str::trim);
    let names = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(TrainingImage {
        sample_id: row.sample_id,
        label: row.label,
        class_name: row.class_name,
        names,
        source: row.source,
        pixels,
    })
}
