//! The figures for machines: every cell in long form, and their summary over seeds.

use super::results::Results;
use super::table::{Table, TableCell};

/// One line for each run, split and figure.
pub fn results(results: &Results<'_>, dataset: &str) -> Table {
    let head = [
        "dataset",
        "backbone",
        "method",
        "weights",
        "selection",
        "shots",
        "seed",
        "split",
        "metric",
        "value",
        "num_images",
        "artifact",
    ];
    let line = |cell: &super::cells::Cell| {
        [
            dataset.to_owned(),
            cell.backbone.clone(),
            cell.method.name.clone(),
            cell.method.weights.clone(),
            cell.select.clone(),
            optional(cell.shots),
            cell.seed.to_string(),
            cell.split.clone(),
            cell.metric.clone(),
            cell.value.to_string(),
            cell.n.to_string(),
            cell.artifact.to_string(),
        ]
    };
    table("Every figure", &head, results.cells.iter().map(line))
}

/// One line for each method, number of shots, split and figure. The interval is Student's t over seeds; its fields are
/// empty for one seed.
pub fn summary(results: &Results<'_>, dataset: &str) -> Table {
    let head = [
        "dataset",
        "backbone",
        "method",
        "weights",
        "shots",
        "split",
        "metric",
        "mean",
        "ci95_low",
        "ci95_high",
        "num_seeds",
        "num_planned_seeds",
        "note",
    ];
    let line = |(group, summary): (&super::summary::Group, &super::summary::Summary)| {
        let bound = |sign: f64| summary.half_width.map(|half| summary.mean + sign * half);
        [
            dataset.to_owned(),
            group.backbone.clone(),
            group.method.name.clone(),
            group.method.weights.clone(),
            optional(group.shots),
            group.split.clone(),
            group.metric.clone(),
            summary.mean.to_string(),
            optional(bound(-1.0)),
            optional(bound(1.0)),
            summary.num_seeds.to_string(),
            results.num_planned(group).to_string(),
            if summary.half_width.is_none() { "one seed: no interval".to_owned() } else { String::new() },
        ]
    };
    table("Mean and interval over seeds", &head, results.summaries.iter().map(line))
}

/// A table whose fields are all plain text.
pub(super) fn table<const N: usize>(
    title: &str,
    head: &[&str; N],
    lines: impl Iterator<Item = [String; N]>,
) -> Table {
    let rows = lines.map(|line| line.map(TableCell::text).to_vec()).collect();
    Table { rows, ..Table::new(title, "", head) }
}

/// The value, or nothing.
pub(super) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}
