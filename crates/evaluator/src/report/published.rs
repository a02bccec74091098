//! Published figures as a reference: with their source and how sure the figure is, in tables of their own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::cells::TEST_BEST;
use super::over_shots::shots_text;
use super::table::{Table, TableCell};

/// The mean over the eleven data sets of CoOp, as the name of a data set.
pub const MEAN_OF_11: &str = "mean_of_11";

/// The eleven data sets of CoOp.
pub const ELEVEN: [&str; 11] = [
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
];

/// Figures of one method from one source.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Method, as its authors name it.
    pub method: String,
    /// CLIP checkpoint, as OpenAI names it.
    pub backbone: String,
    /// Where the figures stand.
    pub source: String,
    /// Seeds and settings, as far as the source says.
    #[serde(default)]
    pub protocol: String,
    /// How weights or settings were chosen.
    pub selection: String,
    /// How sure the figures are.
    pub mark: Mark,
    /// Numbers of shots of the figures; empty for a method that sees none.
    pub shots: Vec<u32>,
    /// Top-1 accuracy in percent by data set, one figure for each number of shots.
    pub top1: BTreeMap<String, Vec<f64>>,
}

/// How sure a published figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It stands in the source.
    Known,
    /// It was read off a figure.
    Digitised,
    /// It comes from memory.
    Recalled,
}

impl Mark {
    fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Digitised => "digitised",
            Self::Recalled => "recalled",
        }
    }
}

/// Every published figure that this project knows of.
pub fn series() -> Vec<Series> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        series: Vec<Series>,
    }
    let file: File = toml::from_str(include_str!("published.toml")).expect("a test reads the file");
    let mut series = file.series;
    for series in &mut series {
        let all: Option<Vec<&Vec<f64>>> = ELEVEN.iter().map(|&dataset| series.top1.get(dataset)).collect();
        if let Some(all) = all {
            let count = series.shots.len().max(1);
            let mean = |at: usize| all.iter().map(|figures| figures[at]).sum::<f64>() / all.len() as f64;
            let means = (0..count).map(mean).collect();
            series.top1.insert(MEAN_OF_11.to_owned(), means);
        }
    }
    series
}

/// Published figures on `dataset` with the checkpoint in the folder `backbone`; `None` if there are none.
pub fn table(dataset: &str, backbone: &str) -> Option<Table> {
    let folder = |name: &str| name.to_lowercase().replace('/', "-");
    let all = series();
    let rows: Vec<&Series> = all
        .iter()
        .filter(|s| folder(&s.backbone) == folder(backbone) && s.top1.contains_key(dataset))
        .collect();
    let first = rows.first()?;
    let shots: BTreeSet<u32> = rows.iter().flat_map(|s| s.shots.iter().copied()).collect();
    let mut columns: Vec<Option<u32>> = shots.into_iter().map(Some).collect();
    if rows.iter().any(|s| s.shots.is_empty()) {
        columns.insert(0, None);
    }
    let mut table = Table::new(
        format!("Published figures on `{dataset}`, {}", first.backbone),
        "Top-1 accuracy in percent, as others published it; nothing here was measured by this project. Mark: known (stands in \
         the source), digitised (read off a figure), recalled (from memory, to be checked). † Chosen on the test images.",
        &["method"],
    );
    table.head.extend(columns.iter().map(|&shots| shots_text(shots)));
    table.head.extend(["selection", "protocol", "mark", "source"].map(str::to_owned));
    for series in rows {
        let figures = &series.top1[dataset];
        let flag = if series.selection == TEST_BEST { " †" } else { "" };
        let field = |column: &Option<u32>| {
            let at = match column {
                None => series.shots.is_empty().then_some(0),
                Some(shots) => series.shots.iter().position(|s| s == shots),
            };
            let figure = at.and_then(|at| figures.get(at));
            TableCell::number(figure.map_or("–".to_owned(), |figure| format!("{figure:.1}{flag}")))
        };
        let mut row = vec![TableCell::text(&series.method)];
        row.extend(columns.iter().map(field));
        let words = [&series.selection, &series.protocol, series.mark.name(), &series.source];
        row.extend(words.map(|text: &str| TableCell::text(text)));
        table.rows.push(row);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_a_figure_for_each_number_of_shots() {
        for series in series() {
            let count = series.shots.len().max(1);
            assert!(!series.top1.is_empty() && !series.source.is_empty(), "{}", series.method);
            for (dataset, figures) in &series.top1 {
                assert_eq!(figures.len(), count, "{} on {dataset}", series.method);
                assert!(figures.iter().all(|f| (0.0..100.0).contains(f)), "{} on {dataset}", series.method);
            }
        }
    }

    #[test]
    fn means_of_the_eleven_are_those_of_the_sources() {
        let means = |method: &str, source: &str| {
            let all = series();
            let fits = |s: &&Series| s.method == method && s.source.contains(source) && s.shots.len() != 1;
            let found = all.iter().find(fits).map(|s| s.top1[MEAN_OF_11].clone());
            found.unwrap_or_else(|| panic!("no {method} of {source}"))
        };
        // The means that were worked out beside the sources' tables, with two decimals.
        let expected = [
            ("Tip-Adapter-F", "Tip-Adapter exp.log", vec![64.60, 66.65, 69.67, 72.45, 75.83]),
            ("CoOp", "APE_results", vec![59.80, 62.21, 66.84, 70.05, 73.45]),
            ("CaFo", "CaFo exp.log", vec![67.87, 69.52, 73.07, 75.89, 78.79]),
            ("GDA", "ICLR24", vec![62.19, 66.19, 69.77, 73.31, 76.05]),
            ("APE-T", "APE_results", vec![67.23, 69.43, 72.25, 74.47, 77.28]),
            ("CLIP-Adapter", "Tip-Adapter exp.log", vec![62.67, 65.55, 68.61, 71.40, 74.44]),
        ];
        for (method, source, expected) in expected {
            for (found, expected) in means(method, source).iter().zip(expected) {
                assert!((found - expected).abs() < 0.0051, "{method}: expected {expected}, found {found}");
            }
        }
    }

    #[test]
    fn figures_chosen_on_test_images_are_flagged_and_sources_named() {
        let table = table("imagenet", "RN50").unwrap();
        let row = |method: &str| table.rows.iter().find(|row| row[0].text == method).unwrap();
        assert_eq!(table.head[1..7], ["no shots", "1 shot", "2 shots", "4 shots", "8 shots", "16 shots"]);
        assert_eq!(row("Tip-Adapter-F")[6].text, "65.5 †");
        assert_eq!(row("GDA")[6].text, "63.8");
        assert_eq!(row("Tip-Adapter-F")[9].text, "known");
        assert!(super::table("imagenet", "ViT-B-16").is_some(), "folder names have no slash");
        assert_eq!(super::table("emoji", "emoji-clip-vit"), None);
    }
}
