//! Methods that train through the text tower: prompts, low-rank updates and layer norms.

use serde::{Deserialize, Serialize};

use super::adapters::check_rate;
use super::{Augment, expect};
use crate::{Error, Shots};

/// CoOp (arXiv 2109.01134): learned vectors before the class name in the place of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoOpSpec {
    /// Number of learned vectors; 16 in the paper.
    pub context_length: u32,
    /// Whose they are.
    pub context: Context,
    /// Passes over the shot list by its number of shots; in the paper 50 from 1 shot on, 100 from 2, 200 from 8.
    pub epochs: Vec<EpochsFrom>,
    /// Images in a step.
    pub batch_size: u32,
    /// Learning rate of SGD (momentum 0.9, weight decay 5e-4): one epoch at 1e-5, then a cosine to zero.
    pub learning_rate: f64,
}

/// Whose the learned vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Context {
    /// All classes share them.
    Unified,
    /// Each class has its own.
    ClassSpecific,
}

/// Epochs from a number of shots on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochsFrom {
    /// The least number of shots for which they hold.
    pub shots: Shots,
    /// Passes over the shot list.
    pub epochs: u32,
}

/// How the two towers are trained on images: AdamW (betas 0.9 and 0.999, eps 1e-8), a cosine over the steps to 1e-6. There
/// are `steps_per_shot` times the number of shots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerTraining {
    /// Steps for each shot.
    pub steps_per_shot: u32,
    /// Images in a step.
    pub batch_size: u32,
    /// Learning rate of the first step.
    pub learning_rate: f64,
    /// Decoupled weight decay of every trained parameter.
    pub weight_decay: f64,
    /// Augmentation of training images.
    pub augment: Augment,
}

/// CLIP-LoRA (arXiv 2405.18541): low-rank updates of the query, key and value projections of every layer of both towers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipLoraSpec {
    /// Rank of an update; 2 in the paper.
    pub rank: u32,
    /// An update counts `alpha / sqrt(rank)`, as in the authors' code; 1 there.
    pub alpha: f64,
    /// Probability with which an element of an update's input is hidden; 0.25 in the paper.
    pub dropout: f64,
    /// 500 steps a shot in batches of 32 at 2e-4, weight decay 0.01, in the paper.
    pub training: TowerTraining,
}

/// 2SFS (arXiv 2503.11609): first the layer norms of both towers, then a classifier that starts at the text features.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwoStageSpec {
    /// Share of the steps that train the layer norms; 0.6 in the paper.
    pub first_stage: f64,
    /// 300 steps a shot in batches of 32 at 2e-4, weight decay 0.01, in the paper; each stage has its own cosine.
    pub training: TowerTraining,
}

impl CoOpSpec {
    /// Epochs of a run with `shots`.
    ///
    /// # Errors
    ///
    /// Fails if no entry is for so few.
    pub fn epochs_of(&self, shots: Shots) -> Result<u32, Error> {
        let fits = self.epochs.iter().filter(|from| from.shots <= shots).max_by_key(|from| from.shots);
        fits.map(|from| from.epochs).ok_or_else(|| Error::Field {
            field: "method.epochs".to_owned(),
            problem: format!("expected an entry for {shots} shots or fewer, found none"),
        })
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        expect(self.context_length > 0, "method.context_length", "at least 1", self.context_length)?;
        expect(!self.epochs.is_empty(), "method.epochs", "at least one entry", "[]")?;
        let is_ascending = self.epochs.is_sorted_by(|a, b| a.shots < b.shots);
        expect(is_ascending, "method.epochs", "ascending numbers of shots", "others")?;
        let is_trained = self.epochs.iter().all(|from| from.epochs > 0);
        expect(is_trained, "method.epochs", "at least 1 epoch in every entry", "0")?;
        expect(self.batch_size > 0, "method.batch_size", "at least 1", self.batch_size)?;
        check_rate("learning_rate", self.learning_rate)
    }
}

impl TowerTraining {
    fn check(&self) -> Result<(), Error> {
        let steps = self.steps_per_shot;
        expect(steps > 0, "method.training.steps_per_shot", "at least 1", steps)?;
        expect(self.batch_size > 0, "method.training.batch_size", "at least 1", self.batch_size)?;
        let decay = self.weight_decay;
        let is_decay = decay >= 0.0 && decay.is_finite();
        expect(is_decay, "method.training.weight_decay", "a number >= 0", decay)?;
        self.augment.check()?;
        check_rate("training.learning_rate", self.learning_rate)
    }
}

impl ClipLoraSpec {
    pub(super) fn check(&self) -> Result<(), Error> {
        expect(self.rank > 0, "method.rank", "at least 1", self.rank)?;
        expect(self.alpha > 0.0 && self.alpha.is_finite(), "method.alpha", "a number > 0", self.alpha)?;
        expect((0.0..1.0).contains(&self.dropout), "method.dropout", "in [0, 1)", self.dropout)?;
        self.training.check()
    }
}

impl TwoStageSpec {
    pub(super) fn check(&self) -> Result<(), Error> {
        let share = self.first_stage;
        expect(share > 0.0 && share < 1.0, "method.first_stage", "between 0 and 1", share)?;
        self.training.check()
    }
}
