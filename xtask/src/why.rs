//! `why`: what makes a unit run again.

use anyhow::{Context, bail};
use clap::Args;
use pipeline_spec::{ArtifactId, Plan, PlannedUnit, Store};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::options::PlanOptions;
use crate::stored::{file_name, folders};
use crate::unit_state::UnitState;
use crate::{steps, terminal};

/// Fields that are listed.
const MAX_FIELDS: usize = 10;

/// Say why a unit of a pipeline has to run: which field, input or version differs from what the store has
#[derive(Args)]
pub struct Why {
    /// Pipeline file (the quick start if left out), then a unit: its index, slug, kind, or the beginning of its key
    #[arg(num_args = 1..=2, required = true, value_names = ["PIPELINE", "UNIT"])]
    arguments: Vec<String>,
    #[command(flatten)]
    plan: PlanOptions,
}

/// A field that differs, with its text in the store and in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    field: String,
    stored: Option<String>,
    planned: Option<String>,
}

impl Why {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (pipeline, name) = match self.arguments.as_slice() {
            [pipeline, name] => (Some(PathBuf::from(pipeline)), name),
            [name] => (None, name),
            _ => bail!("expected a pipeline and a unit"),
        };
        let plan = self.plan.plan(pipeline.as_ref())?;
        let store = self.plan.store.store();
        let mut seen = BTreeSet::new();
        for index in named_units(&plan, name)? {
            explain(&plan, &store, index, &mut seen)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The units that `name` means.
fn named_units(plan: &Plan, name: &str) -> anyhow::Result<Vec<usize>> {
    if let Ok(index) = name.parse::<usize>()
        && index < plan.units.len()
    {
        return Ok(vec![index]);
    }
    let fits = |planned: &PlannedUnit| {
        let output = &planned.output;
        output.slug == name
            || output.kind.name() == name
            || output.to_string() == name
            || format!("{}-{}", output.slug, output.key) == name
            || (name.len() >= 4 && output.key.as_str().starts_with(name))
    };
    let found: Vec<usize> = (0..plan.units.len()).filter(|&index| fits(&plan.units[index])).collect();
    if found.is_empty() {
        bail!(
            "no unit `{name}` in the plan; expected an index below {}, a slug, a kind, or at least 4 digits of a key \
             (`cargo xtask plan -v` lists them)",
            plan.units.len()
        );
    }
    Ok(found)
}

/// Explains unit `index`, then every input that is missing for another reason.
fn explain(plan: &Plan, store: &Store, index: usize, seen: &mut BTreeSet<usize>) -> anyhow::Result<()> {
    if !seen.insert(index) {
        return Ok(());
    }
    let planned = &plan.units[index];
    let detail = steps::detail(plan, index);
    terminal::print(format_args!("unit {index}: {} {detail}", planned.output));
    match UnitState::of(store, &planned.output) {
        UnitState::Done(_) => {
            terminal::print("  does not run: its artifact is in the store");
            return Ok(());
        }
        UnitState::Damaged(reason) => {
            terminal::print(format_args!("  runs again because its artifact is damaged: {reason}"));
            return Ok(());
        }
        UnitState::Missing => {}
    }
    let Some((relative, differences)) = nearest(store, planned)? else {
        let begun = store.artifact_dir(&planned.output).is_dir();
        let reason =
            if begun { "it was begun and is not finished" } else { "nothing like it was ever computed" };
        terminal::print(format_args!("  runs because {reason}"));
        return Ok(());
    };
    terminal::print(format_args!("  compared with {relative}:"));
    for Difference { field, stored, planned } in differences.iter().take(MAX_FIELDS) {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        terminal::print(format_args!(
            "    {field}: the store has {}, the plan {}",
            text(stored),
            text(planned)
        ));
    }
    if differences.len() > MAX_FIELDS {
        terminal::print(format_args!("    and {} more fields", differences.len() - MAX_FIELDS));
    }
    for difference in &differences {
        let input = difference.field.strip_prefix("inputs.").and_then(|name| planned.unit.inputs.get(name));
        let unit = input.and_then(|id| plan.units.iter().position(|other| other.output == *id));
        if let Some(unit) = unit {
            explain(plan, store, unit, seen)?;
        }
    }
    Ok(())
}

/// The artifact with the same kind, data set and slug that differs in the fewest fields, and these.
fn nearest(store: &Store, planned: &PlannedUnit) -> anyhow::Result<Option<(String, Vec<Difference>)>> {
    let ours = comparable(&serde_json::to_value(&planned.unit)?, &planned.unit.spec.code_version().into());
    let mut best: Option<(String, Vec<Difference>)> = None;
    for (name, record) in records_beside(store, &planned.output)? {
        let empty = Value::Null;
        let theirs =
            comparable(record.get("unit").unwrap_or(&empty), record.get("code_version").unwrap_or(&empty));
        let mut differences = Vec::new();
        compare("", Some(&theirs), Some(&ours), &mut differences);
        if best.as_ref().is_none_or(|(_, best)| differences.len() < best.len()) {
            best = Some((name, differences));
        }
    }
    Ok(best)
}

/// What a key is made of, with short paths: `spec`, `inputs` and `code_version`.
fn comparable(unit: &Value, code_version: &Value) -> Value {
    let part = |name: &str| unit.get(name).cloned().unwrap_or(Value::Null);
    let spec = part("spec").get("spec").cloned().unwrap_or(Value::Null);
    serde_json::json!({ "spec": spec, "inputs": part("inputs"), "code_version": code_version })
}

/// The records of finished artifacts with the slug of `id`, under any schema version.
fn records_beside(store: &Store, id: &ArtifactId) -> anyhow::Result<Vec<(String, Value)>> {
    let prefix = format!("{}-v", id.kind);
    let mut records = Vec::new();
    for kind_dir in folders(store.root())?.into_iter().filter(|dir| file_name(dir).starts_with(&prefix)) {
        for dir in folders(&kind_dir.join(id.dataset.as_str()))? {
            let name = file_name(&dir);
            let has_slug = name.rsplit_once('-').is_some_and(|(slug, _)| slug == id.slug);
            let path = dir.join("artifact.json");
            if !has_slug || dir == store.artifact_dir(id) || !path.is_file() {
                continue;
            }
            let text = std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            // A record of an older schema is compared as far as it goes; an unreadable one says nothing.
            if let Ok(record) = serde_json::from_slice(&text) {
                records.push((format!("{}/{}/{name}", file_name(&kind_dir), id.dataset), record));
            }
        }
    }
    records.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(records)
}

/// Adds every leaf that differs between `stored` and `planned`.
fn compare(path: &str, stored: Option<&Value>, planned: Option<&Value>, differences: &mut Vec<Difference>) {
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (stored, planned) {
        for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(&path, a.get(name), b.get(name), differences);
        }
    } else if stored != planned {
        let text = |value: Option<&Value>| value.map(|value| format!("`{}`", shown(value)));
        differences.push(Difference { field: path.to_owned(), stored: text(stored), planned: text(planned) });
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leaves_that_differ_are_named_by_their_path() {
        let stored = json!({ "spec": { "seed": 1, "steps": 20, "old": true }, "inputs": {} });
        let planned = json!({ "spec": { "seed": 1, "steps": 50, "new": [1] }, "inputs": {} });
        let mut differences = Vec::new();
        compare("", Some(&stored), Some(&planned), &mut differences);
        let text: Vec<_> = differences
            .iter()
            .map(|d| format!("{} {:?} {:?}", d.field, d.stored.as_deref(), d.planned.as_deref()))
            .collect();
        assert_eq!(
            text,
            [
                r#"spec.old Some("`true`") None"#,
                r#"spec.steps Some("`20`") Some("`50`")"#,
                r#"spec.new None Some("`[1]`")"#
            ]
        );
    }
}
