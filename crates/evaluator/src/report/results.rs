//! Tables and figures of accuracy, from the cells of a sweep.

use std::collections::BTreeMap;

use pipeline_spec::Plan;

use super::cells::{Cell, Measured, MethodId, runs_of, select_name};
use super::chart::{Figure, LegendEntry, Panel, Point, Series};
use super::summary::{Group, Summary, over_seeds};
use super::table::{Table, TableCell};

/// The figure that tables and charts show.
pub const MAIN_METRIC: &str = crate::metrics::TOP1;

/// What the plan would measure and what has been.
pub struct Results<'a> {
    plan: &'a Plan,
    /// Every figure.
    pub cells: &'a [Cell],
    /// One summary for each group.
    pub summaries: BTreeMap<Group, Summary>,
    /// Methods in the order of the pipeline; each with the moving average after the raw weights.
    methods: Vec<Line>,
    /// Seeds that are planned for each (backbone, method, shots).
    planned: BTreeMap<(String, MethodId, Option<u32>), u32>,
}

/// A line of a table.
struct Line {
    method: MethodId,
    select: &'static str,
    sees_shots: bool,
    /// Position of the method among those of the pipeline.
    index: usize,
}

impl<'a> Results<'a> {
    /// Puts the measured cells in the order of the plan.
    pub fn new(plan: &'a Plan, measured: &'a Measured) -> Self {
        let mut methods: Vec<Line> = Vec::new();
        let mut planned = BTreeMap::new();
        for run in runs_of(plan) {
            let method = run.method();
            let key = (run.training.backbone.id.clone(), method.clone(), run.training.shots);
            *planned.entry(key).or_insert(0) += 1;
            if methods.iter().all(|line| line.method != method) {
                let index = plan.pipeline.methods.iter().position(|m| m.name == method.name);
                let index = index.unwrap_or(plan.pipeline.methods.len());
                let (select, sees_shots) = (select_name(&run.training.method), run.training.shots.is_some());
                methods.push(Line { method, select, sees_shots, index });
            }
        }
        // Raw sorts before ema here.
        methods.sort_by_key(|line| (line.index, line.method.weights == "ema"));
        let summaries = over_seeds(&measured.cells);
        Self { plan, cells: &measured.cells, summaries, methods, planned }
    }

    /// Seeds that are planned for the runs of a group.
    pub fn num_planned(&self, group: &Group) -> u32 {
        let key = (group.backbone.clone(), group.method.clone(), group.shots);
        self.planned.get(&key).copied().unwrap_or(0)
    }

    /// Splits of the pipeline: the first is the test split, the others are domain shifts.
    pub fn splits(&self) -> &'a [String] {
        &self.plan.pipeline.evaluation_splits
    }

    /// Images of `split`, if anything was measured on it. All runs see the same images.
    pub fn num_images(&self, split: &str) -> Option<u64> {
        self.cells.iter().find(|c| c.split == split).map(|c| c.n)
    }

    fn summary(
        &self,
        backbone: &str,
        line: &Line,
        split: &str,
        shots: Option<u32>,
    ) -> Option<(Group, Summary)> {
        let group = Group {
            backbone: backbone.to_owned(),
            method: line.method.clone(),
            split: split.to_owned(),
            metric: MAIN_METRIC.to_owned(),
            shots,
        };
        let summary = *self.summaries.get(&group)?;
        Some((group, summary))
    }

    /// Values of the x axis and columns of the tables.
    pub fn shots(&self) -> Vec<u32> {
        let mut shots = self.plan.pipeline.fewshot.shots.clone();
        shots.sort_unstable();
        shots
    }

    /// Method over shots, one table for each backbone.
    pub fn accuracy_tables(&self, split: &str) -> Vec<Table> {
        self.plan.pipeline.backbones.iter().map(|backbone| self.accuracy_table(backbone, split)).collect()
    }

    fn accuracy_table(&self, backbone: &str, split: &str) -> Table {
        let mut columns: Vec<Option<u32>> = self.shots().into_iter().map(Some).collect();
        if self.methods.iter().any(|line| !line.sees_shots) {
            columns.insert(0, None);
        }
        let mut rows: Vec<Vec<TableCell>> = Vec::new();
        let mut means: Vec<Vec<Option<f64>>> = Vec::new();
        for line in &self.methods {
            let mut row = vec![
                TableCell::text(line.method.label()),
                TableCell::text(&line.method.weights),
                TableCell::text(line.select),
            ];
            let mut row_means = Vec::new();
            for &shots in &columns {
                let found = self.summary(backbone, line, split, shots);
                row_means.push(found.as_ref().map(|(_, summary)| summary.mean));
                let is_planned =
                    self.planned.contains_key(&(backbone.to_owned(), line.method.clone(), shots));
                row.push(match found {
                    Some((group, summary)) => TableCell::number(mean_text(summary, self.num_planned(&group))),
                    None => TableCell::number(if is_planned { "not run" } else { "–" }),
                });
            }
            rows.push(row);
            means.push(row_means);
        }
        mark_best(&mut rows, &means, 3);
        let mut head = vec!["method".to_owned(), "weights".to_owned(), "selection".to_owned()];
        head.extend(columns.iter().map(|shots| match shots {
            None => "no shots".to_owned(),
            Some(1) => "1 shot".to_owned(),
            Some(shots) => format!("{shots} shots"),
        }));
        Table {
            title: format!("Accuracy on `{split}`, {backbone}"),
            note: "Top-1 accuracy in percent: mean ± half of the 95% interval over seeds (Student's t), in brackets the \
                   number of seeds. One seed has no interval. Bold: the best mean of a column."
                .to_owned(),
            head,
            rows,
        }
    }

    /// Test split against shifted splits at the largest number of shots, one table for each backbone; empty without
    /// shifted splits.
    pub fn shift_tables(&self) -> Vec<Table> {
        let [test, shifts @ ..] = self.splits() else { return vec![] };
        let Some(shots) = self.shots().last().copied().filter(|_| !shifts.is_empty()) else { return vec![] };
        self.plan.pipeline.backbones.iter().map(|b| self.shift_table(b, test, shifts, shots)).collect()
    }

    fn shift_table(&self, backbone: &str, test: &str, shifts: &[String], shots: u32) -> Table {
        let mut head = vec!["method".to_owned(), format!("`{test}`")];
        for shift in shifts {
            head.extend([format!("`{shift}`"), format!("`{shift}` − `{test}`")]);
        }
        let (mut rows, mut means) = (Vec::new(), Vec::new());
        for line in &self.methods {
            let at = line.sees_shots.then_some(shots);
            let on = |split: &str| self.summary(backbone, line, split, at);
            let field = |found: &Option<(Group, Summary)>| match found {
                Some((group, summary)) => TableCell::number(mean_text(*summary, self.num_planned(group))),
                None => TableCell::number("not run"),
            };
            let on_test = on(test);
            let mut row = vec![TableCell::text(line.method.label()), field(&on_test)];
            let mut row_means = vec![on_test.as_ref().map(|found| found.1.mean)];
            for shift in shifts {
                let on_shift = on(shift);
                row.push(field(&on_shift));
                row_means.extend([on_shift.as_ref().map(|found| found.1.mean), None]);
                let difference = on_shift.zip(on_test.clone()).map(|(s, t)| 100.0 * (s.1.mean - t.1.mean));
                row.push(TableCell::number(difference.map_or("–".to_owned(), |d| format!("{d:+.1}"))));
            }
            rows.push(row);
            means.push(row_means);
        }
        mark_best(&mut rows, &means, 1);
        Table {
            title: format!("Domain shift at {shots} shots, {backbone}"),
            note: format!(
                "Trained on the same images, evaluated on `{test}` and on the shifted splits; methods that see no shots \
                 stand beside them. Percent and percentage points."
            ),
            head,
            rows,
        }
    }

    /// Accuracy over shots: a panel for each of `splits` and each backbone.
    pub fn figure(&self, splits: &[String]) -> Figure {
        let mut over_shots: Vec<usize> =
            self.methods.iter().filter(|l| l.sees_shots).map(|l| l.index).collect();
        over_shots.dedup();
        let legend: Vec<LegendEntry> = self
            .methods
            .iter()
            .map(|line| LegendEntry {
                name: line.method.label(),
                color_index: over_shots.iter().position(|&index| index == line.index).unwrap_or(0),
                dashed: line.method.weights == "ema",
                reference: !line.sees_shots,
            })
            .collect();
        let mut panels = Vec::new();
        for split in splits {
            for backbone in &self.plan.pipeline.backbones {
                panels.push(self.panel(backbone, split));
            }
        }
        Figure { panels, legend, shots: self.shots() }
    }

    fn panel(&self, backbone: &str, split: &str) -> Panel {
        let (mut series, mut references) = (Vec::new(), Vec::new());
        for (entry, line) in self.methods.iter().enumerate() {
            let at = |shots| self.summary(backbone, line, split, shots).map(|(_, summary)| summary);
            if line.sees_shots {
                let point = |shots| {
                    let summary = at(Some(shots))?;
                    let half_width = summary.half_width.map(|half| 100.0 * half);
                    Some(Point { shots, mean: 100.0 * summary.mean, half_width })
                };
                let points: Vec<Point> = self.shots().into_iter().filter_map(point).collect();
                if !points.is_empty() {
                    series.push(Series { entry, points });
                }
            } else if let Some(summary) = at(None) {
                references.push((entry, 100.0 * summary.mean));
            }
        }
        let images = self.num_images(split).map_or(String::new(), |n| format!(", {n} images"));
        let nothing = if series.is_empty() && references.is_empty() { ": not run" } else { "" };
        Panel { title: format!("{split} ({backbone}{images}){nothing}"), series, references }
    }

    /// The group with the best mean at the largest number of shots on the test split.
    pub fn best_group(&self) -> Option<&Group> {
        let test = self.splits().first()?;
        let shots = self.shots().last().copied();
        let candidates = self
            .summaries
            .iter()
            .filter(|(group, _)| group.split == *test && group.shots == shots && group.metric == MAIN_METRIC);
        candidates.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)).map(|(group, _)| group)
    }
}

/// `61.0 ± 1.2 (3)`, in percent.
fn mean_text(summary: Summary, num_planned: u32) -> String {
    let mean = 100.0 * summary.mean;
    let interval = summary.half_width.map_or(String::new(), |half| format!(" ± {:.1}", 100.0 * half));
    let seeds = summary.num_seeds;
    let seeds = if seeds == num_planned { seeds.to_string() } else { format!("{seeds} of {num_planned}") };
    format!("{mean:.1}{interval} ({seeds})")
}

/// Marks the field with the highest mean of each column; `means` begins at column `first`.
fn mark_best(rows: &mut [Vec<TableCell>], means: &[Vec<Option<f64>>], first: usize) {
    let columns = means.first().map_or(0, Vec::len);
    for column in 0..columns {
        let of_column: Vec<Option<f64>> = means.iter().map(|row| row[column]).collect();
        let Some(best) = of_column.iter().flatten().copied().reduce(f64::max) else { continue };
        if of_column.iter().flatten().count() < 2 {
            continue;
        }
        for (row, mean) in rows.iter_mut().zip(&of_column) {
            row[first + column].is_best = *mean == Some(best);
        }
    }
}
