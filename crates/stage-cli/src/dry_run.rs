//! `--dry-run`: what would happen, as JSON on stdout.

use std::io::{self, Write as _};

use pipeline_spec::{Store, Unit};
use serde_json::{Value, json};

use crate::StageArgs;

/// Describes `unit`: its stage, its output, its inputs, which of them are committed, and what the stage foresees.
pub(crate) fn describe(unit: &Unit, store: &Store, args: &StageArgs, forecast: Option<Value>) -> Value {
    let output = unit.output();
    let inputs: serde_json::Map<String, Value> = unit
        .inputs
        .iter()
        .map(|(name, id)| {
            let input = json!({ "id": id, "committed": store.contains(id), "stage": id.kind.stage() });
            (name.clone(), input)
        })
        .collect();
    let mut description = json!({
        "stage": unit.spec.stage(),
        "output": output,
        "path": store.artifact_dir(&output),
        "committed": store.contains(&output),
        "shard": args.shard.to_string(),
        "inputs": inputs,
        "spec": unit.spec,
    });
    if let Some(forecast) = forecast {
        description["forecast"] = forecast;
    }
    description
}

/// Prints `value` to stdout. A reader that went away (`| head`) is no failure.
pub(crate) fn print(value: &Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{value:#}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
