//! Pictures of the report: real beside generated images, and latents beside their images.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use artifacts::{ArtifactReader, FewshotRow, ImageRow, LatentRow, false_colors};
use clip_model::DecodedImage;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{self, FilterType};
use image::{DynamicImage, Rgb, RgbImage};
use pipeline_spec::{ArtifactId, Plan, StageSpec, Store};
use plotters::prelude::*;

use super::chart::{FONT, drawing_error, register_font};
use crate::Error;

/// Side of a tile in pixels.
const TILE: u32 = 72;
/// Pixels between tiles.
const GAP: u32 = 3;
/// Pixels between the two halves of a block, and between blocks.
const GUTTER: u32 = 16;
/// Height of a line of text in pixels.
const LABEL: u32 = 20;
/// Real, and generated, images of a class.
const PER_CLASS: usize = 4;

/// The pictures that the artifacts of the store allow.
#[derive(Debug, Clone, Default)]
pub struct Pictures {
    /// Real few-shot images beside generated ones, per class.
    pub contact_sheet: Option<RgbImage>,
    /// Latents beside their decoded images.
    pub latents: Option<RgbImage>,
    /// Artifacts that would be needed for a picture and are not there.
    pub missing: Vec<ArtifactId>,
    /// What the real images of the contact sheet are.
    pub shot_list: Option<ArtifactId>,
}

/// Draws the pictures.
///
/// # Errors
///
/// Fails if an artifact that is there cannot be read or an image does not decode.
pub fn draw(plan: &Plan, store: &Store) -> Result<Pictures, Error> {
    let outputs = |wanted: fn(&StageSpec) -> bool| {
        plan.units.iter().filter(move |p| wanted(&p.unit.spec)).map(|p| &p.output)
    };
    let mut pictures = Pictures::default();
    let mut present = |id: Option<&ArtifactId>| {
        let id = id?;
        let is_there = store.contains(id);
        if !is_there {
            pictures.missing.push(id.clone());
        }
        is_there.then(|| id.clone())
    };
    let is_latents = |s: &StageSpec| matches!(s, StageSpec::Latents(_) | StageSpec::EncodedLatents(_));
    let latents = present(outputs(is_latents).next());
    let images = present(outputs(|s| matches!(s, StageSpec::Images(_))).next());
    let shot_list = present(largest_shot_list(plan));
    let generated = match &latents {
        Some(id) => Some(Generated::read(store, id)?),
        None => None,
    };
    if let (Some(images), Some(shot_list)) = (&images, &shot_list) {
        let real = real_images(store, images, shot_list)?;
        let class_names = ArtifactReader::open(store, images)?.class_names()?.to_vec();
        let blocks = class_names.iter().enumerate().map(|(class, name)| {
            let class = class as u32;
            let generated = generated.as_ref().and_then(|g| g.samples.get(&class));
            let generated =
                generated.map_or(vec![], |samples| samples.iter().map(|s| s.image.clone()).collect());
            Block {
                label: name.clone(),
                left: real.get(&class).cloned().unwrap_or_default(),
                right: generated,
            }
        });
        let right = if generated.is_some() { PER_CLASS } else { 0 };
        pictures.contact_sheet = Some(sheet(&blocks.collect::<Vec<_>>(), [PER_CLASS, right], 2)?);
        pictures.shot_list = Some(shot_list.clone());
    }
    if let Some(generated) = &generated {
        let mut blocks = Vec::new();
        for (class, samples) in &generated.samples {
            if let Some(sample) = samples.first() {
                let label = generated.class_names.get(*class as usize).cloned().unwrap_or_default();
                blocks.push(Block {
                    label,
                    left: vec![sample.latent.clone()],
                    right: vec![sample.image.clone()],
                });
            }
        }
        pictures.latents = Some(sheet(&blocks, [1, 1], 6)?);
    }
    Ok(pictures)
}

/// The image as PNG.
///
/// # Errors
///
/// Fails if the encoder does.
pub fn encode_png(image: &RgbImage) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(Cursor::new(&mut bytes), CompressionType::Default, PngFilter::Adaptive);
    image.write_with_encoder(encoder).map_err(Error::Encode)?;
    Ok(bytes)
}

/// The shot list with the most shots and the first seed.
fn largest_shot_list(plan: &Plan) -> Option<&ArtifactId> {
    let lists = plan.units.iter().filter_map(|p| match &p.unit.spec {
        StageSpec::FewshotSplits(spec) => Some((spec.shots, std::cmp::Reverse(spec.seed), &p.output)),
        _ => None,
    });
    lists.max_by_key(|&(shots, seed, _)| (shots, seed)).map(|(_, _, id)| id)
}

/// The first training images of a shot list, by class, as tiles.
fn real_images(
    store: &Store,
    images: &ArtifactId,
    shot_list: &ArtifactId,
) -> Result<BTreeMap<u32, Vec<RgbImage>>, Error> {
    let mut wanted: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    let mut rows = ArtifactReader::open(store, shot_list)?.rows::<FewshotRow>()?;
    rows.retain(|r| r.split == "train");
    rows.sort_by_key(|r| r.order);
    for row in rows {
        let count = counts.entry(row.label).or_default();
        if *count < PER_CLASS {
            *count += 1;
            wanted.insert(row.sample_id, (row.label, row.order));
        }
    }
    let mut found: BTreeMap<(u32, u32), RgbImage> = BTreeMap::new();
    ArtifactReader::open(store, images)?.for_each_part::<ImageRow, Error>(|_, part| {
        for row in part {
            if let Some(place) = wanted.get(&row.sample_id) {
                found.insert(*place, tile(&row.image.bytes, &row.image.path, images)?);
            }
        }
        Ok(())
    })?;
    let mut by_class: BTreeMap<u32, Vec<RgbImage>> = BTreeMap::new();
    for ((class, _), image) in found {
        by_class.entry(class).or_default().push(image);
    }
    Ok(by_class)
}

/// A generated sample as tiles.
struct Sample {
    latent: RgbImage,
    image: RgbImage,
}

/// The first samples of each class.
struct Generated {
    class_names: Vec<String>,
    samples: BTreeMap<u32, Vec<Sample>>,
}

impl Generated {
    fn read(store: &Store, id: &ArtifactId) -> Result<Self, Error> {
        let reader = ArtifactReader::open(store, id)?;
        let &[channels, height, width] = reader.tensor_shape()? else {
            let found = reader.tensor_shape()?;
            let reason = format!("`{id}` holds latents of shape {found:?}, expected [C, H, W]");
            return Err(Error::Drawing { reason });
        };
        let shape = [channels, height, width];
        let class_names = reader.class_names()?.to_vec();
        let mut samples: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
        reader.for_each_part::<LatentRow, Error>(|_, part| {
            for row in part {
                let of_class = samples.entry(row.class_id).or_default();
                if of_class.len() < PER_CLASS {
                    let image = tile(&row.image_png, &row.image_path, id)?;
                    let latent = latent_tile(&row, shape)?;
                    of_class.push(Sample { latent, image });
                }
            }
            Ok(())
        })?;
        Ok(Self { class_names, samples })
    }
}

/// A latent in false colours as a square tile.
fn latent_tile(row: &LatentRow, shape: [usize; 3]) -> Result<RgbImage, Error> {
    let [_, height, width] = shape.map(|size| size as u32);
    let picture = RgbImage::from_raw(width, height, false_colors(&row.latent, shape)).ok_or_else(|| {
        Error::Drawing { reason: format!("latent `{}` does not fill {width} x {height}", row.image_path) }
    })?;
    Ok(imageops::resize(&picture, TILE, TILE, FilterType::Nearest))
}

/// An image file as a square tile: the largest centred square, resized.
fn tile(bytes: &[u8], name: &str, artifact: &ArtifactId) -> Result<RgbImage, Error> {
    let decoded = DecodedImage::from_bytes(bytes, Path::new(name)).map_err(|source| Error::Image {
        name: name.to_owned(),
        artifact: artifact.to_string(),
        source: Box::new(source),
    })?;
    let decoded = DynamicImage::ImageRgb8(decoded.into_rgb());
    Ok(decoded.resize_to_fill(TILE, TILE, FilterType::Lanczos3).into_rgb8())
}

/// A label over two rows of tiles that stand beside each other.
struct Block {
    label: String,
    left: Vec<RgbImage>,
    right: Vec<RgbImage>,
}

/// Blocks with room for `tiles` left and right tiles, `columns` of them beside each other.
fn sheet(blocks: &[Block], tiles: [usize; 2], columns: usize) -> Result<RgbImage, Error> {
    let width_of = |count: usize| (TILE + GAP) * count as u32;
    let block_width = width_of(tiles[0]) + GUTTER / 2 + width_of(tiles[1]) + GUTTER;
    let block_height = LABEL + TILE + GAP + GUTTER / 2;
    let columns = columns.min(blocks.len()).max(1);
    let rows = blocks.len().div_ceil(columns).max(1);
    let size = (GUTTER + block_width * columns as u32, GUTTER / 2 + block_height * rows as u32);
    let mut sheet = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
    let place = |index: usize| {
        let (column, row) = ((index % columns) as u32, (index / columns) as u32);
        (GUTTER + column * block_width, GUTTER / 2 + row * block_height)
    };
    for (index, block) in blocks.iter().enumerate() {
        let (left, top) = place(index);
        let mut x = left;
        for image in &block.left {
            imageops::replace(&mut sheet, image, i64::from(x), i64::from(top + LABEL));
            x += TILE + GAP;
        }
        x = left + width_of(tiles[0]) + GUTTER / 2;
        for image in &block.right {
            imageops::replace(&mut sheet, image, i64::from(x), i64::from(top + LABEL));
            x += TILE + GAP;
        }
    }
    register_font()?;
    {
        let area = BitMapBackend::with_buffer(&mut sheet, size).into_drawing_area();
        let font = (FONT, 13).into_font().color(&RGBColor(40, 40, 40));
        for (index, block) in blocks.iter().enumerate() {
            let (left, top) = place(index);
            let at = (left.cast_signed(), top.cast_signed() + 3);
            let label = fitting(&block.label, block_width - GUTTER);
            area.draw(&Text::new(label, at, font.clone())).map_err(drawing_error)?;
        }
        area.present().map_err(drawing_error)?;
    }
    Ok(sheet)
}

/// The label, cut to about `width` pixels.
fn fitting(label: &str, width: u32) -> String {
    // A character is 7 pixels wide on average.
    let room = (width / 7) as usize;
    if label.chars().count() <= room {
        return label.to_owned();
    }
    let kept: String = label.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}
