//! Reads an `images` artifact as training does: every image decoded, resized to 224 pixels, cropped and normalised.
//!
//! Usage: `read_back UNIT_FILE STORE`. Prints the number of images and the mean of all values. Used by `tests/scale/speed.py`.

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
    let (mut count, mut sum) = (0_usize, 0.0_f64);
    reader.for_each_part(|_, rows: Vec<ImageRow>| {
        let sums: Vec<f64> = rows.par_iter().map(|row| values(&row.image.bytes)).collect::<Result<_, _>>()?;
        count += sums.len();
        sum += sums.iter().sum::<f64>();
        Ok::<(), anyhow::Error>(())
    })?;
    #[expect(clippy::print_stdout, reason = "the result of an example")]
    {
        println!("{count} {}", sum / count as f64);
    }
    Ok(())
}

/// The mean of the normalised values `[3, 224, 224]` of one image, all of which are made.
fn values(bytes: &[u8]) -> anyhow::Result<f64> {
    let header = photo::Header::read(bytes, photo::MAX_PIXELS).map_err(anyhow::Error::msg)?;
    let rgb = photo::decode_rgb(bytes, &header).map_err(anyhow::Error::msg)?;
    let small = stored::resize_shorter(&rgb, SIDE).map_err(anyhow::Error::msg)?;
    let (left, top) = ((small.width() - SIDE) / 2, (small.height() - SIDE) / 2);
    let area = (SIDE * SIDE) as usize;
    let mut values = vec![0.0_f32; 3 * area];
    for y in 0..SIDE {
        let start = 3 * ((y + top) * small.width() + left) as usize;
        let row = small.as_raw().get(start..start + 3 * SIDE as usize).context("the image is too small")?;
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            for channel in 0..3 {
                let value = (f32::from(pixel[channel]) / 255.0 - MEAN[channel]) / STD[channel];
                values[channel * area + y as usize * SIDE as usize + x] = value;
            }
        }
    }
    Ok(values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64)
}
