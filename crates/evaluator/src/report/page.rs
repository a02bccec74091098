//! The report as one page of HTML, and as Markdown.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeline_spec::{Plan, Store};
use serde::Serialize;

use super::cells::{Measured, runs_of};
use super::picture::Pictures;
use super::results::Results;
use super::run_cards::RunCard;
use super::steps::{KindSteps, bytes_text, time_text};
use super::table::{Table, markdown};
use super::template::{self, Picture};
use crate::Error;

/// What stands on the page.
pub(crate) struct Page<'a> {
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub results: &'a Results<'a>,
    pub measured: &'a Measured,
    pub pictures: &'a Pictures,
    pub steps: &'a [KindSteps],
    pub accuracy_tables: Vec<Table>,
    pub comparison_tables: Vec<Table>,
    pub shift_tables: Vec<Table>,
    pub published_tables: Vec<Table>,
    pub class_table: Option<Table>,
    pub cards: Vec<RunCard>,
    pub steps_table: Table,
}

/// The cards of runs that differ by seed only.
#[derive(Serialize)]
struct CardGroup<'a> {
    anchor: &'a str,
    cards: Vec<&'a RunCard>,
}

/// What the template is given.
#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    description: &'a str,
    facts: Vec<String>,
    missing: Vec<(String, String)>,
    accuracy_chart: Option<Picture>,
    shift_chart: Option<Picture>,
    accuracy_tables: &'a [Table],
    comparison_tables: &'a [Table],
    shift_tables: &'a [Table],
    published_tables: &'a [Table],
    class_table: Option<&'a Table>,
    card_groups: Vec<CardGroup<'a>>,
    contact_sheet: Option<Picture>,
    latents: Option<Picture>,
    not_drawn: Vec<String>,
    steps_table: &'a Table,
    steps: &'a [KindSteps],
    plan_id: String,
    store: String,
}

impl Page<'_> {
    /// The page; it loads nothing from elsewhere.
    pub(crate) fn html(
        &self,
        charts: &[(&str, String)],
        images: &[(&str, Vec<u8>)],
    ) -> Result<String, Error> {
        let svg = |name: &str| {
            let chart = charts.iter().find(|(n, _)| *n == name)?;
            let (title, caption) = self.caption(name);
            Some(Picture { title: title.to_owned(), caption, svg: chart.1.clone(), uri: String::new() })
        };
        let png = |name: &str| {
            let image = images.iter().find(|(n, _)| *n == name)?;
            let (title, caption) = self.caption(name);
            let uri = format!("data:image/png;base64,{}", STANDARD.encode(&image.1));
            Some(Picture { title: title.to_owned(), caption, svg: String::new(), uri })
        };
        let pipeline = &self.plan.pipeline;
        let view = View {
            name: &pipeline.name,
            description: &pipeline.description,
            facts: self.facts(),
            missing: self.missing(),
            accuracy_chart: svg("accuracy-over-shots"),
            shift_chart: svg("domain-shift"),
            accuracy_tables: &self.accuracy_tables,
            comparison_tables: &self.comparison_tables,
            shift_tables: &self.shift_tables,
            published_tables: &self.published_tables,
            class_table: self.class_table.as_ref(),
            card_groups: self.card_groups(),
            contact_sheet: png("contact-sheet"),
            latents: png("latents"),
            not_drawn: self.not_drawn(),
            steps_table: &self.steps_table,
            steps: self.steps,
            plan_id: self.plan.id(),
            store: self.store.root().display().to_string(),
        };
        template::page("report", &view)
    }

    /// Every table of the page that shows results.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        let all =
            [&self.accuracy_tables, &self.comparison_tables, &self.shift_tables, &self.published_tables];
        all.into_iter().flatten().chain(&self.class_table)
    }

    fn card_groups(&self) -> Vec<CardGroup<'_>> {
        let mut groups: Vec<CardGroup<'_>> = Vec::new();
        for card in &self.cards {
            match groups.iter_mut().find(|group| group.anchor == card.anchor) {
                Some(group) => group.cards.push(card),
                None => groups.push(CardGroup { anchor: &card.anchor, cards: vec![card] }),
            }
        }
        groups
    }

    /// The same text and tables as Markdown; pictures are named by their files.
    pub(crate) fn markdown(&self) -> String {
        let pipeline = &self.plan.pipeline;
        let mut out =
            format!("# {}\n\n{}\n\n", pipeline.name, pipeline.description.trim().replace('<', "&lt;"));
        for fact in self.facts() {
            let _ = writeln!(out, "- {fact}");
        }
        out.push('\n');
        out.push_str(&self.missing_markdown());
        let picture = |out: &mut String, name: &str, extension: &str| {
            let (title, caption) = self.caption(name);
            let _ = writeln!(out, "![{title}]({name}.{extension})\n\n{caption}\n");
        };
        out.push_str("## Accuracy over shots\n\n");
        picture(&mut out, "accuracy-over-shots", "png");
        self.accuracy_tables.iter().for_each(|t| out.push_str(&markdown(t)));
        if !self.comparison_tables.is_empty() {
            out.push_str("## Paired tests\n\n");
            self.comparison_tables.iter().for_each(|t| out.push_str(&markdown(t)));
        }
        if !self.shift_tables.is_empty() {
            out.push_str("## Domain shift and other classes\n\n");
            picture(&mut out, "domain-shift", "png");
            self.shift_tables.iter().for_each(|t| out.push_str(&markdown(t)));
        }
        if !self.published_tables.is_empty() {
            out.push_str("## Published figures\n\n");
            self.published_tables.iter().for_each(|t| out.push_str(&markdown(t)));
        }
        if let Some(table) = &self.class_table {
            out.push_str("## One run by class\n\n");
            out.push_str(&markdown(table));
        }
        out.push_str("## Real and generated images\n\n");
        if self.pictures.contact_sheet.is_some() {
            picture(&mut out, "contact-sheet", "png");
        }
        if self.pictures.latents.is_some() {
            picture(&mut out, "latents", "png");
        }
        for note in self.not_drawn() {
            let _ = writeln!(out, "{note}\n");
        }
        let _ = writeln!(
            out,
            "## Run cards\n\n`run-cards.json` has for each of the {} runs with figures: digest of the shot list, selection \
             rule, checkpoint, artifacts and the command that repeats it; `report.html` shows them.\n",
            self.cards.len()
        );
        out.push_str(&self.steps_markdown());
        out
    }

    fn missing_markdown(&self) -> String {
        let mut out = String::new();
        let missing = self.missing();
        if !missing.is_empty() {
            let _ = writeln!(out, "## Not run\n\nThese runs are in the plan and have no figures:\n");
            for (label, artifact) in &missing {
                let _ = writeln!(out, "- {label} (`{artifact}`)");
            }
            out.push('\n');
        }
        out
    }

    fn steps_markdown(&self) -> String {
        let mut out = String::new();
        out.push_str("## Steps\n\n");
        out.push_str(&markdown(&self.steps_table));
        let _ = writeln!(out, "| artifact | status | rows | size | wall time | device |");
        let _ = writeln!(out, "| --- | --- | ---: | ---: | ---: | --- |");
        for step in self.steps.iter().flat_map(|group| &group.steps) {
            if step.is_finished {
                let (size, time) = (bytes_text(step.size_bytes), time_text(step.elapsed_ms));
                let (artifact, rows, device) = (&step.artifact, step.rows, &step.device);
                let _ = writeln!(out, "| `{artifact}` | finished | {rows} | {size} | {time} | {device} |");
            } else {
                let _ = writeln!(out, "| `{}` | not run | | | | |", step.artifact);
            }
        }
        let _ = writeln!(
            out,
            "\nPaths are relative to the store. `artifact.json` in each folder holds the settings and digests; \
             `report.html` shows the settings too."
        );
        out
    }

    /// What a reader must know before the figures.
    fn facts(&self) -> Vec<String> {
        let pipeline = &self.plan.pipeline;
        let num_runs = runs_of(self.plan).len();
        let num_missing = self.measured.missing.len();
        let images = |split: &String| match self.results.num_images(split) {
            Some(n) => format!("{n} images of `{split}`"),
            None => format!("`{split}` (nothing measured)"),
        };
        let splits: Vec<String> = self.results.places().iter().map(images).collect();
        let seeds: Vec<String> = pipeline.fewshot.seeds.iter().map(ToString::to_string).collect();
        vec![
            format!("data set: `{}`", pipeline.dataset),
            format!("backbones: `{}`", pipeline.backbones.join("`, `")),
            format!("accuracy is measured on {}", splits.join(" and ")),
            format!("runs with figures: {} of {num_runs}", num_runs - num_missing),
            format!("seeds: {} (each draws its own shot list)", seeds.join(", ")),
            "held-out images are never used to train, to stop or to choose; the column “selection” names the rule that \
             chose the weights or settings, `val-…` rules look at the few-shot validation images only"
                .to_owned(),
            "column “weights”: `raw` are those that the optimizer holds, `ema` their moving average".to_owned(),
        ]
    }

    fn missing(&self) -> Vec<(String, String)> {
        self.measured.missing.iter().map(|(label, id)| (label.clone(), id.to_string())).collect()
    }

    fn not_drawn(&self) -> Vec<String> {
        let note = |id: &pipeline_spec::ArtifactId| {
            format!("A picture is missing or incomplete because `{id}` has not been made.")
        };
        self.pictures.missing.iter().map(note).collect()
    }

    fn caption(&self, name: &str) -> (&'static str, String) {
        let shot_list = self.pictures.shot_list.as_ref().map_or(String::new(), |id| format!(" (`{id}`)"));
        match name {
            "accuracy-over-shots" => (
                "Accuracy over shots",
                "Mean over seeds with its 95% interval; methods that see no shots are dashed horizontal lines. Points of \
                 one column stand a little beside each other."
                    .to_owned(),
            ),
            "domain-shift" => {
                ("Accuracy under domain shift", "The same runs, evaluated on images of another kind.".to_owned())
            }
            "contact-sheet" => (
                "Real and generated images",
                format!("For each class, left: the first real images of the largest shot list{shot_list}; right: images that Stable Diffusion drew from the class's prompts."),
            ),
            _ => (
                "Latents and their images",
                "For each class, left: a latent as a picture (its channels mapped to colours by a fixed rule; the colours \
                 mean nothing); right: the image that the autoencoder decodes from it."
                    .to_owned(),
            ),
        }
    }
}
