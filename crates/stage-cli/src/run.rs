//! The body of every stage's `main`.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use pipeline_spec::{ArtifactId, Stage, Store, Unit};
use serde_json::Value;

use crate::exit_code::{DONE, SpecFault, exit_code};
use crate::progress::Display;
use crate::signals::Signals;
use crate::{Context, LogFormat, StageArgs, dry_run, logging};

/// Runs `body` for each unit that `args` names, unless its output is committed already.
///
/// Sets up logs and signals, checks that a unit belongs to `stage` and that its inputs are committed, prints the error
/// if there is one, and maps it to an exit code (see [`crate::exit_code`]). Of several units each is finished by itself;
/// the failure of one does not keep the others from running, and the exit code is that of the first failure.
pub fn run(stage: Stage, args: &StageArgs, body: impl FnMut(&Context) -> anyhow::Result<()>) -> ExitCode {
    run_with_forecast(stage, args, |_| Ok(None), body)
}

/// As [`run`], for a stage that can say beforehand what its work takes: `forecast` is asked for `--dry-run`.
pub fn run_with_forecast(
    stage: Stage,
    args: &StageArgs,
    mut forecast: impl FnMut(&Unit) -> anyhow::Result<Option<Value>>,
    mut body: impl FnMut(&Context) -> anyhow::Result<()>,
) -> ExitCode {
    let display = Display::new(args.log_format == LogFormat::Text);
    logging::init(args.log_format, args.verbose, &display);
    let signals = match Signals::install().context("cannot handle signals") {
        Ok(signals) => signals,
        Err(error) => return finish(Err(error)),
    };
    let process = Process { stage, args, display, signals };
    let mut compute = |spec: &Path| {
        process.prepare(spec, &mut forecast).and_then(|context| context.as_ref().map_or(Ok(()), &mut body))
    };
    if args.names_units_on_stdin() {
        let (units, answers) = (io::stdin().lock(), io::stdout().lock());
        return ExitCode::from(run_all(units, answers, &process.signals, compute));
    }
    finish(compute(&args.spec))
}

/// Computes the units that `units` names, a line each, and writes the exit code of each to `answers`. Gives the exit code
/// of the first failure.
fn run_all(
    units: impl BufRead,
    mut answers: impl Write,
    signals: &Signals,
    mut compute: impl FnMut(&Path) -> anyhow::Result<()>,
) -> u8 {
    let mut first_failure = DONE;
    for line in units.split(b'\n') {
        let result = line.context("cannot read the names of unit files from stdin");
        let code = code_of(&result.and_then(|line| compute(Path::new(OsStr::from_bytes(&line)))));
        first_failure = if first_failure == DONE { code } else { first_failure };
        if let Some(code) = signals.exit_code() {
            first_failure = code;
        }
        // Whoever gives the units may be gone: nobody waits for the others then.
        let is_told = writeln!(answers, "{code}").and_then(|()| answers.flush()).is_ok();
        if !is_told || signals.exit_code().is_some() {
            break;
        }
    }
    first_failure
}

/// Ends a process: prints the error, if any, and gives its exit code. For binaries that are no stage.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    let code = code_of(&result);
    // Whoever read stdout may be gone; the work is done all the same.
    let _ = io::stdout().flush();
    ExitCode::from(code)
}

/// The exit code of `result`, whose error is printed.
fn code_of(result: &anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => DONE,
        Err(error) => {
            print_error(error);
            exit_code(error)
        }
    }
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

/// What the units of a process share.
struct Process<'a> {
    stage: Stage,
    args: &'a StageArgs,
    display: Display,
    signals: Signals,
}

impl Process<'_> {
    /// Everything before the work itself; `None` if there is nothing to do.
    fn prepare(
        &self,
        spec: &Path,
        forecast: impl FnOnce(&Unit) -> anyhow::Result<Option<Value>>,
    ) -> anyhow::Result<Option<Context>> {
        let (started, args) = (Instant::now(), self.args);
        let unit = Unit::read(spec).map_err(spec_fault)?;
        let found = unit.spec.stage();
        if found != self.stage {
            let problem = format!(
                "`{}` holds a unit of `{found}` ({}), this is `{}`; run `{found}` instead",
                spec.display(),
                unit.spec.kind(),
                self.stage,
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
        if args.unit_logs {
            logging::redirect(&store.log_path(&output))?;
        }
        if store.contains(&output) {
            store.record(&output)?;
            tracing::info!(artifact = %output, "already committed");
            return Ok(None);
        }
        check_inputs(&unit, &store)?;
        tracing::debug!(artifact = %output, shard = %args.shard, "computing");
        let (signals, display) = (self.signals.clone(), self.display.clone());
        Ok(Some(Context { unit, store, shard: args.shard, output, started, signals, display }))
    }
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
            spec: spec.clone(),
            store: folder.path().join("store"),
            shard: artifacts::Shard::default(),
            dry_run: false,
            unit_logs: false,
            log_format: LogFormat::Text,
            verbose: 0,
        };
        let (display, signals) = (Display::new(false), Signals::default());
        let process = Process { stage, args: &args, display, signals };
        let error = process.prepare(&spec, |_| Ok(None)).unwrap_err();
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

    /// The answers and the exit code of a process that is given the units "a", "b" and "c".
    fn run_abc(signals: &Signals, compute: impl FnMut(&Path) -> anyhow::Result<()>) -> (String, u8) {
        let mut answers = Vec::new();
        let code = run_all(&b"a\nb\nc\n"[..], &mut answers, signals, compute);
        (String::from_utf8(answers).unwrap(), code)
    }

    #[test]
    fn a_unit_that_fails_keeps_no_other_from_running_and_its_exit_code_stays() {
        let fail_in_b = |unit: &Path| match unit.to_str().unwrap() {
            "b" => Err(SpecFault("bad".to_owned()).into()),
            _ => Ok(()),
        };
        assert_eq!(run_abc(&Signals::default(), fail_in_b), ("0\n78\n0\n".to_owned(), 78));
        assert_eq!(run_abc(&Signals::default(), |_| Ok(())), ("0\n0\n0\n".to_owned(), 0));
    }

    #[test]
    fn after_a_signal_no_further_unit_is_begun() {
        let signals = Signals::received(signal_hook::consts::SIGTERM);
        let mut begun = 0;
        let compute = |_: &Path| {
            begun += 1;
            Err(crate::Interrupted { exit_code: 143 }.into())
        };
        assert_eq!(run_abc(&signals, compute), ("143\n".to_owned(), 143));
        assert_eq!(begun, 1);
    }
}
