//! `sd-latents show`: a contact sheet of latents and their images.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::{ArtifactReader, LatentRow, false_colors, read_part};
use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use pipeline_spec::layout::part_name;
use pipeline_spec::{ArtifactId, PartRecord, Store};

use crate::Error;

/// Pixels between tiles.
const GAP: u32 = 4;
/// Largest sheet in pixels: 300 MB in memory.
const MAX_PIXELS: u64 = 100_000_000;

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// One part, which may be of an artifact that is not finished; `None` for the whole artifact.
    pub part: Option<u32>,
    /// Samples of each class at most.
    pub per_class: usize,
    /// Longest side of a tile in pixels; smaller images keep their size.
    pub tile: u32,
}

/// Writes a sheet of `id`: one line for each class, on it the latent, or those of each kept step, and the image of some
/// samples.
///
/// # Errors
///
/// Fails if the artifact cannot be read, is empty or too large for one sheet, or the file cannot be written.
pub fn show(store: &Store, id: &ArtifactId, show: Show, out: &Path) -> Result<(), Error> {
    let mut sheet = Sheet { show, lines: BTreeMap::new() };
    match show.part {
        Some(part) => sheet.add_part(store, id, part)?,
        None => {
            let reader = ArtifactReader::open(store, id)?;
            let steps = num_steps(&serde_json::json!(reader.record().unit.spec));
            let shape = reader.tensor_shape()?.to_vec();
            reader.for_each_part::<LatentRow, Error>(|_, rows| sheet.add(&rows, &shape, steps))?;
        }
    }
    let lines: Vec<Vec<RgbImage>> = sheet.lines.into_values().collect();
    let sheet = tiled(&lines, id)?;
    sheet.save(out).map_err(|source| Error::Sheet { path: out.to_owned(), source })
}

/// Latents kept of each sample by a specification: 1 unless it names steps.
pub(crate) fn num_steps(spec: &serde_json::Value) -> usize {
    spec.pointer("/spec/options/latent_steps").and_then(serde_json::Value::as_array).map_or(1, Vec::len)
}

struct Sheet {
    show: Show,
    /// Tiles by class.
    lines: BTreeMap<u32, Vec<RgbImage>>,
}

impl Sheet {
    /// Adds the rows of one committed part.
    fn add_part(&mut self, store: &Store, id: &ArtifactId, part: u32) -> Result<(), Error> {
        let missing = || Error::NoPart { id: id.to_string(), part };
        let names = std::fs::read_dir(store.commit_dir(id)).map_err(|_| missing())?;
        let start = part_name(part, 1, "json").split("-of-").next().unwrap_or_default().to_owned() + "-of-";
        let path = names
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
            .ok_or_else(missing)?;
        let text = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let record: PartRecord = serde_json::from_slice(&text).map_err(|_| missing())?;
        let part = read_part::<LatentRow>(&store.data_dir(id), &record, &id.key)?;
        let spec = part.metadata.get("flier.spec").and_then(|text| serde_json::from_str(text).ok());
        self.add(&part.rows, &part.tensor_shape, num_steps(&spec.unwrap_or_default()))
    }

    /// Adds rows whose latents hold `steps` latents each, stacked along the channels of `shape`.
    fn add(&mut self, rows: &[LatentRow], shape: &[usize], steps: usize) -> Result<(), Error> {
        let &[all_channels, height, width] = shape else { return Ok(()) };
        let channels = (all_channels / steps.max(1)).max(1);
        for row in rows {
            let line = self.lines.entry(row.class_id).or_default();
            if line.len() >= self.show.per_class * (steps + 1) {
                continue;
            }
            let decode = |source| Error::Decode { name: row.image_path.clone(), source };
            let image = image::load_from_memory(&row.image_png).map_err(decode)?.to_rgb8();
            let image = fitted(image, self.show.tile);
            for latent in row.latent.chunks_exact(channels * height * width) {
                let pixels = false_colors(latent, [channels, height, width]);
                let Some(picture) = RgbImage::from_raw(width as u32, height as u32, pixels) else { continue };
                let size = image.dimensions();
                line.push(image::imageops::resize(&picture, size.0, size.1, FilterType::Nearest));
            }
            line.push(image);
        }
        Ok(())
    }
}

/// The image, made smaller so that its longest side is `tile` pixels.
fn fitted(image: RgbImage, tile: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longest = width.max(height);
    if longest <= tile {
        return image;
    }
    let side = |side: u32| (u64::from(side) * u64::from(tile) / u64::from(longest)).max(1) as u32;
    image::imageops::resize(&image, side(width), side(height), FilterType::Triangle)
}

/// The lines below each other on white.
fn tiled(lines: &[Vec<RgbImage>], id: &ArtifactId) -> Result<RgbImage, Error> {
    let line_width = |line: &Vec<RgbImage>| line.iter().map(|i| i.width() + GAP).sum::<u32>();
    let line_height = |line: &Vec<RgbImage>| line.iter().map(|i| i.height() + GAP).max().unwrap_or(0);
    let width = GAP + lines.iter().map(line_width).max().unwrap_or(0);
    let height = GAP + lines.iter().map(line_height).sum::<u32>();
    if width == GAP || height == GAP {
        return Err(Error::NothingToShow { id: id.to_string() });
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::SheetTooLarge { width, height });
    }
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    let mut y = GAP;
    for line in lines {
        let mut x = GAP;
        for tile in line {
            image::imageops::replace(&mut sheet, tile, i64::from(x), i64::from(y));
            x += tile.width() + GAP;
        }
        y += line_height(line);
    }
    Ok(sheet)
}
