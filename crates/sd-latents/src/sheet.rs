//! `sd-latents show`: a contact sheet of latents and their images.

use std::path::Path;

use artifacts::{ArtifactReader, LatentRow, false_colors};
use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use pipeline_spec::{ArtifactId, Store};

use crate::Error;

/// Pixels between tiles.
const GAP: u32 = 4;

/// Writes a sheet of `id`: one line for each class, on it the latent and the image of up to `per_class` samples.
///
/// # Errors
///
/// Fails if the artifact cannot be read, is empty, or the file cannot be written.
pub fn show(store: &Store, id: &ArtifactId, per_class: usize, out: &Path) -> Result<(), Error> {
    let reader = ArtifactReader::open(store, id)?;
    let rows = reader.rows::<LatentRow>()?;
    let &[channels, height, width] = reader.tensor_shape()? else {
        return Err(Error::NothingToShow { id: id.to_string() });
    };
    let mut lines: Vec<Vec<RgbImage>> = Vec::new();
    let mut current = None;
    for row in &rows {
        if current != Some(row.class_id) {
            current = Some(row.class_id);
            lines.push(Vec::new());
        }
        let Some(line) = lines.last_mut().filter(|line| line.len() < 2 * per_class) else { continue };
        let decoded = image::load_from_memory(&row.image_png);
        let image =
            decoded.map_err(|source| Error::Decode { name: row.image_path.clone(), source })?.to_rgb8();
        let pixels = false_colors(&row.latent, [channels, height, width]);
        let picture = RgbImage::from_raw(width as u32, height as u32, pixels)
            .ok_or_else(|| Error::NothingToShow { id: id.to_string() })?;
        line.push(image::imageops::resize(&picture, image.width(), image.height(), FilterType::Nearest));
        line.push(image);
    }
    let sheet = tile(&lines).ok_or_else(|| Error::NothingToShow { id: id.to_string() })?;
    sheet.save(out).map_err(|source| Error::Sheet { path: out.to_owned(), source })
}

/// The lines below each other on white; `None` if there is nothing on them.
fn tile(lines: &[Vec<RgbImage>]) -> Option<RgbImage> {
    let line_width = |line: &Vec<RgbImage>| line.iter().map(|i| i.width() + GAP).sum::<u32>();
    let line_height = |line: &Vec<RgbImage>| line.iter().map(|i| i.height() + GAP).max().unwrap_or(0);
    let width = GAP + lines.iter().map(line_width).max()?;
    let height = GAP + lines.iter().map(line_height).sum::<u32>();
    if width == GAP || height == GAP {
        return None;
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
    Some(sheet)
}
