//! Paired tests of every method against one, on the same test images.
//!
//! A table holds one backbone and one split, and is one family for Holm's correction: every method but the reference, at
//! every number of shots. Two tests stand side by side, each with its own correction: a paired bootstrap over images and
//! seeds, and McNemar's exact test for each seed.

use std::collections::BTreeMap;

use pipeline_spec::{Plan, Store};

use super::cells::{MethodId, PlannedRun, runs_of};
use super::long::{optional, table};
use super::over_shots::shots_text;
use super::table::{Table, TableCell};
use crate::Error;
use crate::answers::{Answers, Discordant};
use crate::statistics::{Difference, Paired, RESAMPLES, holm, paired_bootstrap};

/// A method against the reference at one number of shots.
#[derive(Debug, Clone)]
struct Comparison {
    method: MethodId,
    shots: Option<u32>,
    /// Seeds that both have, with the images that only one of the two gets right.
    seeds: Vec<(u64, Discordant)>,
    /// McNemar's p of each seed, after Holm.
    adjusted: Vec<f64>,
    difference: Difference,
    /// The bootstrap's p, after Holm.
    p_holm: f64,
}

/// All comparisons of one backbone on one split.
#[derive(Debug, Clone)]
pub struct Family {
    backbone: String,
    split: String,
    num_images: usize,
    /// Name of what the others are compared with.
    reference: String,
    shots: Vec<Option<u32>>,
    comparisons: Vec<Comparison>,
}

/// One run's answers, by split.
type BySplit = BTreeMap<String, Answers>;

/// Compares every method of `plan` with its reference, backbone by backbone and split by split, where predictions of both
/// are in `store`.
///
/// # Errors
///
/// Fails if an artifact that is there cannot be read.
pub fn collect(plan: &Plan, store: &Store) -> Result<Vec<Family>, Error> {
    let Some(reference) = reference_of(plan) else { return Ok(vec![]) };
    let mut families = Vec::new();
    for backbone in &plan.pipeline.backbones {
        let runs: Vec<PlannedRun<'_>> =
            runs_of(plan).into_iter().filter(|run| run.training.backbone.id == *backbone).collect();
        let mut answers: Vec<(&PlannedRun<'_>, BySplit)> = Vec::new();
        for run in runs.iter().filter(|run| store.contains(run.predictions)) {
            answers.push((run, Answers::read(store, run.predictions)?));
        }
        for place in plan.pipeline.places() {
            families.extend(family(backbone, &place, &reference, &answers));
        }
    }
    Ok(families)
}

/// The method that all others are compared with: the pipeline's `reference`, or its zero-shot method, or its first.
pub fn reference_of(plan: &Plan) -> Option<MethodId> {
    let methods = &plan.pipeline.methods;
    let zero_shot = || methods.iter().find(|m| m.method == pipeline_spec::spec::Method::ZeroShot);
    let name = match &plan.pipeline.reference {
        Some(name) => name,
        None => &zero_shot().or(methods.first())?.name,
    };
    Some(MethodId { name: name.clone(), weights: "raw".to_owned() })
}

/// One run on one split.
struct OnSplit<'a> {
    method: MethodId,
    shots: Option<u32>,
    seed: u64,
    answers: &'a Answers,
}

/// A field of the table: method and number of shots.
pub(crate) type Field = (MethodId, Option<u32>);

/// Differences in answers between the runs of a field and the reference's, one row per seed.
pub(crate) type Rows = Vec<(u64, Vec<i8>)>;

fn family(
    backbone: &str,
    place: &str,
    reference: &MethodId,
    answers: &[(&PlannedRun<'_>, BySplit)],
) -> Option<Family> {
    let mut runs = Vec::new();
    for (run, by_split) in answers {
        let Some((_, answers)) = by_split.iter().find(|(split, _)| run.place(split) == place) else {
            continue;
        };
        let (shots, seed) = (run.training.shots, run.training.seed);
        runs.push(OnSplit { method: run.method(), shots, seed, answers });
    }
    Family::new(backbone, place, &reference.label(), pair_up(&runs, reference))
}

/// Every run but the reference's beside the reference's run of the same shots and seed; a method that sees no shots has one
/// run, which stands beside all of the other's.
fn pair_up(runs: &[OnSplit<'_>], reference: &MethodId) -> Vec<(Field, Rows)> {
    let mut fields: Vec<(Field, Rows)> = Vec::new();
    for run in runs.iter().filter(|run| run.method != *reference) {
        for other in runs.iter().filter(|other| other.method == *reference) {
            let same_cell = run.shots == other.shots && run.seed == other.seed;
            if !(same_cell || run.shots.is_none() || other.shots.is_none()) {
                continue;
            }
            let Some(row) = run.answers.minus(other.answers) else { continue };
            let cell = if run.shots.is_none() { other } else { run };
            let field = (run.method.clone(), cell.shots);
            match fields.iter_mut().find(|(known, _)| *known == field) {
                Some((_, rows)) => rows.push((cell.seed, row)),
                None => fields.push((field, vec![(cell.seed, row)])),
            }
        }
    }
    fields
}

impl Family {
    /// Tests of `fields` against the runs called `reference`; `None` if there are none.
    pub(crate) fn new(
        backbone: &str,
        split: &str,
        reference: &str,
        fields: Vec<(Field, Rows)>,
    ) -> Option<Self> {
        let num_images = fields.first()?.1.first()?.1.len();
        let rows_of = |rows: &Rows| rows.iter().map(|(_, row)| row.clone()).collect();
        let paired: Vec<Paired> = fields.iter().map(|(_, rows)| Paired { seeds: rows_of(rows) }).collect();
        let differences = paired_bootstrap(&paired, num_images, RESAMPLES);
        let p_holm = holm(&differences.iter().map(|d| d.p).collect::<Vec<_>>());
        let count = |(seed, row): &(u64, Vec<i8>)| (*seed, Discordant::of(row));
        let counts: Vec<Vec<(u64, Discordant)>> =
            fields.iter().map(|(_, rows)| rows.iter().map(count).collect()).collect();
        let all: Vec<f64> = counts.iter().flatten().map(|(_, d)| d.p()).collect();
        let mut adjusted = holm(&all).into_iter();
        let mut comparisons = Vec::new();
        for ((((method, shots), _), seeds), (difference, p_holm)) in
            fields.into_iter().zip(counts).zip(differences.into_iter().zip(p_holm))
        {
            let adjusted = adjusted.by_ref().take(seeds.len()).collect();
            comparisons.push(Comparison { method, shots, seeds, adjusted, difference, p_holm });
        }
        let mut shots: Vec<Option<u32>> = comparisons.iter().map(|c| c.shots).collect();
        shots.sort_unstable();
        shots.dedup();
        let (backbone, split, reference) = (backbone.to_owned(), split.to_owned(), reference.to_owned());
        Some(Self { backbone, split, num_images, reference, shots, comparisons })
    }

    /// Differences with their intervals and p, and McNemar's p of each seed.
    pub fn tables(&self) -> [Table; 2] {
        let (reference, images) = (&self.reference, self.num_images);
        let count: usize = self.comparisons.len();
        let bootstrap = self.wide(
            format!("Difference to {reference} on `{}`, {}", self.split, self.backbone),
            format!(
                "Percentage points against {reference} on the same {images} images, 95% interval and p of a paired bootstrap \
                 over images and seeds ({RESAMPLES} resamples). p is two-sided and corrected by Holm's method; the family is \
                 the {count} comparisons of this table. Bold: p below 0.05."
            ),
            |c| {
                let Difference { mean, low, high, .. } = c.difference;
                let [mean, low, high] = [mean, low, high].map(|value| 100.0 * value);
                let text = format!("{mean:+.1} ({low:+.1} to {high:+.1}), {}", p_text(c.p_holm));
                TableCell::number(minus_signs(&text)).bold(c.p_holm < 0.05)
            },
        );
        let tests: usize = self.comparisons.iter().map(|c| c.seeds.len()).sum();
        let mcnemar = self.wide(
            format!("McNemar's test against {reference} on `{}`, {}", self.split, self.backbone),
            format!(
                "For each seed: images that only the method gets right : images that only {reference} gets right, and the \
                 two-sided p of McNemar's exact test, corrected by Holm's method; the family is the {tests} tests of this \
                 table. Bold: p below 0.05 for every seed."
            ),
            |c| {
                let seed = |((_, d), p): (&(u64, Discordant), &f64)| {
                    format!("{}:{} {}", d.better, d.worse, p_text(*p))
                };
                let text: Vec<String> = c.seeds.iter().zip(&c.adjusted).map(seed).collect();
                TableCell::number(text.join("; ")).bold(c.adjusted.iter().all(|&p| p < 0.05))
            },
        );
        [bootstrap, mcnemar]
    }

    fn wide(&self, title: String, note: String, field: impl Fn(&Comparison) -> TableCell) -> Table {
        let mut table = Table::new(title, note, &["method"]);
        table.head.extend(self.shots.iter().map(|&shots| shots_text(shots)));
        let mut methods: Vec<&MethodId> = Vec::new();
        for comparison in &self.comparisons {
            if !methods.contains(&&comparison.method) {
                methods.push(&comparison.method);
            }
        }
        for method in methods {
            let at = |shots| self.comparisons.iter().find(|c| c.method == *method && c.shots == shots);
            let fields = self.shots.iter().map(|&shots| at(shots).map_or(TableCell::number("–"), &field));
            table.rows.push([TableCell::text(method.label())].into_iter().chain(fields).collect());
        }
        table
    }
}

/// Every test in long form. A line without a seed is the bootstrap over seeds and images.
pub fn long(families: &[Family], dataset: &str) -> Table {
    let head = [
        "dataset",
        "backbone",
        "split",
        "method",
        "weights",
        "reference",
        "shots",
        "seed",
        "test",
        "num_images",
        "better",
        "worse",
        "difference",
        "ci95_low",
        "ci95_high",
        "p",
        "p_holm",
    ];
    let mut lines = Vec::new();
    for family in families {
        for c in &family.comparisons {
            let line = |seed: String, test: &str, counts: Option<Discordant>, rest: [String; 5]| {
                let [difference, low, high, p, p_holm] = rest;
                [
                    dataset.to_owned(),
                    family.backbone.clone(),
                    family.split.clone(),
                    c.method.name.clone(),
                    c.method.weights.clone(),
                    family.reference.clone(),
                    optional(c.shots),
                    seed,
                    test.to_owned(),
                    family.num_images.to_string(),
                    optional(counts.map(|d| d.better)),
                    optional(counts.map(|d| d.worse)),
                    difference,
                    low,
                    high,
                    p,
                    p_holm,
                ]
            };
            let d = c.difference;
            let figures = [d.mean, d.low, d.high, d.p, c.p_holm].map(|value| value.to_string());
            lines.push(line(String::new(), "bootstrap", None, figures));
            for ((seed, counts), p_holm) in c.seeds.iter().zip(&c.adjusted) {
                let difference = (counts.better as f64 - counts.worse as f64) / family.num_images as f64;
                let none = String::new;
                let figures =
                    [difference.to_string(), none(), none(), counts.p().to_string(), p_holm.to_string()];
                lines.push(line(seed.to_string(), "mcnemar", Some(*counts), figures));
            }
        }
    }
    table("Every comparison", &head, lines.into_iter())
}

/// `p = 0.041`, `p < 0.001` or `p = 1`.
pub(crate) fn p_text(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p > 0.995 => "p = 1".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

/// Hyphens before figures as minus signs.
pub(crate) fn minus_signs(text: &str) -> String {
    text.replace('-', "−")
}
