//! What `dataset-pack` writes.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::{DatasetId, Digest, Error, Seed, Shots};

/// Bump when the same spec would yield different images.
pub const IMAGES_CODE_VERSION: u32 = 1;
/// Bump when the same spec would yield a different shot list.
pub const FEWSHOT_SPLITS_CODE_VERSION: u32 = 1;

/// The real images of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesSpec {
    /// Data set.
    pub dataset: DatasetId,
    /// Digest of `data-manifests/<dataset>.toml`, which pins sources, classes and split.
    pub manifest_digest: Digest,
    /// Splits to pack, for example `train`, `val`, `test`, `shift`.
    pub splits: Vec<String>,
    /// Side of the stored square images in pixels where the source is a vector drawing.
    pub image_size: u32,
    /// How large photographs are stored. Absent: every photograph keeps its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredSize>,
    /// Which half of the classes, with labels from 0. Absent: all, and images of no class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassHalf>,
    /// Files that the artifact is cut into.
    pub num_parts: u32,
}

/// Half of the classes of a data set in label order, as CoCoOp (arXiv 2203.05557) cuts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassHalf {
    /// The first half, with the middle one of an odd number: what is trained on.
    Base,
    /// The others, of which training sees nothing.
    New,
}

impl ClassHalf {
    /// Name in paths and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::New => "new",
        }
    }

    /// The labels of this half among `num_classes`.
    pub fn labels(self, num_classes: u32) -> std::ops::Range<u32> {
        let middle = num_classes.div_ceil(2);
        match self {
            Self::Base => 0..middle,
            Self::New => middle..num_classes,
        }
    }
}

/// Photographs with a longer shorter side are made smaller and encoded again; the others keep their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSize {
    /// Shorter side in pixels.
    pub shorter_side: u32,
    /// Format of what is encoded again.
    pub format: StoredFormat,
}

/// Format of photographs that are encoded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StoredFormat {
    /// JPEG with colour at full resolution (4:4:4).
    Jpeg {
        /// Quality, 1 to 100.
        quality: u8,
    },
    /// PNG, without loss.
    Png,
}

impl ImagesSpec {
    pub(super) fn slug(&self) -> String {
        let size = self.stored.map_or(self.image_size, |stored| stored.shorter_side);
        let half = self.classes.map_or(String::new(), |half| format!("-{}", half.name()));
        format!("{}-{size}px{half}", self.splits.join("-"))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        expect(!self.splits.is_empty(), "splits", "at least one split", "[]")?;
        expect((8..=4096).contains(&self.image_size), "image_size", "8 to 4096 pixels", self.image_size)?;
        if let Some(StoredSize { shorter_side, format }) = self.stored {
            expect(
                (32..=4096).contains(&shorter_side),
                "stored.shorter_side",
                "32 to 4096 pixels",
                shorter_side,
            )?;
            if let StoredFormat::Jpeg { quality } = format {
                expect((1..=100).contains(&quality), "stored.format.quality", "1 to 100", quality)?;
            }
        }
        expect((1..=100_000).contains(&self.num_parts), "num_parts", "1 to 100000", self.num_parts)
    }
}

/// A shot list: which training and validation images a few-shot run may see.
///
/// Drawn as CoOp does it: CPython's generator seeded with `seed`, `random.sample` per class over the training list
/// in file order, then in the same stream over the validation list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewshotSplitsSpec {
    /// Data set.
    pub dataset: DatasetId,
    /// Training images per class.
    pub shots: Shots,
    /// Seed of the draw.
    pub seed: Seed,
    /// Validation images per class.
    pub val_shots: ValShots,
    /// What to do with a class that has fewer than `shots` images.
    pub short_class: ShortClass,
}

/// Validation images per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValShots {
    /// `min(shots, 4)`, as CoOp.
    MinShots4,
    /// Every validation image, as Tip-Adapter.
    All,
}

/// What to do with a class that has too few images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortClass {
    /// Take all there are, as CoOp.
    TakeAll,
    /// Draw with replacement, as FLIER's released code.
    Repeat,
}

impl FewshotSplitsSpec {
    pub(super) fn slug(&self) -> String {
        format!("shots{}-seed{}", self.shots, self.seed)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        expect(self.shots > 0, "shots", "at least 1", self.shots)
    }
}
