//! Times decoding and preprocessing of image files; `tests/scale/speed.py` starts it and times Pillow in turn.
//!
//! For each line `REPEATS FILE` of standard input one line is written: seconds per image (medians) for decoding, for resize and
//! crop, and for the pixel values, at 224 pixels, on one thread, from bytes in memory.
#![allow(clippy::print_stdout)] // the figures are what the program is for

use std::hint::black_box;
use std::io::{Write, stdin, stdout};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use clip_model::{DecodedImage, Preprocess, jpeg_decoder};

fn main() -> Result<()> {
    println!("{}", jpeg_decoder());
    let preprocess = Preprocess::new(224);
    let mut values = vec![0.0; 3 * 224 * 224];
    for line in stdin().lines() {
        let line = line?;
        let (repeats, path) = line.split_once(' ').context("expected `REPEATS FILE`")?;
        let repeats: u32 = repeats.parse()?;
        let path = Path::new(path);
        let bytes = std::fs::read(path)?;
        let mut seconds = [const { Vec::new() }; 3];
        for _ in 0..repeats {
            let started = Instant::now();
            let image = DecodedImage::from_bytes(black_box(&bytes), path)?;
            let decoded = Instant::now();
            let square = preprocess.square_of(&image);
            let squared = Instant::now();
            preprocess.write_pixel_values(&square, black_box(&mut values));
            let steps = [decoded - started, squared - decoded, squared.elapsed()];
            seconds.iter_mut().zip(steps).for_each(|(all, step)| all.push(step.as_secs_f64()));
        }
        let [decode, resize, values] = seconds.map(median);
        println!("{decode} {resize} {values}");
        stdout().flush()?;
    }
    Ok(())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}
