//! The body of every stage's `main`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use pipeline_spec::{ArtifactId, Stage, Store, Unit};
use serde_json::Value;

use crate::exit_code::{DONE, SpecFault, exit_code};
use crate::progress::Display;
use crate::signals::Signals;
use crate::{Context, LogFormat, StageArgs, dry_run, logging};

/// Runs `body` for the unit that `args` names, unless its output is committed already.
///
/// Sets up logs and signals, checks that the unit belongs to `stage` and that its inputs are committed, prints the error
/// if there is one, and maps it to an exit code (see [`crate::exit_code`]).
pub fn run(stage: Stage, args: &StageArgs, body: impl FnOnce(&Context) -> anyhow::Result<()>) -> ExitCode {
    run_with_forecast(stage, args, |_| Ok(None), body)
}

/// As [`run`], for a stage that can say beforehand what its work takes: `forecast` is asked for `--dry-run`.
pub fn run_with_forecast(
    stage: Stage,
    args: &StageArgs,
    forecast: impl FnOnce(&Unit) -> anyhow::Result<Option<Value>>,
    body: impl FnOnce(&Context) -> anyhow::Result<()>,
) -> ExitCode {
    let display = Display::new(args.log_format == LogFormat::Text);
    logging::init(args.log_format, args.verbose, &display);
    finish(prepare(stage, args, display, forecast).and_then(|context| match context {
        None => Ok(()),
        Some(context) => body(&context),
    }))
}

/// Ends a process: prints the error, if any, and gives its exit code. For binaries that are no stage.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    let code = match &result {
        Ok(()) => DONE,
        Err(error) => {
            print_error(error);
            exit_code(error)
        }
    };
    // Whoever read stdout may be gone; the work is done all the same.
    let _ = io::stdout().flush();
    ExitCode::from(code)
}

/// Prints `error` and its causes as one line to stderr.
pub fn print_error(error: &anyhow::Error) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "error: {}", error_line(error));
}

/// The error and its causes in one line; a cause that its parent quotes already is left out.
fn error_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

/// Everything before the work itself; `None` if there is nothing to do.
fn prepare(
    stage: Stage,
    args: &StageArgs,
    display: Display,
    forecast: impl FnOnce(&Unit) -> anyhow::Result<Option<Value>>,
) -> anyhow::Result<Option<Context>> {
    let started = Instant::now();
    let signals = Signals::install().context("cannot handle signals")?;
    let unit = Unit::read(&args.spec).map_err(spec_fault)?;
    let found = unit.spec.stage();
    if found != stage {
        let problem = format!(
            "`{}` holds a unit of `{found}` ({}), this is `{stage}`; run `{found}` instead",
            args.spec.display(),
            unit.spec.kind(),
        );
        return Err(SpecFault(problem).into());
    }
    let (store, output) = (Store::new(&args.store), unit.output());
    if args.dry_run {
        let forecast = forecast(&unit)?;
        dry_run::print(&dry_run::describe(&unit, &store, args, forecast))
            .context("cannot write to stdout")?;
        return Ok(None);
    }
    if store.contains(&output) {
        store.record(&output)?;
        tracing::info!(artifact = %output, "already committed");
        return Ok(None);
    }
    check_inputs(&unit, &store)?;
    tracing::debug!(artifact = %output, shard = %args.shard, "computing");
    Ok(Some(Context { unit, store, shard: args.shard, output, started, signals, display }))
}

/// A unit file that cannot be opened is a bad argument of its own kind: the specification is at fault, not an input.
fn spec_fault(error: pipeline_spec::Error) -> anyhow::Error {
    match error {
        pipeline_spec::Error::Io { path, source } => {
            anyhow::Error::new(SpecFault(format!("cannot read the unit file `{}`: {source}", path.display())))
        }
        error => error.into(),
    }
}

/// Every input must be committed, with a record that can be read and parts of the recorded length. Digests are checked
/// when a part is read.
fn check_inputs(unit: &Unit, store: &Store) -> anyhow::Result<()> {
    for (name, id) in &unit.inputs {
        check_input(store, id)
            .with_context(|| format!("input `{name}` (made by `{}`) cannot be used", id.kind.stage()))?;
    }
    Ok(())
}

fn check_input(store: &Store, id: &ArtifactId) -> Result<(), artifacts::Error> {
    for part in store.record(id)?.parts {
        let path = store.data_dir(id).join(part.file);
        let found = std::fs::metadata(&path).map(|m| m.len()).ok();
        if found != Some(part.size_bytes) {
            return Err(artifacts::Error::Corrupt {
                path,
                field: "length".to_owned(),
                expected: part.size_bytes.to_string(),
                found: found.map_or_else(|| "no file".to_owned(), |length| length.to_string()),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = anyhow::anyhow!("no space\nleft").context("cannot write `p`").context("part 3 failed");
        assert_eq!(error_line(&error), "part 3 failed: cannot write `p`: no space left");
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = anyhow::anyhow!("inner").context("outer: inner");
        assert_eq!(error_line(&error), "outer: inner");
    }

    const PROMPTS: &str = r#"
        [spec]
        kind = "prompts"
        [spec.spec]
        dataset = "emoji"
        manifest_digest = "0000000000000000000000000000000000000000000000000000000000000000"
        provider = { kind = "templates", templates = ["a {}"] }
        [inputs]
    "#;
    const SHOT_LIST: &str = r#"
        [spec]
        kind = "fewshot-splits"
        [spec.spec]
        dataset = "emoji"
        shots = 1
        seed = 1
        val_shots = "min-shots4"
        short_class = "take-all"
        [inputs]
        images = "images-v1/emoji/train-64px-0123456789abcdef0123456789abcdef"
    "#;

    /// What a stage says to a unit file with this text, and its exit code.
    fn refusal(stage: Stage, unit: &str) -> (String, u8) {
        let folder = tempfile::tempdir().unwrap();
        let spec = folder.path().join("unit.toml");
        std::fs::write(&spec, unit).unwrap();
        let args = StageArgs {
            spec,
            store: folder.path().join("store"),
            shard: artifacts::Shard::default(),
            dry_run: false,
            log_format: LogFormat::Text,
            verbose: 0,
        };
        let error = prepare(stage, &args, Display::new(false), |_| Ok(None)).unwrap_err();
        (error_line(&error), exit_code(&error))
    }

    #[test]
    fn a_unit_of_another_stage_names_the_right_binary() {
        let (message, code) = refusal(Stage::Trainer, PROMPTS);
        assert!(message.ends_with(
            "holds a unit of `prompt-gen` (prompts), this is `trainer`; run `prompt-gen` instead"
        ));
        assert_eq!(code, 78);
    }

    #[test]
    fn a_misspelled_field_is_rejected_by_name() {
        let (message, code) = refusal(Stage::PromptGen, &PROMPTS.replace("templates =", "template ="));
        assert!(message.contains("unknown field `template`"), "{message}");
        assert_eq!(code, 78);
    }

    #[test]
    fn a_missing_input_names_the_artifact_and_its_stage() {
        let (message, code) = refusal(Stage::DatasetPack, SHOT_LIST);
        assert!(message.starts_with("input `images` (made by `dataset-pack`) cannot be used"), "{message}");
        assert!(
            message.contains("`images-v1/emoji/train-64px-0123456789abcdef0123456789abcdef`"),
            "{message}"
        );
        assert_eq!(code, 65);
    }
}
