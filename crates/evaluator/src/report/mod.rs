//! The report of a plan: one self-contained page, and the same as Markdown, CSV and pictures.
//!
//! ```text
//! report.html              everything on one page, pictures inside
//! report.md                the same text and tables
//! tables/*.{csv,tex}       each table by itself
//! results.csv              every figure of every run
//! summary.csv              mean and 95% interval over seeds
//! comparisons.csv          every paired test
//! run-cards.json           what each run depends on and the command that repeats it
//! accuracy-over-shots.{svg,png}   domain-shift.{svg,png}
//! contact-sheet.png        real few-shot images beside generated ones
//! latents.png              latents beside their decoded images
//! ```
//!
//! Figures come from metrics artifacts alone. A run without one is named as not run; nothing is guessed.

pub mod benchmark;
pub mod cells;
pub mod chart;
pub mod comparisons;
mod long;
mod new_classes;
mod over_shots;
mod page;
mod picture;
pub mod published;
pub mod results;
pub mod run_cards;
mod steps;
pub mod summary;
pub mod table;
mod template;

use std::path::{Path, PathBuf};

use artifacts::{ArtifactReader, PredictionRow};
use image::RgbImage;
use pipeline_spec::{Plan, Store};

use crate::Error;
use crate::accuracy::accuracy;
use page::Page;
use results::Results;
use table::{Table, TableCell};

/// What a report was written from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Runs with figures.
    pub num_measured: usize,
    /// Runs of the plan without.
    pub num_missing: usize,
}

/// Writes the report of `plan` from what is in `store` into the folder `out`.
///
/// # Errors
///
/// Fails if an artifact that is there cannot be read, or a file cannot be written.
pub fn write(plan: &Plan, store: &Store, out: &Path) -> Result<Written, Error> {
    let measured = cells::collect(plan, store)?;
    let results = Results::new(plan, &measured);
    let pictures = picture::draw(plan, store)?;
    let steps = steps::collect(plan, store)?;
    let mut files = Files::create(out)?;

    let test = results.places().get(..1).unwrap_or_default();
    let shifts = results.places().get(1..).unwrap_or_default();
    let charts = files.write_charts(&results, &[("accuracy-over-shots", test), ("domain-shift", shifts)])?;
    let images =
        files.write_images(&[("contact-sheet", &pictures.contact_sheet), ("latents", &pictures.latents)])?;
    let dataset = plan.pipeline.dataset.as_str();
    let comparisons = comparisons::collect(plan, store)?;
    let cards = run_cards::collect(plan, store, &measured.cells)?;
    let long = [
        ("results.csv", long::results(&results, dataset)),
        ("summary.csv", long::summary(&results, dataset)),
        ("comparisons.csv", comparisons::long(&comparisons, dataset)),
    ];
    for (name, table) in long {
        files.write(name, table::csv(&table).as_bytes())?;
    }
    let cards_json = serde_json::to_vec_pretty(&cards)
        .map_err(|e| Error::Write { path: out.join("run-cards.json"), source: e.into() })?;
    files.write("run-cards.json", &cards_json)?;

    let (accuracy_tables, shift_tables) = tables(&results, test, shifts);
    let published = plan.pipeline.backbones.iter().filter_map(|b| published::table(dataset, b)).collect();
    let page = Page {
        plan,
        store,
        results: &results,
        measured: &measured,
        pictures: &pictures,
        steps: &steps,
        accuracy_tables,
        comparison_tables: comparisons.iter().flat_map(comparisons::Family::tables).collect(),
        shift_tables,
        published_tables: published,
        class_table: class_table(plan, store, &results)?,
        cards,
        steps_table: steps::table(&steps),
    };
    page.tables().try_for_each(|table| files.write_table(table))?;
    files.write("report.md", page.markdown().as_bytes())?;
    files.write("report.html", page.html(&charts, &images)?.as_bytes())?;
    let num_missing = measured.missing.len();
    let num_measured = cells::runs_of(plan).len() - num_missing;
    tracing::info!(runs = num_measured, missing = num_missing, report = %out.join("report.html").display(), "wrote the report");
    Ok(Written { files: files.written, num_measured, num_missing })
}

/// The tables of the test split, and those of the shifted splits.
fn tables(results: &Results<'_>, test: &[String], shifts: &[String]) -> (Vec<Table>, Vec<Table>) {
    let accuracy = test.iter().flat_map(|split| {
        let figures = results.figure_tables(split);
        results.accuracy_tables(split).into_iter().chain(figures)
    });
    let accuracy = accuracy.collect();
    let mut shift = new_classes::tables(results);
    shift.extend(results.shift_tables());
    shift.extend(shifts.iter().flat_map(|split| results.accuracy_tables(split)));
    (accuracy, shift)
}

/// Accuracy of each class for one run: that with the best mean at the most shots on the test split, first seed.
fn class_table(plan: &Plan, store: &Store, results: &Results<'_>) -> Result<Option<Table>, Error> {
    let Some(group) = results.best_group() else { return Ok(None) };
    let runs = cells::runs_of(plan).into_iter().filter(|run| {
        run.method() == group.method
            && run.training.shots == group.shots
            && run.training.backbone.id == group.backbone
            && run.places().contains(&group.split)
            && store.contains(run.metrics)
            && store.contains(run.predictions)
    });
    let Some(run) = runs.min_by_key(|run| run.training.seed) else { return Ok(None) };
    let reader = ArtifactReader::open(store, run.predictions)?;
    let class_names = reader.class_names()?.to_vec();
    let rows = reader.rows::<PredictionRow>()?;
    let of_split =
        rows.iter().filter(|r| run.place(&r.split) == group.split).map(|r| (r.label, r.logits.as_slice()));
    let Some(found) = accuracy(of_split, class_names.len()) else { return Ok(None) };
    let line = |(name, (share, n)): (&String, &(Option<f64>, u64))| {
        let share = share.map_or("–".to_owned(), |s| format!("{:.1}", 100.0 * s));
        vec![TableCell::text(name), TableCell::number(n.to_string()), TableCell::number(share)]
    };
    Ok(Some(Table {
        title: format!("Accuracy of each class on `{}`: {}", group.split, run.label()),
        note:
            "The run with the best mean of its column, its first seed: a look inside one run, no comparison."
                .to_owned(),
        head: ["class", "images", "accuracy (%)"].map(str::to_owned).to_vec(),
        rows: class_names.iter().zip(&found.classes).map(line).collect(),
    }))
}

/// Files of the report.
struct Files<'a> {
    folder: &'a Path,
    written: Vec<PathBuf>,
}

impl<'a> Files<'a> {
    fn create(folder: &'a Path) -> Result<Self, Error> {
        let tables = folder.join("tables");
        std::fs::create_dir_all(&tables).map_err(|source| Error::Write { path: tables, source })?;
        Ok(Self { folder, written: vec![] })
    }

    /// Writes a chart as SVG and PNG; gives the SVG.
    fn write_chart(&mut self, name: &str, figure: &chart::Figure) -> Result<String, Error> {
        let svg = chart::svg(figure)?;
        self.write(&format!("{name}.svg"), svg.as_bytes())?;
        self.write(&format!("{name}.png"), &chart::png(figure)?)?;
        Ok(svg)
    }

    /// Writes a chart for each name whose places are not empty; gives the SVGs.
    fn write_charts<'n>(
        &mut self,
        results: &Results<'_>,
        charts: &[(&'n str, &[String])],
    ) -> Result<Vec<(&'n str, String)>, Error> {
        let drawn = charts.iter().filter(|(_, places)| !places.is_empty());
        drawn.map(|(name, places)| Ok((*name, self.write_chart(name, &results.figure(places))?))).collect()
    }

    /// Writes the images that there are; gives their PNGs.
    fn write_images<'n>(
        &mut self,
        images: &[(&'n str, &Option<RgbImage>)],
    ) -> Result<Vec<(&'n str, Vec<u8>)>, Error> {
        let mut written = Vec::new();
        for (name, image) in images {
            let Some(image) = image else { continue };
            let png = picture::encode_png(image)?;
            self.write(&format!("{name}.png"), &png)?;
            written.push((*name, png));
        }
        Ok(written)
    }

    fn write_table(&mut self, table: &Table) -> Result<(), Error> {
        let slug = table.slug();
        let is_taken = |name: &String| self.written.contains(&self.folder.join(format!("tables/{name}.csv")));
        let names = std::iter::once(slug.clone()).chain((2..).map(|number| format!("{slug}-{number}")));
        let name = names.into_iter().find(|name| !is_taken(name)).unwrap_or(slug);
        self.write(&format!("tables/{name}.csv"), table::csv(table).as_bytes())?;
        self.write(&format!("tables/{name}.tex"), table::latex(table).as_bytes())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| Error::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
    }
}
