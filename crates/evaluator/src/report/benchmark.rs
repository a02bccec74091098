//! Several data sets together: the average over data sets, and each data set, over shots.
//!
//! ```text
//! benchmark.html  benchmark.md        figures and tables
//! average-over-shots.{svg,png}        the form of the paper's Figure 2
//! datasets-over-shots.{svg,png}       the form of its Figure 3
//! tables/*.{csv,tex}                  each table by itself
//! ```
//!
//! A mean over data sets is taken seed by seed, and only over seeds that every data set has: a missing run leaves a gap,
//! never a mean over fewer data sets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pipeline_spec::{Plan, Store};
use serde::Serialize;

use super::Files;
use super::cells::{Cell, MethodId, TEST_BEST, collect, runs_of, select_name};
use super::chart::Figure;
use super::over_shots::{self, Line, shots_text};
use super::published::{self, ELEVEN, MEAN_OF_11};
use super::results::{MAIN_METRIC, mark_best, mean_text};
use super::summary::{Summary, summarise};
use super::table::{Table, TableCell, markdown};
use super::template::{self, Picture};
use crate::Error;

/// Top-1 accuracy on the test split of several data sets.
struct Benchmark {
    datasets: Vec<String>,
    backbones: Vec<String>,
    lines: Vec<Line>,
    shots: Vec<u32>,
    values: BTreeMap<Place, BTreeMap<u64, f64>>,
}

/// Where a figure stands; it has one value for each seed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    dataset: String,
    backbone: String,
    method: MethodId,
    shots: Option<u32>,
}

#[derive(Serialize)]
struct View<'a> {
    title: &'a str,
    facts: &'a [String],
    pictures: Vec<Picture>,
    tables: &'a [Table],
    published: &'a [Table],
}

/// Writes figures and tables of `plans`, one for each data set, into the folder `out`; gives the files.
///
/// # Errors
///
/// Fails if two plans are of one data set, an artifact that is there cannot be read, or a file cannot be written.
pub fn write(plans: &[Plan], store: &Store, out: &Path) -> Result<Vec<PathBuf>, Error> {
    let benchmark = Benchmark::read(plans, store)?;
    let mut files = Files::create(out)?;
    let figures = [
        ("average-over-shots", "Average over data sets", benchmark.average_figure()),
        ("datasets-over-shots", "Each data set", benchmark.datasets_figure()),
    ];
    let (mut pictures, mut text) = (Vec::new(), String::from("# Several data sets\n\n"));
    let facts = benchmark.facts();
    facts.iter().for_each(|fact| text.push_str(&format!("- {fact}\n")));
    text.push('\n');
    for (name, title, figure) in figures {
        let svg = files.write_chart(name, &figure)?;
        let caption =
            "Mean over seeds with its 95% interval; methods that see no shots are dashed horizontal lines.";
        let (title, caption, uri) = (title.to_owned(), caption.to_owned(), String::new());
        text.push_str(&format!("![{title}]({name}.png)\n\n{caption}\n\n"));
        pictures.push(Picture { title, caption, svg, uri });
    }
    let (tables, published) = (benchmark.tables(), benchmark.published());
    for table in tables.iter().chain(&published) {
        text.push_str(&markdown(table));
        files.write_table(table)?;
    }
    files.write("benchmark.md", text.as_bytes())?;
    let view =
        View { title: "Several data sets", facts: &facts, pictures, tables: &tables, published: &published };
    files.write("benchmark.html", template::page("benchmark", &view)?.as_bytes())?;
    Ok(files.written)
}

impl Benchmark {
    fn read(plans: &[Plan], store: &Store) -> Result<Self, Error> {
        let mut benchmark = Self {
            datasets: vec![],
            backbones: vec![],
            lines: vec![],
            shots: vec![],
            values: BTreeMap::new(),
        };
        for plan in plans {
            let dataset = plan.pipeline.dataset.to_string();
            if benchmark.datasets.contains(&dataset) {
                return Err(Error::SameDataset { dataset });
            }
            benchmark.add_lines(plan);
            let test = plan.pipeline.places().into_iter().next().unwrap_or_default();
            let is_wanted =
                |cell: &Cell| cell.metric == MAIN_METRIC && cell.split == test && cell.select != TEST_BEST;
            for cell in collect(plan, store)?.cells.into_iter().filter(is_wanted) {
                let (backbone, method, shots) = (cell.backbone, cell.method, cell.shots);
                let place = Place { dataset: dataset.clone(), backbone, method, shots };
                benchmark.values.entry(place).or_default().insert(cell.seed, cell.value);
            }
            benchmark.datasets.push(dataset);
        }
        benchmark.shots.sort_unstable();
        Ok(benchmark)
    }

    /// Adds backbones, methods and numbers of shots that are not there yet.
    fn add_lines(&mut self, plan: &Plan) {
        for backbone in &plan.pipeline.backbones {
            if !self.backbones.contains(backbone) {
                self.backbones.push(backbone.clone());
            }
        }
        for &shots in &plan.pipeline.fewshot.shots {
            if !self.shots.contains(&shots) {
                self.shots.push(shots);
            }
        }
        for run in runs_of(plan) {
            let method = run.method();
            if self.lines.iter().all(|line| line.method != method) {
                let known = self.lines.iter().find(|line| line.method.name == method.name);
                let next = self.lines.iter().map(|line| line.index + 1).max().unwrap_or(0);
                let index = known.map_or(next, |line| line.index);
                let select = select_name(&run.training.method);
                self.lines.push(Line { method, select, sees_shots: run.training.shots.is_some(), index });
            }
        }
        self.lines.sort_by_key(|line| (line.index, line.method.weights == "ema"));
    }

    fn by_seed(&self, dataset: &str, backbone: &str, line: &Line, shots: Option<u32>) -> BTreeMap<u64, f64> {
        let (dataset, backbone, method) = (dataset.to_owned(), backbone.to_owned(), line.method.clone());
        self.values.get(&Place { dataset, backbone, method, shots }).cloned().unwrap_or_default()
    }

    fn summary(&self, dataset: &str, backbone: &str, line: &Line, shots: Option<u32>) -> Option<Summary> {
        let values: Vec<f64> = self.by_seed(dataset, backbone, line, shots).into_values().collect();
        summarise(&values)
    }

    /// Mean over data sets of each seed that all of them have, summarised over seeds.
    fn average(&self, backbone: &str, line: &Line, shots: Option<u32>) -> Option<Summary> {
        let all: Vec<_> = self.datasets.iter().map(|d| self.by_seed(d, backbone, line, shots)).collect();
        let mut seeds: BTreeSet<u64> = all.first()?.keys().copied().collect();
        all.iter().for_each(|values| seeds.retain(|seed| values.contains_key(seed)));
        let mean = |seed| all.iter().map(|values| values[seed]).sum::<f64>() / all.len() as f64;
        let values: Vec<f64> = seeds.iter().map(mean).collect();
        summarise(&values)
    }

    fn average_title(&self) -> String {
        format!("mean over {} data sets", self.datasets.len())
    }

    /// ImageNet if it is among the data sets, and the average.
    fn average_figure(&self) -> Figure {
        let imagenet: Vec<&String> = self.datasets.iter().filter(|d| *d == "imagenet").collect();
        self.figure(&imagenet, true)
    }

    /// The average and every data set.
    fn datasets_figure(&self) -> Figure {
        self.figure(&self.datasets.iter().collect::<Vec<_>>(), false)
    }

    fn figure(&self, datasets: &[&String], average_is_last: bool) -> Figure {
        let mut panels = Vec::new();
        for backbone in &self.backbones {
            let mut of_backbone: Vec<_> = datasets
                .iter()
                .map(|dataset| {
                    let at = |line: &Line, shots| self.summary(dataset, backbone, line, shots);
                    over_shots::panel(&format!("{dataset} ({backbone})"), &self.lines, &self.shots, at)
                })
                .collect();
            let at = |line: &Line, shots| self.average(backbone, line, shots);
            let title = format!("{} ({backbone})", self.average_title());
            let average = over_shots::panel(&title, &self.lines, &self.shots, at);
            let place = if average_is_last { of_backbone.len() } else { 0 };
            of_backbone.insert(place, average);
            panels.extend(of_backbone);
        }
        Figure { panels, legend: over_shots::legend(&self.lines), shots: self.shots.clone() }
    }

    fn columns(&self) -> Vec<Option<u32>> {
        let reference = self.lines.iter().any(|line| !line.sees_shots).then_some(None);
        reference.into_iter().chain(self.shots.iter().copied().map(Some)).collect()
    }

    /// The average over shots, and for each number of shots every data set; for each backbone.
    fn tables(&self) -> Vec<Table> {
        let note = "Top-1 accuracy in percent on the test split: mean ± half of the 95% interval over seeds (Student's t), in \
                    brackets the number of seeds. A mean over data sets is taken for each seed, over seeds that every data \
                    set has. Bold: the best mean of a column.";
        let mut tables = Vec::new();
        for backbone in &self.backbones {
            let columns = self.columns();
            let title = format!("Mean over {} data sets, {backbone}", self.datasets.len());
            let heads = columns.iter().map(|&shots| shots_text(shots)).collect();
            tables.push(self.table(title, note, heads, |line| {
                columns.iter().map(|&shots| self.average(backbone, line, shots)).collect()
            }));
            for &shots in &self.shots {
                let title = format!("Every data set at {}, {backbone}", shots_text(Some(shots)));
                let heads =
                    self.datasets.iter().map(|d| format!("`{d}`")).chain(["mean".to_owned()]).collect();
                tables.push(self.table(title, note, heads, |line| {
                    let at = line.sees_shots.then_some(shots);
                    let each = self.datasets.iter().map(|d| self.summary(d, backbone, line, at));
                    each.chain([self.average(backbone, line, at)]).collect()
                }));
            }
        }
        tables
    }

    fn table(
        &self,
        title: String,
        note: &str,
        heads: Vec<String>,
        fields: impl Fn(&Line) -> Vec<Option<Summary>>,
    ) -> Table {
        let mut table = Table::new(title, note, &["method", "selection"]);
        table.head.extend(heads);
        let mut means = Vec::new();
        for line in &self.lines {
            let found = fields(line);
            let text = |s: &Option<Summary>| s.map_or("–".to_owned(), |s| mean_text(s, s.num_seeds, 100.0));
            let words = [line.method.label(), line.select.to_owned()].map(TableCell::text);
            table
                .rows
                .push(words.into_iter().chain(found.iter().map(|s| TableCell::number(text(s)))).collect());
            means.push(found.iter().map(|s| s.map(|s| s.mean)).collect());
        }
        mark_best(&mut table.rows, &means, 2);
        table
    }

    /// Published figures of these data sets, and of their mean where they are the eleven.
    fn published(&self) -> Vec<Table> {
        let is_eleven = self.datasets.len() == ELEVEN.len()
            && ELEVEN.iter().all(|dataset| self.datasets.iter().any(|own| own == dataset));
        let names =
            is_eleven.then_some(MEAN_OF_11).into_iter().chain(self.datasets.iter().map(String::as_str));
        let tables =
            |name| self.backbones.iter().filter_map(move |backbone| published::table(name, backbone));
        names.flat_map(tables).collect()
    }

    fn facts(&self) -> Vec<String> {
        vec![
            format!("data sets: `{}`", self.datasets.join("`, `")),
            format!("backbones: `{}`", self.backbones.join("`, `")),
            "figures chosen on test images (`test-best`) are left out".to_owned(),
        ]
    }
}
