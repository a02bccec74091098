//! Which images a run gets right, for tests that pair two runs image by image.

use std::collections::BTreeMap;

use artifacts::{ArtifactReader, PredictionRow};
use pipeline_spec::{ArtifactId, Digest, Store};

use crate::Error;
use crate::accuracy::predicted_class;
use crate::statistics::mcnemar_exact;

/// The answers of one run on one split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Digest of the ids and labels of the images, in order: two runs with the same one can be paired.
    pub images: Digest,
    /// Whether each image is right.
    pub right: Vec<bool>,
}

impl Answers {
    /// Answers of predictions, by split.
    pub fn of(rows: &[PredictionRow]) -> BTreeMap<String, Self> {
        let mut splits: BTreeMap<&str, (String, Vec<bool>)> = BTreeMap::new();
        for row in rows {
            let (ids, right) = splits.entry(&row.split).or_default();
            ids.push_str(&format!("{}\0{}\n", row.sample_id, row.label));
            right.push(predicted_class(&row.logits) == Some(row.label as usize));
        }
        let answers = splits.into_iter().map(|(split, (ids, right))| {
            let images = Digest::blake3(ids.as_bytes());
            (split.to_owned(), Self { images, right })
        });
        answers.collect()
    }

    /// Answers of the predictions `id`, by split.
    ///
    /// # Errors
    ///
    /// Fails if the artifact cannot be read.
    pub fn read(store: &Store, id: &ArtifactId) -> Result<BTreeMap<String, Self>, Error> {
        Ok(Self::of(&ArtifactReader::open(store, id)?.rows::<PredictionRow>()?))
    }

    /// For each image 1 if only these answers are right, -1 if only the `other` ones are; `None` if the images differ.
    pub fn minus(&self, other: &Self) -> Option<Vec<i8>> {
        let difference = |(a, b): (&bool, &bool)| i8::from(*a) - i8::from(*b);
        (self.images == other.images).then(|| self.right.iter().zip(&other.right).map(difference).collect())
    }
}

/// Images that only the first of two runs gets right, and those that only the second does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discordant {
    /// Only the first.
    pub better: u64,
    /// Only the second.
    pub worse: u64,
}

impl Discordant {
    /// Counts of the differences of one seed.
    pub fn of(differences: &[i8]) -> Self {
        let count = |wanted: i8| differences.iter().filter(|&&value| value == wanted).count() as u64;
        Self { better: count(1), worse: count(-1) }
    }

    /// Two-sided p of McNemar's exact test.
    pub fn p(self) -> f64 {
        mcnemar_exact(self.better, self.worse)
    }
}
