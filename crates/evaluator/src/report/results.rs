//! Tables and figures of accuracy, from the cells of a sweep.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_spec::Plan;

use super::cells::{Cell, Measured, MethodId, TEST_BEST, runs_of, select_name};
use super::chart::Figure;
use super::over_shots::{self, Line, shots_text};
use super::summary::{Group, Summary, over_seeds};
use super::table::{Table, TableCell};
use crate::metrics::{ECE, NLL, PER_CLASS_MEAN, TOP1, TOP5};

/// The figure that tables and charts show.
pub const MAIN_METRIC: &str = TOP1;

/// What the plan would measure and what has been.
pub struct Results<'a> {
    plan: &'a Plan,
    /// Every figure.
    pub cells: &'a [Cell],
    /// One summary for each group.
    pub summaries: BTreeMap<Group, Summary>,
    /// Methods in the order of the pipeline; each with the moving average after the raw weights.
    methods: Vec<Line>,
    /// Every place of evaluation.
    places: Vec<String>,
    /// Seeds that are planned for each group.
    planned: BTreeMap<Group, u32>,
    /// Groups with a figure that was chosen on the test images.
    flagged: BTreeSet<Group>,
}

impl<'a> Results<'a> {
    /// Puts the measured cells in the order of the plan.
    pub fn new(plan: &'a Plan, measured: &'a Measured) -> Self {
        let mut methods: Vec<Line> = Vec::new();
        let mut planned = BTreeMap::new();
        for run in runs_of(plan) {
            let method = run.method();
            for place in run.places() {
                let group = Group {
                    backbone: run.training.backbone.id.clone(),
                    method: method.clone(),
                    split: place,
                    metric: String::new(),
                    shots: run.training.shots,
                };
                *planned.entry(group).or_insert(0) += 1;
            }
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
        let flagged = measured.cells.iter().filter(|c| c.select == TEST_BEST).map(Cell::group).collect();
        let places = plan.pipeline.places();
        Self { plan, cells: &measured.cells, summaries, methods, places, planned, flagged }
    }

    /// Seeds that are planned for the runs of a group.
    pub fn num_planned(&self, group: &Group) -> u32 {
        self.planned.get(&Group { metric: String::new(), ..group.clone() }).copied().unwrap_or(0)
    }

    /// Every place of evaluation: the first is the test split.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    pub(super) fn backbones(&self) -> &'a [String] {
        &self.plan.pipeline.backbones
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.methods
    }

    /// Accuracy of each seed.
    pub(super) fn by_seed(
        &self,
        backbone: &str,
        line: &Line,
        place: &str,
        shots: Option<u32>,
    ) -> BTreeMap<u64, f64> {
        let fits = |cell: &&Cell| {
            cell.metric == MAIN_METRIC
                && cell.backbone == backbone
                && cell.method == line.method
                && cell.split == place
                && cell.shots == shots
        };
        self.cells.iter().filter(fits).map(|cell| (cell.seed, cell.value)).collect()
    }

    /// Images of `split`, if anything was measured on it. All runs see the same images.
    pub fn num_images(&self, split: &str) -> Option<u64> {
        self.cells.iter().find(|c| c.split == split).map(|c| c.n)
    }

    pub(super) fn summary(
        &self,
        backbone: &str,
        line: &Line,
        split: &str,
        shots: Option<u32>,
    ) -> Option<(Group, Summary)> {
        self.figure_of(MAIN_METRIC, backbone, line, split, shots)
    }

    fn figure_of(
        &self,
        metric: &str,
        backbone: &str,
        line: &Line,
        split: &str,
        shots: Option<u32>,
    ) -> Option<(Group, Summary)> {
        let group = group_of(metric, backbone, line, split, shots);
        let summary = *self.summaries.get(&group)?;
        Some((group, summary))
    }

    /// The field of a summary, with a link to the cards of its runs.
    pub(super) fn field(&self, group: &Group, summary: Summary, scale: f64) -> TableCell {
        let mut text = mean_text(summary, self.num_planned(group), scale);
        if self.flagged.contains(group) {
            text.push_str(" †");
        }
        let anchor = Some(card_anchor(&group.backbone, &group.method, group.shots));
        TableCell { anchor, ..TableCell::number(text) }
    }

    /// The mean, unless it was chosen on the test images.
    fn comparable(&self, found: Option<&(Group, Summary)>) -> Option<f64> {
        found.filter(|(group, _)| !self.flagged.contains(group)).map(|(_, summary)| summary.mean)
    }

    /// What a flag in one of `rows` means; nothing without flags.
    fn flag_note(rows: &[Vec<TableCell>]) -> &'static str {
        let is_flagged = rows.iter().flatten().any(|cell| cell.text.ends_with('†'));
        if is_flagged {
            " † Chosen on the test images: for the report only, never bold and in no mean over data sets."
        } else {
            ""
        }
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
                row_means.push(self.comparable(found.as_ref()));
                let is_planned = self.num_planned(&group_of(MAIN_METRIC, backbone, line, split, shots)) > 0;
                row.push(match found {
                    Some((group, summary)) => self.field(&group, summary, 100.0),
                    None => TableCell::number(if is_planned { "not run" } else { "–" }),
                });
            }
            rows.push(row);
            means.push(row_means);
        }
        mark_best(&mut rows, &means, 3);
        let mut head = vec!["method".to_owned(), "weights".to_owned(), "selection".to_owned()];
        head.extend(columns.iter().map(|&shots| shots_text(shots)));
        Table {
            title: format!("Accuracy on `{split}`, {backbone}"),
            note: format!(
                "Top-1 accuracy in percent: mean ± half of the 95% interval over seeds (Student's t), in brackets the \
                 number of seeds. One seed has no interval. Bold: the best mean of a column.{}",
                Self::flag_note(&rows)
            ),
            head,
            rows,
        }
    }

    /// Test split against shifted splits at the largest number of shots, one table for each backbone; empty without
    /// shifted splits.
    pub fn shift_tables(&self) -> Vec<Table> {
        let [test, shifts @ ..] = self.places() else { return vec![] };
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
                Some((group, summary)) => self.field(group, *summary, 100.0),
                None => TableCell::number("not run"),
            };
            let on_test = on(test);
            let mut row = vec![TableCell::text(line.method.label()), field(&on_test)];
            let mut row_means = vec![self.comparable(on_test.as_ref())];
            for shift in shifts {
                let on_shift = on(shift);
                row.push(field(&on_shift));
                row_means.extend([self.comparable(on_shift.as_ref()), None]);
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
                 stand beside them. Percent and percentage points.{}",
                Self::flag_note(&rows)
            ),
            head,
            rows,
        }
    }

    /// Every figure on `split` at the largest number of shots, one table for each backbone.
    pub fn figure_tables(&self, split: &str) -> Vec<Table> {
        self.plan
            .pipeline
            .backbones
            .iter()
            .filter_map(|backbone| self.figure_table(backbone, split))
            .collect()
    }

    fn figure_table(&self, backbone: &str, split: &str) -> Option<Table> {
        let shots = self.shots().last().copied()?;
        // Name, heading, factor, and whether more is better.
        let columns = [
            (TOP1, "top-1 (%)", 100.0, true),
            (PER_CLASS_MEAN, "class mean (%)", 100.0, true),
            (TOP5, "top-5 (%)", 100.0, true),
            (ECE, "ECE (%)", 100.0, false),
            (NLL, "NLL", 1.0, false),
        ];
        let is_measured =
            |metric: &str| self.summaries.keys().any(|g| g.metric == metric && g.split == split);
        let columns: Vec<_> = columns.into_iter().filter(|(metric, ..)| is_measured(metric)).collect();
        let (mut rows, mut means) = (Vec::new(), Vec::new());
        for line in &self.methods {
            let at = line.sees_shots.then_some(shots);
            let mut row = vec![TableCell::text(line.method.label())];
            let mut row_means = Vec::new();
            for &(metric, _, scale, is_more_better) in &columns {
                let found = self.figure_of(metric, backbone, line, split, at);
                let sign = if is_more_better { 1.0 } else { -1.0 };
                row_means.push(self.comparable(found.as_ref()).map(|mean| sign * mean));
                let field = found.map(|(group, summary)| self.field(&group, summary, scale));
                row.push(field.unwrap_or_else(|| TableCell::number("not run")));
            }
            rows.push(row);
            means.push(row_means);
        }
        mark_best(&mut rows, &means, 1);
        let mut table = Table::new(
            format!("Every figure on `{split}` at {shots} shots, {backbone}"),
            format!(
                "Mean ± half of the 95% interval over seeds. Class mean: mean over classes of the accuracy within the \
                 class. ECE: expected calibration error over {} bins of equal width (Guo et al. 2017), NLL: mean \
                 negative log-likelihood in nats, both of the logits as they are, without a fitted temperature: lower \
                 is better. Bold: the best mean of a column.{}",
                crate::calibration::NUM_BINS,
                Self::flag_note(&rows)
            ),
            &["method"],
        );
        table.head.extend(columns.iter().map(|column| column.1.to_owned()));
        table.rows = rows;
        (!columns.is_empty()).then_some(table)
    }

    /// Accuracy over shots: a panel for each of `places` and each backbone.
    pub fn figure(&self, places: &[String]) -> Figure {
        let mut panels = Vec::new();
        for place in places {
            let images = self.num_images(place).map_or(String::new(), |n| format!(", {n} images"));
            for backbone in self.backbones() {
                let at = |line: &Line, shots| self.summary(backbone, line, place, shots).map(|found| found.1);
                let title = format!("{place} ({backbone}{images})");
                panels.push(over_shots::panel(&title, &self.methods, &self.shots(), at));
            }
        }
        Figure { panels, legend: over_shots::legend(&self.methods), shots: self.shots() }
    }

    /// The group with the best mean at the largest number of shots on the test split.
    pub fn best_group(&self) -> Option<&Group> {
        let test = self.places().first()?;
        let shots = self.shots().last().copied();
        let candidates = self
            .summaries
            .iter()
            .filter(|(group, _)| group.split == *test && group.shots == shots && group.metric == MAIN_METRIC);
        candidates.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)).map(|(group, _)| group)
    }
}

fn group_of(metric: &str, backbone: &str, line: &Line, split: &str, shots: Option<u32>) -> Group {
    Group {
        backbone: backbone.to_owned(),
        method: line.method.clone(),
        split: split.to_owned(),
        metric: metric.to_owned(),
        shots,
    }
}

/// `61.0 ± 1.2 (3)`: the figure times `scale`, in percent with one digit, otherwise with two.
pub(super) fn mean_text(summary: Summary, num_planned: u32, scale: f64) -> String {
    let digits = if scale == 1.0 { 2 } else { 1 };
    let mean = scale * summary.mean;
    let interval = summary.half_width.map_or(String::new(), |half| format!(" ± {:.digits$}", scale * half));
    let seeds = summary.num_seeds;
    let seeds = if seeds == num_planned { seeds.to_string() } else { format!("{seeds} of {num_planned}") };
    format!("{mean:.digits$}{interval} ({seeds})")
}

/// Where the page shows the cards of a group's runs.
pub(super) fn card_anchor(backbone: &str, method: &MethodId, shots: Option<u32>) -> String {
    pipeline_spec::ids::slug_of(&format!("card {backbone} {} {}", method.label(), shots_text(shots)))
}

/// Marks the field with the highest mean of each column; `means` begins at column `first`.
pub(super) fn mark_best(rows: &mut [Vec<TableCell>], means: &[Vec<Option<f64>>], first: usize) {
    let columns = means.first().map_or(0, Vec::len);
    for column in 0..columns {
        let of_column: Vec<Option<f64>> = means.iter().map(|row| row[column]).collect();
        let Some(best) = of_column.iter().flatten().copied().reduce(f64::max) else { continue };
        if of_column.iter().flatten().count() < 2 {
            continue;
        }
        for (row, mean) in rows.iter_mut().zip(&of_column) {
            row[first + column].is_bold = *mean == Some(best);
        }
    }
}
