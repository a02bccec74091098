//! Shot lists: which images a few-shot run may train and select on.
//!
//! The recipe is CoOp's as `cross_modal_adaptation` published it: seed Python's generator once, group the
//! training list by label in order of first appearance, draw K of each group, then in the same stream do so
//! on the validation list. The order of a list therefore matters; it is the order of the packed images.

use std::collections::HashMap;

use pipeline_spec::spec::{ShortClass, ValShots};

use super::python_random::PythonRandom;
use crate::Error;

/// Positions in the training and validation lists, in drawn order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShotList {
    /// Positions in the training list.
    pub train: Vec<usize>,
    /// Positions in the validation list.
    pub val: Vec<usize>,
}

/// Draws the shot list of `shots` images per class under `seed`.
///
/// `train` and `val` are the labels of the two lists, in list order.
///
/// # Errors
///
/// Fails if `shots` is zero or a list is empty or too long.
pub fn draw(
    train: &[u32],
    val: &[u32],
    shots: u32,
    seed: u64,
    val_shots: ValShots,
    short_class: ShortClass,
) -> Result<ShotList, Error> {
    if shots == 0 || train.is_empty() {
        let problem = format!("expected at least one shot and one image, found {shots} and {}", train.len());
        return Err(Error::Shots { problem });
    }
    let mut random = PythonRandom::seed(seed);
    let train = draw_per_class(&mut random, train, shots, short_class)?;
    let val = match val_shots {
        ValShots::MinShots4 => draw_per_class(&mut random, val, shots.min(4), ShortClass::TakeAll)?,
        ValShots::All => (0..val.len()).collect(),
    };
    Ok(ShotList { train, val })
}

fn draw_per_class(
    random: &mut PythonRandom,
    labels: &[u32],
    shots: u32,
    short_class: ShortClass,
) -> Result<Vec<usize>, Error> {
    let mut drawn = Vec::new();
    for group in group_by_label(labels) {
        let size = u32::try_from(group.len())
            .map_err(|_| Error::Shots { problem: format!("a class has {} images", group.len()) })?;
        match (random_sample(random, size, shots), short_class) {
            (Some(chosen), _) => drawn.extend(chosen.into_iter().map(|i| group[i as usize])),
            (None, ShortClass::TakeAll) => drawn.extend(group),
            // Dassl's `random.choices(items, k=num_shots)`.
            (None, ShortClass::Repeat) => {
                drawn.extend(random.choices(size, shots).into_iter().map(|i| group[i as usize]));
            }
        }
    }
    Ok(drawn)
}

/// `None` leaves the stream untouched, as CoOp's code does for a class that is too small.
fn random_sample(random: &mut PythonRandom, size: u32, shots: u32) -> Option<Vec<u32>> {
    if size < shots { None } else { random.sample(size, shots) }
}

/// Positions of each label, labels in order of first appearance.
fn group_by_label(labels: &[u32]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut of_label = HashMap::new();
    for (position, label) in labels.iter().enumerate() {
        let group = *of_label.entry(*label).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(position);
    }
    groups
}
