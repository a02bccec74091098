//! `dataset-pack doctor`: what is on disk against the manifest, and what to do about each difference.

mod images;
mod report;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use md5::{Digest as _, Md5};
use pipeline_spec::data_manifest::{BenchmarkForm, DataManifest, Download, Form, Listing};

pub use report::{Check, Report, Row, Severity, counted};

use crate::Error;
use crate::source::benchmark::{Found, find};

/// Rows of one check that are listed one by one; the rest is counted.
const MAX_ROWS: usize = 20;

/// Where the doctor looks and how closely.
#[derive(Debug, Clone, Copy)]
pub struct Examination<'a> {
    /// Folder that the data sets lie in.
    pub root: &'a Path,
    /// Images that are decoded, spread evenly over the data set; `None` decodes all.
    pub sample: Option<usize>,
    /// Most pixels of an image.
    pub max_pixels: u64,
}

/// Examines a data set; `on_image` is called with the images decoded and to decode, from any thread.
///
/// # Errors
///
/// Fails only if the examination itself cannot go on; what is wrong with the data is a row of the report.
pub fn examine(
    manifest: &DataManifest,
    examination: Examination<'_>,
    on_image: impl Fn(u64, u64) + Sync,
) -> Result<Report, Error> {
    let mut report = Report::new(manifest.dataset.as_str());
    let dataset = match &manifest.form {
        Form::Benchmark(form) => {
            let Some(found) = examine_benchmark(&mut report, manifest, form, examination.root) else {
                return Ok(report);
            };
            images::of_benchmark(&found, form, manifest)
        }
        _ => match crate::source::load(manifest, examination.root) {
            Ok(dataset) => {
                report.note_checks(Check::Files, dataset.items.len() as u64);
                dataset
            }
            Err(error) => {
                let remedy = "correct the files or the manifest";
                report.problem(Check::Files, "", error.to_string(), remedy);
                return Ok(report);
            }
        },
    };
    images::examine(&mut report, &dataset, examination, on_image)?;
    Ok(report)
}

/// Layout, listing, class names, counts, digests and missing files; `None` if there is nothing to decode.
fn examine_benchmark(
    report: &mut Report,
    manifest: &DataManifest,
    form: &BenchmarkForm,
    root: &Path,
) -> Option<Found> {
    let found = match find(manifest, form, root) {
        Ok(found) => found,
        Err(error) => {
            let split_file = match (&form.listing, &error) {
                (Listing::SplitFile(split), Error::SplitFile { .. }) => Some(split.file.as_str()),
                _ => None,
            };
            let check = if split_file.is_some() { Check::SplitFile } else { Check::Layout };
            let wanted = form.downloads.iter().filter(|d| split_file.is_none_or(|file| d.file == file));
            let remedy = match wanted.map(how_to_get).collect::<Vec<_>>().join("; ") {
                places if places.is_empty() => "take the published file".to_owned(),
                places => format!("download {places}"),
            };
            report.problem(check, "", error.to_string(), remedy);
            return None;
        }
    };
    report.layout = Some(found.layout.clone());
    report.folder = Some(found.base.display().to_string());
    report.note_checks(Check::Layout, 1);
    report.note_checks(Check::SplitFile, u64::from(found.listing.is_some()));
    examine_archives(report, form, &found);
    examine_names(report, form, &found);
    examine_counts(report, form, &found);
    examine_files(report, &found);
    Some(found)
}

/// MD5 of the archives in use, where the manifest has one.
fn examine_archives(report: &mut Report, form: &BenchmarkForm, found: &Found) {
    for container in found.files.containers() {
        let name = container.path().file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(download) = form.downloads.iter().find(|d| d.file == name) else { continue };
        let Some(expected) = &download.md5 else { continue };
        report.note_checks(Check::Digest, 1);
        let digest = std::fs::File::open(container.path()).and_then(|mut file| {
            let mut hasher = Md5::new();
            std::io::copy(&mut file, &mut digest_io::Sink(&mut hasher))?;
            Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        });
        match digest {
            Ok(digest) if digest == *expected => {}
            Ok(digest) => {
                let problem = format!("md5 is {digest}, expected {expected}");
                report.problem(Check::Digest, name, problem, format!("download {}", how_to_get(download)));
            }
            Err(error) => report.problem(Check::Digest, name, error.to_string(), "check the disk"),
        }
    }
}

/// Class names of the listing against those of the manifest.
fn examine_names(report: &mut Report, form: &BenchmarkForm, found: &Found) {
    let by_label: BTreeMap<u32, &str> =
        found.listed.iter().map(|(_, entry)| (entry.label(), entry.class_name())).collect();
    report.note_checks(Check::Names, form.class_names.len() as u64);
    for (label, expected) in form.class_names.iter().enumerate() {
        let problem = match by_label.get(&(label as u32)) {
            None => "the class is empty: no image is listed".to_owned(),
            Some(name) if name.replace('_', " ") != *expected => {
                format!("is named `{name}`, expected `{expected}`")
            }
            Some(_) => continue,
        };
        report.problem(
            Check::Names,
            &format!("class {label}"),
            problem,
            "take the published list and all its classes",
        );
    }
    if let Some((label, name)) = by_label.iter().find(|(label, _)| **label as usize >= form.class_names.len())
    {
        let problem = format!("`{name}` is out of range, expected 0 to {}", form.class_names.len() - 1);
        report.problem(Check::Names, &format!("class {label}"), problem, "take the published list");
    }
}

fn examine_counts(report: &mut Report, form: &BenchmarkForm, found: &Found) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (split, _) in &found.listed {
        *counts.entry(split).or_default() += 1;
    }
    for (split, expected) in &form.expected {
        report.note_checks(Check::Counts, 1);
        let listed = counts.get(split.as_str()).copied().unwrap_or(0);
        if listed != *expected {
            let problem = format!("{listed} images are listed, expected {expected}");
            let remedy = "some folders or files are missing or too many; unpack the archives again";
            report.problem(Check::Counts, split, problem, remedy);
        }
    }
}

/// Listed images that are not there, and images that are not listed.
fn examine_files(report: &mut Report, found: &Found) {
    report.note_checks(Check::Files, found.listed.len() as u64);
    let missing: Vec<&str> = found
        .listed
        .iter()
        .map(|(_, entry)| entry.path())
        .filter(|path| found.files.picture(path).is_none())
        .collect();
    for path in missing.iter().take(MAX_ROWS) {
        report.problem(Check::Files, path, "the image is missing", "unpack the archive again");
    }
    if missing.len() > MAX_ROWS {
        let problem = format!("missing: {} more", counted(missing.len() - MAX_ROWS, "image"));
        report.problem(Check::Files, "", problem, "unpack the archive again");
    }
    if found.listing.is_none() {
        return;
    }
    match found.files.listed_paths() {
        Ok(paths) => {
            let listed: HashSet<&str> = found.listed.iter().map(|(_, entry)| entry.path()).collect();
            let unlisted = paths.iter().filter(|path| !listed.contains(path.as_str())).count();
            if unlisted > 0 {
                report.note(
                    Check::Files,
                    "",
                    format!("not used, because in no list: {}", counted(unlisted, "image")),
                );
            }
        }
        Err(error) => report.note(Check::Files, "", error.to_string()),
    }
}

/// Where a file can be had.
fn how_to_get(download: &Download) -> String {
    let Download { file, url, dead, alternatives, .. } = download;
    let others = alternatives.join(" or ");
    match (dead, alternatives.is_empty()) {
        (None, true) => format!("`{file}` from {url}"),
        (None, false) => format!("`{file}` from {url} or {others}"),
        (Some(dead), true) => format!("`{file}` (was at {url}: {dead}; no other source is known)"),
        (Some(dead), false) => format!("`{file}` from {others} ({url} does not work: {dead})"),
    }
}

mod digest_io {
    //! A digest as something to write to.

    use md5::{Digest as _, Md5};

    /// Writes go into the digest.
    pub struct Sink<'a>(pub &'a mut Md5);

    impl std::io::Write for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
