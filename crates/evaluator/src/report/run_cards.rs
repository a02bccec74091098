//! A card for each run: everything that its figures depend on, and the command that repeats it.

use std::collections::{BTreeMap, BTreeSet};

use artifacts::ArtifactReader;
use flier_model::RunDescription;
use flier_model::run::{RUN_FILE, Selection};
use pipeline_spec::{Plan, Store};
use serde::Serialize;

use super::cells::{Cell, PlannedRun, runs_of};
use super::results::card_anchor;
use crate::Error;

/// What a run's figures depend on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunCard {
    /// Name for people.
    pub label: String,
    /// Where the page shows it; runs that differ by seed only share it.
    pub anchor: String,
    /// Data set of the run.
    pub dataset: String,
    /// Method in the pipeline.
    pub method: String,
    /// `raw` or `ema`.
    pub weights: String,
    /// CLIP checkpoint that the run started from.
    pub checkpoint: String,
    /// Digest of its folder.
    pub checkpoint_digest: String,
    /// Training images per class; absent for a method that sees none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots: Option<u32>,
    /// Seed of shot list and run.
    pub seed: u64,
    /// Digest of the shot list's content, as the run recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shot_list_digest: Option<String>,
    /// How weights and settings were chosen.
    pub selection: Selection,
    /// Its figures.
    pub figures: Vec<Figure>,
    /// The metrics artifact and all that it was made from, in the order of the plan.
    pub artifacts: Vec<String>,
    /// What computes it again, in an empty store.
    pub command: String,
}

/// One figure of a card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Evaluated split.
    pub split: String,
    /// Name of the figure.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Images behind it.
    pub num_images: u64,
}

/// The cards of all runs with figures, in the order of the plan.
///
/// # Errors
///
/// Fails if the description of a run cannot be read.
pub fn collect(plan: &Plan, store: &Store, cells: &[Cell]) -> Result<Vec<RunCard>, Error> {
    let plan_id = plan.id();
    let mut figures: BTreeMap<_, Vec<Figure>> = BTreeMap::new();
    for cell in cells {
        figures.entry(&cell.artifact).or_default().push(Figure {
            split: cell.split.clone(),
            metric: cell.metric.clone(),
            value: cell.value,
            num_images: cell.n,
        });
    }
    let mut cards = Vec::new();
    for run in runs_of(plan).iter().filter(|run| store.contains(run.checkpoints)) {
        let Some(figures) = figures.remove(run.metrics) else { continue };
        cards.push(card(plan, &plan_id, store, run, figures)?);
    }
    Ok(cards)
}

fn card(
    plan: &Plan,
    plan_id: &str,
    store: &Store,
    run: &PlannedRun<'_>,
    figures: Vec<Figure>,
) -> Result<RunCard, Error> {
    let reader = ArtifactReader::open(store, run.checkpoints)?;
    let description = RunDescription::read(&reader.file_path(RUN_FILE)?)?;
    let method = run.method();
    let backbone = &run.training.backbone;
    let index = plan.units.iter().position(|planned| planned.output == *run.metrics);
    let units = index.map_or(BTreeSet::new(), |index| needed_units(plan, index));
    let artifacts = units.iter().map(|&index| plan.units[index].output.to_string()).collect();
    let plan_file = store.plan_dir(plan_id).join("plan.json");
    let command = format!(
        "cargo xtask run --plan {} --store NEW_STORE --units {}",
        plan_file.display(),
        ranges(&units)
    );
    Ok(RunCard {
        label: run.label(),
        anchor: card_anchor(&backbone.id, &method, run.training.shots),
        dataset: run.training.dataset.to_string(),
        method: method.name,
        weights: method.weights,
        checkpoint: backbone.id.clone(),
        checkpoint_digest: backbone.digest.to_string(),
        shots: run.training.shots,
        seed: run.training.seed,
        shot_list_digest: description.shot_list_digest,
        selection: description.selection,
        figures,
        artifacts,
        command,
    })
}

/// The unit and everything that it reads, directly or not.
fn needed_units(plan: &Plan, index: usize) -> BTreeSet<usize> {
    let (mut needed, mut open) = (BTreeSet::new(), vec![index]);
    while let Some(index) = open.pop() {
        if needed.insert(index) {
            open.extend(&plan.units[index].depends_on);
        }
    }
    needed
}

/// `3,7,10..13` for 3, 7, 10, 11 and 12: the list that `cargo xtask run --units` takes.
fn ranges(units: &BTreeSet<usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &unit in units {
        match runs.last_mut() {
            Some((_, end)) if *end == unit => *end += 1,
            _ => runs.push((unit, unit + 1)),
        }
    }
    let text = |&(first, end): &(usize, usize)| {
        if end - first == 1 { first.to_string() } else { format!("{first}..{end}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_to_ranges_without_their_ends() {
        assert_eq!(ranges(&BTreeSet::from([3, 7, 10, 11, 12])), "3,7,10..13");
        assert_eq!(ranges(&BTreeSet::new()), "");
    }
}
