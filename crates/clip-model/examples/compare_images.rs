//! Compares decoding and preprocessing with Pillow and torchvision on a folder that `tests/scale/images.py` has written.
//!
//! `cargo run --release -p clip-model --example compare_images -- FOLDER`, once more with `--features pil-exact`. Ends with
//! status 1 if anything differs that this build promises to be equal.
#![allow(clippy::print_stdout)] // the table is what the program is for

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clip_model::{DecodedImage, Preprocess, jpeg_decoder};
use safetensors::SafeTensors;
use serde::Deserialize;

/// One file, as `files.json` lists it.
#[derive(Deserialize)]
struct File {
    name: String,
    mode: String,
    size: usize,
}

/// Differences of one kind of output, summed over files.
#[derive(Default)]
struct Differences {
    files: usize,
    differing_files: usize,
    samples: u64,
    differing: u64,
    total: f64,
    largest: f64,
    worst: String,
}

impl Differences {
    fn add(&mut self, name: &str, differences: impl Iterator<Item = f64>) {
        let before = self.differing;
        for difference in differences {
            self.samples += 1;
            self.differing += u64::from(difference != 0.0);
            self.total += difference;
            if difference > self.largest {
                self.largest = difference;
                name.clone_into(&mut self.worst);
            }
        }
        self.files += 1;
        self.differing_files += usize::from(self.differing > before);
    }
}

fn main() -> Result<ExitCode> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        bail!("expected the folder that images.py has written");
    };
    let list = std::fs::read(folder.join("files.json")).context("the folder holds no files.json")?;
    let files: Vec<File> = serde_json::from_slice(&list)?;
    let mut table: BTreeMap<(&str, &str), Differences> = BTreeMap::new();
    for file in &files {
        let image = DecodedImage::open(&folder.join(&file.name))?;
        if image.mode() != file.mode {
            bail!("`{}` has mode `{}`, Pillow says `{}`", file.name, image.mode(), file.mode);
        }
        compare(&folder, file, image, &mut table)?;
    }
    println!("{} files; JPEG decoder: {}", files.len(), jpeg_decoder());
    println!("| format | output | files | differing | samples | differing | mean | largest | in |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|---|");
    let mut is_equal = true;
    for ((format, output), d) in &table {
        let mean = d.total / d.samples as f64;
        println!(
            "| {format} | {output} | {} | {} | {} | {} ({:.3} %) | {mean:.4} | {} | {} |",
            d.files,
            d.differing_files,
            d.samples,
            d.differing,
            100.0 * d.differing as f64 / d.samples as f64,
            d.largest,
            d.worst
        );
        is_equal &= d.differing == 0 || (*format != "PNG" && !cfg!(feature = "pil-exact"));
    }
    Ok(if is_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare<'a>(
    folder: &Path,
    file: &'a File,
    image: DecodedImage,
    table: &mut BTreeMap<(&'a str, &'a str), Differences>,
) -> Result<()> {
    let bytes = std::fs::read(folder.join("reference").join(format!("{}.safetensors", file.name)))?;
    let reference = SafeTensors::deserialize(&bytes)?;
    let format = match file.name.rsplit_once('.') {
        Some((_, "png")) => "PNG",
        _ if file.mode == "CMYK" => "JPEG, CMYK",
        _ if file.mode == "L" => "JPEG, grey",
        _ if file.name.contains("420") => "JPEG, 4:2:0",
        _ if file.name.contains("422") => "JPEG, 4:2:2",
        _ if file.name.contains("444") => "JPEG, 4:4:4",
        _ if file.name.contains("photo") => "JPEG, photos",
        _ => "JPEG, other",
    };
    let preprocess = Preprocess::new(file.size);
    let square = preprocess.square_of(&image);
    let mut values = vec![0.0; 3 * file.size * file.size];
    preprocess.write_pixel_values(&square, &mut values);
    let rgb = image.into_rgb();
    let rgb_first = preprocess.square(&rgb);
    for (key, found) in
        [("rgb", rgb.as_raw()), ("square", square.as_raw()), ("rgb_first", rgb_first.as_raw())]
    {
        let expected = reference.tensor(key)?;
        if expected.data().len() != found.len() {
            bail!("`{}`: `{key}` has {} samples, expected {}", file.name, found.len(), expected.data().len());
        }
        let pairs = expected.data().iter().zip(found);
        table
            .entry((format, key))
            .or_default()
            .add(&file.name, pairs.map(|(a, b)| f64::from(a.abs_diff(*b))));
    }
    let expected = reference.tensor("values")?;
    let pairs = expected.data().as_chunks::<4>().0.iter().zip(&values);
    let differences = pairs.map(|(a, b)| f64::from((f32::from_le_bytes(*a) - b).abs()));
    table.entry((format, "values")).or_default().add(&file.name, differences);
    Ok(())
}
