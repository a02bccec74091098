//! The units of a plan grouped to steps for people: one per kind, and per method where runs differ by it.

use pipeline_spec::{ArtifactKind, Plan, StageSpec};

use crate::terminal;
use crate::unit_state::UnitState;

/// Units that people see as one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What the units yield.
    pub kind: ArtifactKind,
    /// Method of a training run and of what is made from it; the view for features.
    pub detail: String,
    /// Indices into the plan.
    pub units: Vec<usize>,
}

/// The steps of `plan`, in the order of their first units.
pub fn steps(plan: &Plan) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for index in 0..plan.units.len() {
        let kind = plan.units[index].output.kind;
        let detail = detail(plan, index);
        match steps.iter_mut().find(|step| step.kind == kind && step.detail == detail) {
            Some(step) => step.units.push(index),
            None => steps.push(Step { kind, detail, units: vec![index] }),
        }
    }
    steps.sort_by_key(|step| step.kind);
    steps
}

/// What tells apart the units of one kind.
pub fn detail(plan: &Plan, index: usize) -> String {
    let planned = &plan.units[index];
    match &planned.unit.spec {
        StageSpec::Checkpoints(spec) => spec.method_name.clone(),
        StageSpec::Predictions(_) | StageSpec::Metrics(_) => {
            let run =
                planned.depends_on.iter().find(|&&d| plan.units[d].output.kind == ArtifactKind::Checkpoints);
            run.map_or_else(String::new, |&run| detail(plan, run))
        }
        StageSpec::Features(spec) => spec.splits.join(" "),
        StageSpec::Prompts(_)
        | StageSpec::Latents(_)
        | StageSpec::EncodedLatents(_)
        | StageSpec::Images(_)
        | StageSpec::FewshotSplits(_) => String::new(),
    }
}

/// A table of the steps: how many units, how many of them cached, and which keys.
pub fn table(plan: &Plan, states: &[UnitState]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut totals = [0; 2];
    for step in steps(plan) {
        let cached = step.units.iter().filter(|&&i| states[i].is_done()).count();
        let first = &plan.units[step.units[0]].output;
        let key = match step.units.len() {
            1 => format!("{}-{}", first.slug, first.key),
            more => format!("{}…  and {} more", &first.key.as_str()[..8], more - 1),
        };
        totals = [totals[0] + step.units.len(), totals[1] + cached];
        rows.push(row(step.kind.name(), &step.detail, step.units.len(), cached, key));
    }
    rows.push(row("total", "", totals[0], totals[1], String::new()));
    terminal::table(&["step", "", "units", "cached", "to run", "key"], &[2, 3, 4], &rows)
}

fn row(name: &str, detail: &str, units: usize, cached: usize, key: String) -> Vec<String> {
    let numbers = [units, cached, units - cached].map(|n| n.to_string());
    [name.to_owned(), detail.to_owned()].into_iter().chain(numbers).chain([key]).collect()
}
