//! The stage: a unit in, an artifact out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FewshotRow, FileContext, ImageFile, ImageRow, Outcome, SchemaInfo, Shard,
};
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::spec::{FewshotSplitsSpec, ImagesSpec};
use pipeline_spec::{StageSpec, Store, Unit};

use crate::Error;
use crate::item::{Dataset, Item, Picture};
use crate::pack::{Encoding, check_leaks, encode_all, select};
use crate::shots::draw;

/// Networks play no part in this stage.
const NO_DEVICE: &str = "none";

/// Where and how a unit is computed; nothing of it changes the result.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What to compute.
    pub unit: &'a Unit,
    /// Where artifacts lie.
    pub store: &'a Store,
    /// Which parts to compute.
    pub shard: Shard,
    /// Folder of the data manifests.
    pub manifests: &'a Path,
    /// Folder that `cargo xtask fetch` fills and that benchmarks lie in.
    pub data: &'a Path,
    /// Most pixels of a photograph; a larger one is an error.
    pub max_pixels: u64,
}

/// Computes the missing parts of `job`'s shard and, if every part is there then, the artifact's record.
///
/// `on_progress` is called with the number of images done and to do, from any thread, and may stop the work.
///
/// # Errors
///
/// Fails if the unit belongs to another stage, the manifest is not the one that the specification names, a
/// source or an image cannot be used, the artifact cannot be written, or with [`Error::Stopped`].
pub fn run(
    job: &Job<'_>,
    on_progress: impl Fn(u64, u64) -> ControlFlow<()> + Sync,
) -> Result<Outcome, Error> {
    job.unit.check()?;
    let started = Instant::now();
    match &job.unit.spec {
        StageSpec::Images(spec) => pack_images(job, spec, started, on_progress),
        StageSpec::FewshotSplits(spec) => draw_shots(job, spec, started),
        other => {
            let problem = format!("expected `images` or `fewshot-splits`, found `{}`", other.kind());
            Err(pipeline_spec::Error::Field { field: "spec.kind".to_owned(), problem }.into())
        }
    }
}

/// What packs the images of `spec`: the data set, after the manifest's digest was checked.
///
/// # Errors
///
/// Fails if the manifest is not the one that the specification names or a source cannot be used.
pub fn open_dataset(spec: &ImagesSpec, manifests: &Path, data: &Path) -> Result<Dataset, Error> {
    let path = manifests.join(format!("{}.toml", spec.dataset));
    let (manifest, digest) = DataManifest::read(&path)?;
    if digest != spec.manifest_digest {
        let (expected, found) = (spec.manifest_digest.to_string(), digest.to_string());
        return Err(Error::ManifestDigest { path, expected, found });
    }
    crate::source::load(&manifest, data)
}

fn pack_images(
    job: &Job<'_>,
    spec: &ImagesSpec,
    started: Instant,
    on_progress: impl Fn(u64, u64) -> ControlFlow<()> + Sync,
) -> Result<Outcome, Error> {
    let writer = ArtifactWriter::open(job.store, job.unit, spec.num_parts, context())?;
    let missing = writer.missing_parts(job.shard);
    if missing.is_empty() {
        return Ok(writer.finish(NO_DEVICE, started)?);
    }
    let dataset = open_dataset(spec, job.manifests, job.data)?;
    check_leaks(dataset.items.iter().filter_map(|item| match &item.picture {
        Picture::Svg(svg) => Some((item, svg.as_bytes())),
        Picture::File(_) | Picture::Member { .. } => None,
    }))?;
    let dataset = match spec.classes {
        Some(half) => dataset.half(half),
        None => dataset,
    };
    let items = select(&dataset, spec.dataset.as_str(), &spec.splits)?;
    if items.len() < spec.num_parts as usize {
        let problem =
            format!("expected at most {} (one image a part), found {}", items.len(), spec.num_parts);
        return Err(pipeline_spec::Error::Field { field: "num_parts".to_owned(), problem }.into());
    }
    write_parts(job, spec, &writer, &missing, (&dataset, &items), on_progress)?;
    Ok(writer.finish(NO_DEVICE, started)?)
}

/// Writes the parts `missing` of the artifact that holds `items`, each while the next two are made.
fn write_parts(
    job: &Job<'_>,
    spec: &ImagesSpec,
    writer: &ArtifactWriter,
    missing: &[u32],
    (dataset, items): (&Dataset, &[&Item]),
    on_progress: impl Fn(u64, u64) -> ControlFlow<()> + Sync,
) -> Result<(), Error> {
    let info = SchemaInfo { class_names: dataset.class_names.clone(), ..SchemaInfo::default() };
    let encoding = Encoding { image_size: spec.image_size, stored: spec.stored, max_pixels: job.max_pixels };
    let part = |index: u32| {
        let bound = |i: u64| (i * items.len() as u64 / u64::from(spec.num_parts)) as usize;
        &items[bound(u64::from(index))..bound(u64::from(index) + 1)]
    };
    let total = missing.iter().map(|&p| part(p).len() as u64).sum();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (sender, parts) = mpsc::sync_channel::<(u32, Vec<ImageRow>)>(1);
        let info = &info;
        let written = scope.spawn(move || {
            parts.into_iter().try_for_each(|(index, rows)| writer.write_part(index, &rows, info).map(drop))
        });
        let made = missing.iter().try_for_each(|&index| {
            let items = part(index);
            let bytes = encode_all(dataset, items, encoding, || {
                on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, total)
            })?;
            if !dataset.published {
                check_leaks(items.iter().copied().zip(bytes.iter().map(Vec::as_slice)))?;
            }
            let rows = items.iter().zip(bytes).map(|(item, bytes)| row(item, bytes)).collect();
            // The writer hangs up only when it failed, which is told below.
            sender.send((index, rows)).map_err(|_| Error::Stopped)
        });
        drop(sender);
        match written.join() {
            Ok(result) => result.map_err(Error::from).and(made),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn row(item: &Item, bytes: Vec<u8>) -> ImageRow {
    let path = match &item.picture {
        Picture::Svg(_) => format!("{}.png", item.sample_id),
        Picture::File(_) | Picture::Member { .. } => item.sample_id.clone(),
    };
    ImageRow {
        sample_id: item.sample_id.clone(),
        split: item.split.clone(),
        label: item.label,
        class_name: item.class_name.clone(),
        caption: Some(item.caption.clone()),
        source: item.origin.clone(),
        image: ImageFile { bytes, path },
    }
}

fn draw_shots(job: &Job<'_>, spec: &FewshotSplitsSpec, started: Instant) -> Result<Outcome, Error> {
    let writer = ArtifactWriter::open(job.store, job.unit, 1, context())?;
    if writer.missing_parts(job.shard).is_empty() {
        return Ok(writer.finish(NO_DEVICE, started)?);
    }
    let reader = ArtifactReader::open(job.store, job.unit.input("images")?)?;
    let (mut train, mut val) = (Labelled::default(), Labelled::default());
    reader.for_each_part(|_, rows: Vec<ImageRow>| {
        for row in rows {
            match row.split.as_str() {
                "train" => train.push(row)?,
                "val" => val.push(row)?,
                _ => {}
            }
        }
        Ok::<(), Error>(())
    })?;
    let list = draw(&train.labels, &val.labels, spec.shots, spec.seed, spec.val_shots, spec.short_class)?;
    let rows_of = |split: &str, pool: &Labelled, drawn: &[usize]| {
        let row = |(order, &position): (usize, &usize)| FewshotRow {
            sample_id: pool.ids[position].clone(),
            label: pool.labels[position],
            split: split.to_owned(),
            shots: spec.shots,
            seed: spec.seed,
            order: order as u32,
        };
        drawn.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    let mut rows = rows_of("train", &train, &list.train);
    rows.extend(rows_of("val", &val, &list.val));
    let info = SchemaInfo { class_names: reader.class_names()?.to_vec(), ..SchemaInfo::default() };
    writer.write_part(0, &rows, &info)?;
    Ok(writer.finish(NO_DEVICE, started)?)
}

/// Images of one split in packed order, which is the list that shots are drawn from.
#[derive(Default)]
struct Labelled {
    ids: Vec<String>,
    labels: Vec<u32>,
}

impl Labelled {
    fn push(&mut self, row: ImageRow) -> Result<(), Error> {
        let Some(label) = row.label else {
            let problem = format!("image `{}` of split `{}` has no label", row.sample_id, row.split);
            return Err(Error::Shots { problem });
        };
        self.ids.push(row.sample_id);
        self.labels.push(label);
        Ok(())
    }
}

fn context() -> FileContext {
    FileContext::new(env!("CARGO_PKG_VERSION"))
}
