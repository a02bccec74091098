//! The report as one page of HTML, and as Markdown.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, HtmlEscape};
use pipeline_spec::{Plan, Store};
use serde::Serialize;

use super::cells::{Measured, runs_of};
use super::picture::Pictures;
use super::results::Results;
use super::steps::{KindSteps, bytes_text, time_text};
use super::table::{Table, markdown};
use crate::Error;

/// The page's form.
const TEMPLATE: &str = include_str!("report.html.j2");

/// What stands on the page.
pub(crate) struct Page<'a> {
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub results: &'a Results<'a>,
    pub measured: &'a Measured,
    pub pictures: &'a Pictures,
    pub steps: &'a [KindSteps],
    pub accuracy_tables: Vec<Table>,
    pub shift_tables: Vec<Table>,
    pub class_table: Option<Table>,
    pub steps_table: Table,
}

/// A picture on the page.
#[derive(Serialize)]
struct Picture {
    title: &'static str,
    /// What is seen on it, for those who cannot see it.
    caption: String,
    /// SVG markup, or nothing.
    svg: String,
    /// A data URI, or nothing.
    uri: String,
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
    shift_tables: &'a [Table],
    class_table: Option<&'a Table>,
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
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_filter("bytes", bytes_text);
        environment.add_filter("code", code_html);
        environment.add_filter("time", time_text);
        environment.add_template("report", TEMPLATE)?;
        let svg = |name: &str| {
            let chart = charts.iter().find(|(n, _)| *n == name)?;
            let (title, caption) = self.caption(name);
            Some(Picture { title, caption, svg: chart.1.clone(), uri: String::new() })
        };
        let png = |name: &str| {
            let image = images.iter().find(|(n, _)| *n == name)?;
            let (title, caption) = self.caption(name);
            let uri = format!("data:image/png;base64,{}", STANDARD.encode(&image.1));
            Some(Picture { title, caption, svg: String::new(), uri })
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
            shift_tables: &self.shift_tables,
            class_table: self.class_table.as_ref(),
            contact_sheet: png("contact-sheet"),
            latents: png("latents"),
            not_drawn: self.not_drawn(),
            steps_table: &self.steps_table,
            steps: self.steps,
            plan_id: self.plan.id(),
            store: self.store.root().display().to_string(),
        };
        Ok(environment.get_template("report")?.render(Serde(&view))?)
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
        if !self.shift_tables.is_empty() {
            out.push_str("## Domain shift\n\n");
            picture(&mut out, "domain-shift", "png");
            self.shift_tables.iter().for_each(|t| out.push_str(&markdown(t)));
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
        let splits: Vec<String> = self.results.splits().iter().map(images).collect();
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

/// Text with Markdown's code spans as HTML; everything else is escaped.
fn code_html(text: &str) -> Value {
    let escaped = HtmlEscape(text).to_string();
    let mut out = String::with_capacity(escaped.len());
    for (index, part) in escaped.split('`').enumerate() {
        if index > 0 {
            out.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
        }
        out.push_str(part);
    }
    if escaped.matches('`').count() % 2 == 1 {
        out.push_str("</code>");
    }
    Value::from_safe_string(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_spans_become_elements_and_the_rest_is_escaped() {
        let html = |text| code_html(text).to_string();
        assert_eq!(html("`a<b>` & c"), "<code>a&lt;b&gt;</code> &amp; c");
        assert_eq!(html("an open ` tick"), "an open <code> tick</code>");
    }
}
