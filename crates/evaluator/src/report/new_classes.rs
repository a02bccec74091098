//! Accuracy on the classes that were trained on and on new ones.

use super::over_shots::Line;
use super::results::{Results, mark_best, mean_text};
use super::summary::Summary;
use super::table::{Table, TableCell};
use crate::report::summary::summarise;

/// Places of the base and of the new classes on the first evaluated split, if the classes of the pipeline are split.
fn places(results: &Results<'_>) -> Option<[String; 2]> {
    let place = |half: &str| results.places().iter().find(|p| p.starts_with(&format!("{half}/"))).cloned();
    Some([place("base")?, place("new")?])
}

/// Base, new and harmonic mean at each number of shots, one table for each backbone; empty unless the classes are split.
pub(super) fn tables(results: &Results<'_>) -> Vec<Table> {
    let Some(places) = places(results) else { return vec![] };
    results.backbones().iter().map(|backbone| table(results, backbone, &places)).collect()
}

fn table(results: &Results<'_>, backbone: &str, [base, new]: &[String; 2]) -> Table {
    let (mut rows, mut means) = (Vec::new(), Vec::new());
    for line in results.lines() {
        let shots: Vec<Option<u32>> =
            if line.sees_shots { results.shots().into_iter().map(Some).collect() } else { vec![None] };
        for shots in shots {
            let found = [base, new].map(|place| results.summary(backbone, line, place, shots));
            let harmonic = harmonic(results, backbone, line, [base, new], shots);
            let fields = found.iter().map(|found| match found {
                Some((group, summary)) => results.field(group, *summary, 100.0),
                None => TableCell::number("not run"),
            });
            let words = [line.method.label(), super::over_shots::shots_text(shots)].map(TableCell::text);
            let text = harmonic.map_or("–".to_owned(), |h| mean_text(h, h.num_seeds, 100.0));
            rows.push(words.into_iter().chain(fields).chain([TableCell::number(text)]).collect::<Vec<_>>());
            let [base, new] = found.map(|found| found.map(|(_, summary)| summary.mean));
            means.push(vec![base, new, harmonic.map(|h| h.mean)]);
        }
    }
    mark_best(&mut rows, &means, 2);
    let mut table = Table::new(
        format!("Base and new classes, {backbone}"),
        "Trained on the first half of the classes; each half is told apart among its own classes, the new ones by their \
         texts alone. Top-1 accuracy in percent, mean ± half of the 95% interval over seeds. H: harmonic mean of both, taken \
         for each seed (Zhou et al. 2022). Bold: the best mean of a column.",
        &["method", "shots", "base", "new", "H"],
    );
    table.rows = rows;
    table
}

/// Harmonic mean of base and new, seed by seed.
fn harmonic(
    results: &Results<'_>,
    backbone: &str,
    line: &Line,
    places: [&String; 2],
    shots: Option<u32>,
) -> Option<Summary> {
    let [base, new] = places.map(|place| results.by_seed(backbone, line, place, shots));
    let of_seed = |(seed, base): (&u64, &f64)| {
        let new = new.get(seed)?;
        Some(if base + new > 0.0 { 2.0 * base * new / (base + new) } else { 0.0 })
    };
    let values: Vec<f64> = base.iter().filter_map(of_seed).collect();
    summarise(&values)
}
