//! A published benchmark: a fixed split over images that people keep in several layouts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{SplitCounts, check_inside, field, single, unique};
use crate::{Digest, Error};

/// A published benchmark. The list of its images is the same in every layout, and so are the packed bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkForm {
    /// Terms of use, as its authors state them.
    pub license: String,
    /// Home page of the authors.
    pub homepage: String,
    /// What to download by hand; nothing is fetched from there.
    pub downloads: Vec<Download>,
    /// What names the images, their labels and their splits.
    pub listing: Listing,
    /// Where the images may lie; the first layout that is there is read.
    pub layouts: Vec<Layout>,
    /// Images that each split must hold.
    pub expected: SplitCounts,
    /// Class names in label order, as they stand in a prompt.
    pub class_names: Vec<String>,
}

/// A file to download by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Its name.
    pub file: String,
    /// Where its authors publish it.
    pub url: String,
    /// MD5 that torchvision pins, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// Since when or why `url` does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<String>,
    /// Other places that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<String>,
}

/// What names the images of a benchmark, their labels and their splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listing {
    /// A split file of CoOp: JSON lists `train`, `val` and `test` of `[path, label, class name]`.
    SplitFile(SplitFile),
    /// Text files of FGVC-Aircraft: a line is `<image> <class name>`.
    TextFiles(TextFiles),
    /// The tree itself: a folder per class; images of a class in byte order.
    ClassFolders(ClassFolders),
}

/// A split file of CoOp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitFile {
    /// Its name.
    pub file: String,
    /// SHA-256 over the lines `<split> TAB <path> TAB <label> LF` of `train`, `val` and `test` in file order:
    /// the same for every way to format the JSON.
    pub entries_sha256: Digest,
}

/// Text files that name images and classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFiles {
    /// Split name to file name.
    pub files: BTreeMap<String, String>,
    /// What follows the image's name, for example `.jpg`.
    pub extension: String,
}

/// A folder per class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassFolders {
    /// Split name to the start of its paths, for example `train/`; empty if there are no split folders.
    pub splits: BTreeMap<String, String>,
    /// Folder of each class, in label order.
    pub folders: Vec<String>,
}

/// One way to keep the images of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Name, for example `coop`, `torchvision`, `kaggle`, `archive`, `huggingface`.
    pub name: String,
    /// Folder below the root of all data sets; the root itself and `<root>/<dataset>` are looked into as well.
    pub folder: String,
    /// Archives (`.tar`, `.tar.gz`, `.tgz`, `.zip`) that hold the images; they are read without unpacking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<String>,
    /// Folder of Parquet files that hold the images; they are found by file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parquet: Option<String>,
    /// Start of a listed path to the start of the same image's path here.
    pub paths: BTreeMap<String, String>,
    /// Start of the path of listing files that lie among the images, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists: Option<String>,
}

impl BenchmarkForm {
    pub(super) fn check(&self) -> Result<(), Error> {
        for download in &self.downloads {
            let md5 = download.md5.as_deref().unwrap_or("00000000000000000000000000000000");
            if md5.len() != 32 || !md5.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                let problem = format!("expected 32 lower-case hexadecimal digits, found `{md5}`");
                return Err(field("form.benchmark.downloads.md5", problem));
            }
        }
        unique("form.benchmark.downloads.file", self.downloads.iter().map(|d| d.file.as_str()))?;
        unique("form.benchmark.layouts.name", self.layouts.iter().map(|l| l.name.as_str()))?;
        if self.layouts.is_empty() {
            return Err(field("form.benchmark.layouts", "expected at least one layout, found none"));
        }
        for layout in &self.layouts {
            layout.check()?;
        }
        let listed: Vec<&String> = match &self.listing {
            Listing::SplitFile(split) => {
                if !single(&split.file) {
                    let problem = format!("expected a file name, found `{}`", split.file);
                    return Err(field("form.benchmark.listing.split-file.file", problem));
                }
                return Ok(());
            }
            Listing::TextFiles(text) => text.files.keys().collect(),
            Listing::ClassFolders(tree) => {
                unique(
                    "form.benchmark.listing.class-folders.folders",
                    tree.folders.iter().map(String::as_str),
                )?;
                if tree.folders.len() != self.class_names.len() {
                    let (folders, names) = (tree.folders.len(), self.class_names.len());
                    let problem = format!("expected one per class name, found {folders} for {names} names");
                    return Err(field("form.benchmark.listing.class-folders.folders", problem));
                }
                for folder in &tree.folders {
                    check_inside("form.benchmark.listing.class-folders.folders", folder)?;
                }
                tree.splits.keys().collect()
            }
        };
        if !listed.iter().copied().eq(self.expected.keys()) {
            let problem = format!("expected the splits of the listing, {listed:?}");
            return Err(field("form.benchmark.expected", problem));
        }
        Ok(())
    }
}

impl Layout {
    fn check(&self) -> Result<(), Error> {
        check_inside("form.benchmark.layouts.folder", &self.folder)?;
        for archive in &self.archives {
            if !single(archive) {
                let problem = format!("expected file names, found `{archive}`");
                return Err(field("form.benchmark.layouts.archives", problem));
            }
        }
        if !self.archives.is_empty() && self.parquet.is_some() {
            return Err(field("form.benchmark.layouts", "expected `archives` or `parquet`, found both"));
        }
        if self.paths.is_empty() {
            return Err(field("form.benchmark.layouts.paths", "expected at least one pair, found none"));
        }
        let starts = self.paths.iter().flat_map(|(from, to)| [from, to]).chain(&self.lists);
        for start in starts.filter(|s| !s.is_empty()) {
            check_inside("form.benchmark.layouts.paths", start)?;
        }
        Ok(())
    }
}
