//! The shot list: which images a run may see.

use artifacts::{ArtifactReader, FewshotRow};
use pipeline_spec::{Digest, Seed, Shots};

use crate::Error;

/// Identifiers and labels of the images that a run may see, in the order of the draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShotList {
    /// Training images; one may stand more than once (`short_class = "repeat"`).
    pub train: Vec<Shot>,
    /// Validation images.
    pub val: Vec<Shot>,
    /// Name of each class, by label.
    pub class_names: Vec<String>,
    /// Digest of the list's content.
    pub digest: Digest,
}

/// One image of a shot list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// Identifier of the image.
    pub sample_id: String,
    /// Its label.
    pub label: usize,
}

impl ShotList {
    /// Reads a shot list; `drawn_for` are the shots and the seed that the run's spec gives, if it gives them.
    ///
    /// # Errors
    ///
    /// Fails if the artifact cannot be read, was drawn for other shots or another seed, or has no training image.
    pub fn open(reader: &ArtifactReader, drawn_for: Option<(Shots, Seed)>) -> Result<Self, Error> {
        let id = || Box::new(reader.record().id.clone());
        let mut rows = reader.rows::<FewshotRow>()?;
        rows.sort_by_key(|row| row.order);
        if let Some((shots, seed)) = drawn_for
            && let Some(row) = rows.iter().find(|row| (row.shots, row.seed) != (shots, seed))
        {
            return Err(Error::Mismatch {
                artifact: id(),
                what: "shots and seed".to_owned(),
                expected: format!("{shots} and {seed}"),
                found: format!("{} and {}", row.shots, row.seed),
            });
        }
        let of = |split: &str| -> Vec<Shot> {
            let rows = rows.iter().filter(|row| row.split == split);
            rows.map(|row| Shot { sample_id: row.sample_id.clone(), label: row.label as usize }).collect()
        };
        let (train, val) = (of("train"), of("val"));
        if train.is_empty() {
            return Err(Error::Mismatch {
                artifact: id(),
                what: "training images".to_owned(),
                expected: "at least one".to_owned(),
                found: "none".to_owned(),
            });
        }
        let class_names = reader.class_names()?.to_vec();
        Ok(Self { train, val, class_names, digest: reader.record().content_digest() })
    }

    /// Fails unless `class_names` of `reader` are those of the list.
    ///
    /// # Errors
    ///
    /// Names the first class that differs.
    pub fn check_classes(&self, reader: &ArtifactReader) -> Result<(), Error> {
        check_classes(reader, &self.class_names)
    }
}

/// Fails unless the classes of `reader` are `expected`.
pub(crate) fn check_classes(reader: &ArtifactReader, expected: &[String]) -> Result<(), Error> {
    let found = reader.class_names()?;
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    let name = |names: &[String]| names.get(at).map_or("no class".to_owned(), |name| format!("`{name}`"));
    Err(Error::Mismatch {
        artifact: Box::new(reader.record().id.clone()),
        what: format!("name of class {at}"),
        expected: name(expected),
        found: name(found),
    })
}
