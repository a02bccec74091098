//! Two runs, or the results of two plans, side by side: which figures differ, how sure the difference is, and what differs
//! in the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use artifacts::{ArtifactReader, PredictionRow};
use pipeline_spec::{ArtifactId, ArtifactKind, Plan, StageSpec, Store};
use serde_json::Value;

use crate::Error;
use crate::answers::Answers;
use crate::metrics::{figures_of, place_of};
use crate::report::cells::{MethodId, runs_of, weights_name};
use crate::report::comparisons::{Family, Field, Rows};
use crate::report::table::{Table, TableCell, markdown};

/// One side of a comparison.
#[derive(Debug)]
pub struct Side {
    runs: BTreeMap<Cell, Run>,
    /// Settings by their path, as text.
    settings: BTreeMap<String, String>,
}

/// What is compared with its like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    backbone: String,
    method: MethodId,
    shots: Option<u32>,
    place: String,
    seed: u64,
}

/// A run on one split.
#[derive(Debug)]
struct Run {
    figures: BTreeMap<&'static str, f64>,
    answers: Answers,
}

impl Side {
    /// What `name` is: a plan file, or the path of a `predictions` or `metrics` artifact below the store.
    ///
    /// # Errors
    ///
    /// Fails if it is neither, or an artifact that it names cannot be read. Runs of a plan that are not in the store are
    /// left out.
    pub fn open(name: &str, store: &Store) -> Result<Self, Error> {
        let (mut runs, mut settings) = (BTreeMap::new(), BTreeMap::new());
        if Path::new(name).is_file() {
            let plan = Plan::read(Path::new(name))?;
            flatten("", &serde_json::to_value(&plan.pipeline).unwrap_or_default(), &mut settings);
            for run in runs_of(&plan).iter().filter(|run| store.contains(run.predictions)) {
                read_run(store, run.predictions, &mut runs)?;
            }
        } else {
            let id: ArtifactId = name.trim_end_matches('/').parse()?;
            let predictions = match id.kind {
                ArtifactKind::Metrics => store.record(&id)?.unit.input("predictions")?.clone(),
                ArtifactKind::Predictions => id,
                found => return Err(Error::NotComparable { name: name.to_owned(), found }),
            };
            collect_settings(store, &predictions, "", &mut settings, &mut BTreeSet::new())?;
            read_run(store, &predictions, &mut runs)?;
        }
        Ok(Self { runs, settings })
    }

    /// The only cell of each place, if there is one run.
    fn single(&self) -> Option<BTreeMap<&String, &Cell>> {
        let by_place: BTreeMap<_, _> = self.runs.keys().map(|cell| (&cell.place, cell)).collect();
        (by_place.len() == self.runs.len()).then_some(by_place)
    }
}

impl Cell {
    fn label(&self) -> String {
        let shots = self.shots.map_or(String::new(), |shots| format!(", {shots} shots, seed {}", self.seed));
        format!("{}, {}{shots}, `{}`", self.method.label(), self.backbone, self.place)
    }
}

fn read_run(store: &Store, id: &ArtifactId, runs: &mut BTreeMap<Cell, Run>) -> Result<(), Error> {
    let reader = ArtifactReader::open(store, id)?;
    let unit = &reader.record().unit;
    let training = store.record(unit.input("checkpoints")?)?.unit;
    let (StageSpec::Predictions(evaluation), StageSpec::Checkpoints(training)) = (&unit.spec, &training.spec)
    else {
        return Err(Error::NotComparable { name: id.to_string(), found: id.kind });
    };
    let method =
        MethodId { name: training.method_name.clone(), weights: weights_name(evaluation.weights).to_owned() };
    let num_classes = reader.class_names()?.len();
    let rows = reader.rows::<PredictionRow>()?;
    let images = match unit.inputs.get("features") {
        Some(features) => store.record(features)?.unit.input("images")?.clone(),
        None => unit.input("images")?.clone(),
    };
    let answers = Answers::of(&rows);
    for (split, answers) in answers {
        let Some((figures, _)) = figures_of(&rows, &split, num_classes) else { continue };
        let cell = Cell {
            backbone: training.backbone.id.clone(),
            method: method.clone(),
            shots: training.shots,
            place: place_of(store, &images, training, &split)?,
            seed: training.seed,
        };
        runs.insert(cell, Run { figures: figures.into_iter().collect(), answers });
    }
    Ok(())
}

/// Settings of `id` and of all that it was made from; names of runs are left out, and so is what stands in a key only.
fn collect_settings(
    store: &Store,
    id: &ArtifactId,
    prefix: &str,
    settings: &mut BTreeMap<String, String>,
    seen: &mut BTreeSet<ArtifactId>,
) -> Result<(), Error> {
    if !seen.insert(id.clone()) {
        return Ok(());
    }
    let record = store.record(id)?;
    let place = format!("{prefix}{}", record.id.kind.name());
    let spec = serde_json::to_value(&record.unit.spec).unwrap_or_default();
    flatten(&place, spec.get("spec").unwrap_or(&Value::Null), settings);
    settings.remove(&format!("{place}.run"));
    settings.insert(format!("{place} (code version)"), record.code_version.to_string());
    for (name, input) in &record.unit.inputs {
        let prefix = if name == input.kind.name() { prefix.to_owned() } else { format!("{prefix}{name}: ") };
        collect_settings(store, input, &prefix, settings, seen)?;
    }
    Ok(())
}

/// Every leaf of `value` under its path.
fn flatten(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&below(name), value, out)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            // Items that have a name stand under it, so that a new one moves none of the others.
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str);
                flatten(&format!("{path}[{}]", name.map_or(index.to_string(), str::to_owned)), item, out);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(out.insert(path.to_owned(), text.clone())),
        other => drop(out.insert(path.to_owned(), other.to_string())),
    }
}

/// The comparison of `a` and `b` as Markdown.
pub fn report(a: &Side, b: &Side) -> String {
    let pairs = pairs(a, b);
    let mut out = String::from("# B compared with A\n\n");
    let is_equal = |(_, x, y): &(Cell, &Run, &Run)| x.figures == y.figures && x.answers == y.answers;
    let num_equal = pairs.iter().filter(|pair| is_equal(pair)).count();
    out.push_str(&format!(
        "Cells in both: {}; {num_equal} equal, {} different; {} in A only, {} in B only.\n\n",
        pairs.len(),
        pairs.len() - num_equal,
        a.runs.len() - pairs.len(),
        b.runs.len() - pairs.len()
    ));
    let num_other = pairs.iter().filter(|(_, x, y)| x.answers.images != y.answers.images).count();
    if num_other > 0 {
        out.push_str(&format!(
            "{num_other} of them are of other images on each side and are in no paired test.\n\n"
        ));
    }
    let tables = [figures_table(&pairs), only_table(a, b, &pairs)].into_iter().flatten();
    let tables = tables
        .chain(families(&pairs).into_iter().flat_map(|family| family.tables()))
        .chain(settings_table(a, b));
    tables.for_each(|table| out.push_str(&markdown(&table)));
    out
}

/// Cells of both sides. Two single runs are a pair whatever their names are.
fn pairs<'a>(a: &'a Side, b: &'a Side) -> Vec<(Cell, &'a Run, &'a Run)> {
    if let (Some(of_a), Some(of_b)) = (a.single(), b.single()) {
        let pair = |(place, cell): (&&String, &&'a Cell)| {
            let other = of_b.get(*place)?;
            Some(((*other).clone(), &a.runs[*cell], &b.runs[*other]))
        };
        return of_a.iter().filter_map(pair).collect();
    }
    let pair = |(cell, run): (&Cell, &'a Run)| Some((cell.clone(), run, b.runs.get(cell)?));
    a.runs.iter().filter_map(pair).collect()
}

fn figures_table(pairs: &[(Cell, &Run, &Run)]) -> Option<Table> {
    let mut table = Table::new(
        "Figures that differ",
        "As stored: accuracies and calibration errors are fractions.",
        &["cell", "figure", "A", "B", "B − A"],
    );
    for (cell, a, b) in pairs {
        for (metric, of_a) in &a.figures {
            let Some(of_b) = b.figures.get(metric).filter(|of_b| *of_b != of_a) else { continue };
            let numbers = [format!("{of_a:.4}"), format!("{of_b:.4}"), format!("{:+.4}", of_b - of_a)];
            let words = [cell.label(), (*metric).to_owned()].map(TableCell::text);
            table.rows.push(words.into_iter().chain(numbers.map(TableCell::number)).collect());
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn only_table(a: &Side, b: &Side, pairs: &[(Cell, &Run, &Run)]) -> Option<Table> {
    let mut table = Table::new("Cells of one side only", "", &["cell", "side"]);
    if pairs.is_empty() || a.single().is_none() || b.single().is_none() {
        for (side, own, other) in [("A", a, b), ("B", b, a)] {
            let only = own.runs.keys().filter(|cell| !other.runs.contains_key(cell));
            table.rows.extend(only.map(|cell| vec![TableCell::text(cell.label()), TableCell::text(side)]));
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// B against A on the same images, one family for each backbone and place.
fn families(pairs: &[(Cell, &Run, &Run)]) -> Vec<Family> {
    let mut grouped: BTreeMap<(String, String), Vec<(Field, Rows)>> = BTreeMap::new();
    for (cell, a, b) in pairs {
        let Some(row) = b.answers.minus(&a.answers) else { continue };
        let places = grouped.entry((cell.backbone.clone(), cell.place.clone())).or_default();
        let place = (cell.method.clone(), cell.shots);
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, rows)) => rows.push((cell.seed, row)),
            None => places.push((place, vec![(cell.seed, row)])),
        }
    }
    grouped
        .into_iter()
        .filter_map(|((backbone, place), places)| Family::new(&backbone, &place, "A", places))
        .collect()
}

fn settings_table(a: &Side, b: &Side) -> Option<Table> {
    let mut table = Table::new("Settings that differ", "", &["setting", "A", "B"]);
    let names: BTreeSet<&String> = a.settings.keys().chain(b.settings.keys()).collect();
    for name in names {
        let (of_a, of_b) = (a.settings.get(name), b.settings.get(name));
        if of_a != of_b {
            let text = |value: Option<&String>| TableCell::text(value.map_or("–", |text| text));
            table.rows.push(vec![TableCell::text(format!("`{name}`")), text(of_a), text(of_b)]);
        }
    }
    if table.rows.is_empty() {
        table.note = "None: the settings are the same.".to_owned();
    }
    Some(table)
}
