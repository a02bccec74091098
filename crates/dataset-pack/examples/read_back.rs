//! Reads an `images` artifact as training does: every image decoded, resized to 224 pixels, cropped and normalised.
//!
//! Usage: `read_back UNIT_FILE STORE`. Prints the number of images. Used by `tests/scale/speed.py`.

use std::hint::black_box;
use std::path::Path;

use anyhow::{Context, bail};
use artifacts::{ArtifactReader, ImageRow};
use dataset_pack::{photo, stored};
use pipeline_spec::{Store, Unit};
use rayon::prelude::*;

const SIDE: u32 = 224;
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, unit, store] = &args[..] else { bail!("usage: read_back UNIT_FILE STORE") };
    let unit = Unit::read(Path::new(unit))?;
    let reader = ArtifactReader::open(&Store::new(store), &unit.output())?;
    let levels = std::array::from_fn(|channel| {
        std::array::from_fn(|level| (level as f32 / 255.0 - MEAN[channel]) / STD[channel])
    });
    let mut count = 0;
    reader.for_each_part(|_, rows: Vec<ImageRow>| {
        rows.par_iter().try_for_each(|row| values(&row.image.bytes, &levels).map(|v| drop(black_box(v))))?;
        count += rows.len();
        Ok::<(), anyhow::Error>(())
    })?;
    #[expect(clippy::print_stdout, reason = "the result of an example")]
    {
        println!("{count}");
    }
    Ok(())
}

/// The normalised values `[3, 224, 224]` of one image; `levels` holds the value of each level of each channel.
fn values(bytes: &[u8], levels: &[[f32; 256]; 3]) -> anyhow::Result<Vec<f32>> {
    let header = photo::Header::read(bytes, photo::MAX_PIXELS).map_err(anyhow::Error::msg)?;
    let rgb = photo::decode_rgb(bytes, &header).map_err(anyhow::Error::msg)?;
    let small = stored::resize_shorter(&rgb, SIDE).map_err(anyhow::Error::msg)?;
    let (left, top) = ((small.width() - SIDE) / 2, (small.height() - SIDE) / 2);
    let mut values = vec![0.0; 3 * (SIDE * SIDE) as usize];
    for (channel, plane) in values.chunks_exact_mut((SIDE * SIDE) as usize).enumerate() {
        for (y, line) in (top..).zip(plane.chunks_exact_mut(SIDE as usize)) {
            let start = 3 * (y * small.width() + left) as usize;
            let row =
                small.as_raw().get(start..start + 3 * SIDE as usize).context("the image is too small")?;
            for (value, pixel) in line.iter_mut().zip(row.chunks_exact(3)) {
                *value = levels[channel][usize::from(pixel[channel])];
            }
        }
    }
    Ok(values)
}
