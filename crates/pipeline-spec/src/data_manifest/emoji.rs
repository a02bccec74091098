//! Emoji of several artists, drawn from icon-set archives.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{DataManifest, SplitCounts, field, unique};
use crate::Error;

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

impl EmojiForm {
    pub(super) fn check(&self, manifest: &DataManifest) -> Result<(), Error> {
        let known = |name: &str, id: &str| {
            let problem = || format!("expected the `id` of one of `sources`, found `{id}`");
            manifest.source(id).map(|_| ()).ok_or_else(|| field(name, problem()))
        };
        known("form.emoji.vocabulary", &self.vocabulary)?;
        for artist in &self.artists {
            known("form.emoji.artists.source", &artist.source)?;
        }
        unique("form.emoji.artists.source", self.artists.iter().map(|a| a.source.as_str()))?;
        unique(
            "form.emoji.classes.subgroups",
            self.classes
                .iter()
                .flat_map(|c| c.subgroups.iter().map(String::as_str))
                .chain(self.drop_subgroups.iter().map(String::as_str)),
        )?;
        unique("form.emoji.series", self.series.iter().flatten().map(String::as_str))?;
        if self.series.iter().any(Vec::is_empty) {
            return Err(field("form.emoji.series", "expected at least one hexcode in each list, found none"));
        }
        let codes = self.series.iter().flatten().chain(self.classes.iter().flat_map(|c| &c.except));
        let codes = codes.chain(self.artists.iter().flat_map(|a| a.skip.iter().chain(a.names.keys())));
        for code in codes {
            let digits = |part: &str| {
                part.len() >= 2 && part.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
            };
            if !code.split('-').all(|part| digits(part) && part != "FE0F") {
                let problem = format!("expected a hexcode such as `1F431` without `FE0F`, found `{code}`");
                return Err(field("form.emoji", problem));
            }
        }
        if self.split.test_percent > 100 {
            let problem = format!("expected 0 to 100, found {}", self.split.test_percent);
            return Err(field("form.emoji.split.test_percent", problem));
        }
        Ok(())
    }
}
