//! `sd-latents gallery`: a page with the samples of an artifact, which opens from disk.
//!
//! ```text
//! <folder>/index.html               everything but the pictures; loads nothing from elsewhere
//!         /images/000-001-002.png   class, prompt, sample
//!         /latents/000-001-002-0.png    its latent, or that of each kept step, in false colours
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use artifacts::{ArtifactReader, LatentRow, false_colors};
use image::RgbImage;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use pipeline_spec::{ArtifactId, Store};
use serde::Serialize;

use crate::Error;
use crate::sheet::num_steps;

/// The page's form.
const TEMPLATE: &str = include_str!("gallery.html.j2");

/// A sample on the page.
#[derive(Serialize)]
struct Sample {
    class_id: u32,
    class_name: String,
    prompt: String,
    /// Position of prompt and sample, seed, and what was measured.
    facts: String,
    image: String,
    latents: Vec<String>,
}

/// What the template is given.
#[derive(Serialize)]
struct View {
    id: String,
    spec: String,
    num_rows: u64,
    /// Name and number of samples of each class, by label.
    classes: BTreeMap<u32, (String, usize)>,
    samples: Vec<Sample>,
}

/// Writes a gallery of `id` into the new or empty folder `out`: of each class up to `per_class` samples. Gives their number.
///
/// # Errors
///
/// Fails if the artifact cannot be read or is empty, `out` holds something, or a file cannot be written.
pub fn gallery(store: &Store, id: &ArtifactId, per_class: usize, out: &Path) -> Result<usize, Error> {
    let reader = ArtifactReader::open(store, id)?;
    let spec = serde_json::json!(reader.record().unit.spec);
    let shape = reader.tensor_shape()?.to_vec();
    let mut gallery =
        Gallery { out, per_class, steps: num_steps(&spec), classes: BTreeMap::new(), samples: Vec::new() };
    gallery.create_folders()?;
    reader.for_each_part::<LatentRow, Error>(|_, rows| {
        rows.iter().try_for_each(|row| gallery.add(row, &shape))
    })?;
    if gallery.samples.is_empty() {
        return Err(Error::NothingToShow { id: id.to_string() });
    }
    let num_samples = gallery.samples.len();
    let view = View {
        id: id.to_string(),
        spec: serde_json::to_string_pretty(&spec["spec"]).unwrap_or_default(),
        num_rows: reader.record().rows,
        classes: gallery.classes,
        samples: gallery.samples,
    };
    write(&out.join("index.html"), page(view)?.as_bytes())?;
    Ok(num_samples)
}

fn page(view: View) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.render_str(TEMPLATE, Value::from(Serde(view))).map_err(Error::Page)
}

struct Gallery<'a> {
    out: &'a Path,
    per_class: usize,
    steps: usize,
    classes: BTreeMap<u32, (String, usize)>,
    samples: Vec<Sample>,
}

impl Gallery<'_> {
    fn create_folders(&self) -> Result<(), Error> {
        let failed = |source| Error::Io { path: self.out.to_owned(), source };
        if fs::read_dir(self.out).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::GalleryFolder { path: self.out.to_owned() });
        }
        ["images", "latents"]
            .iter()
            .try_for_each(|name| fs::create_dir_all(self.out.join(name)).map_err(failed))
    }

    /// Writes the pictures of a row, unless its class has enough.
    fn add(&mut self, row: &LatentRow, shape: &[usize]) -> Result<(), Error> {
        let (_, count) = self.classes.entry(row.class_id).or_insert_with(|| (row.class_name.clone(), 0));
        if *count >= self.per_class {
            return Ok(());
        }
        *count += 1;
        // Not the name in the row: that one is text, this one is a path.
        let name = format!("{:03}-{:03}-{:03}", row.class_id, row.prompt_index, row.sample_index);
        let image = format!("images/{name}.png");
        write(&self.out.join(&image), &row.image_png)?;
        let mut latents = Vec::new();
        if let &[all_channels, height, width] = shape {
            let channels = (all_channels / self.steps.max(1)).max(1);
            for (step, latent) in row.latent.chunks_exact(channels * height * width).enumerate() {
                let file = format!("latents/{name}-{step}.png");
                let pixels = false_colors(latent, [channels, height, width]);
                let picture = RgbImage::from_raw(width as u32, height as u32, pixels);
                let path = self.out.join(&file);
                picture
                    .map_or(Ok(()), |picture| picture.save(&path))
                    .map_err(|source| Error::Sheet { path, source })?;
                latents.push(file);
            }
        }
        let score = row.clip_score.map_or(String::new(), |score| format!(", CLIP score {score:.3}"));
        let facts = format!(
            "prompt {}, sample {}, seed {}; latent mean {:.3}, std {:.3}{score}",
            row.prompt_index, row.sample_index, row.noise_seed, row.mean, row.std
        );
        let (class_id, class_name, prompt) = (row.class_id, row.class_name.clone(), row.prompt.clone());
        self.samples.push(Sample { class_id, class_name, prompt, facts, image, latents });
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::Io { path: path.to_owned(), source })
}
