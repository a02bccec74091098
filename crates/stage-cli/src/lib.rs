//! What the `main` of every stage does: arguments, logs, progress, signals, dry run and exit codes.
//!
//! A stage's binary is these lines:
//!
//! ```no_run
//! /// Makes prompts from class names.
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     stage: stage_cli::StageArgs,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let args: Args = stage_cli::parse();
//!     stage_cli::run(pipeline_spec::Stage::PromptGen, &args.stage, |context| {
//!         let progress = context.progress("prompts", 10);
//!         for _part in 0..10 {
//!             context.check_interrupted()?;
//!             progress.inc(1);
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! stdout carries data only (the JSON of `--dry-run`); logs and progress go to stderr.

pub mod args;
mod cache;
mod command_docs;
pub mod context;
mod dry_run;
pub mod exit_code;
pub mod logging;
mod memory;
pub mod progress;
mod run;
pub mod signals;

pub use args::{DeviceArgs, LogFormat, StageArgs};
pub use cache::Cache;
pub use command_docs::{matches, parse};
pub use context::{Context, Interrupted};
pub use exit_code::{ExitWith, InputFault, SpecFault, exit_code};
pub use memory::{keep_freed_memory, use_small_pages};
pub use progress::Progress;
pub use run::{finish, print_error, run, run_with_forecast};
