//! Arguments that every stage has: where and how, never what.

use std::path::{Path, PathBuf};

use artifacts::Shard;

/// Arguments of every stage. None of them changes what a stage computes; that is the business of the unit file.
#[derive(Debug, Clone, clap::Args)]
pub struct StageArgs {
    /// Unit file (TOML or JSON): what to compute, and the artifacts it reads. `-`: stdin names unit files, a line each;
    /// they are computed one after the other, and each ends with its exit code as a line on stdout.
    #[arg(long, value_name = "FILE")]
    pub spec: PathBuf,
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    pub store: PathBuf,
    /// Compute only the parts whose index leaves the remainder I when divided by N.
    #[arg(long, value_name = "I/N", default_value_t = Shard::default())]
    pub shard: Shard,
    /// Print the output, whether it is committed, and the inputs as JSON, and compute nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Append what a unit writes to stderr to `logs/<key>.log` in the store instead.
    #[arg(long)]
    pub unit_logs: bool,
    /// Form of the log on stderr.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// More log: `-v` for debug, `-vv` for trace.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl StageArgs {
    /// Whether stdin names the units, so that several share this process.
    pub fn names_units_on_stdin(&self) -> bool {
        self.spec.as_os_str() == "-"
    }
}

/// Arguments of a stage with networks.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceArgs {
    /// Where the networks run: `cpu`, `cuda:<index>`, `tch-cpu` or `tch-cuda:<index>`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Folder of the checkpoints that specifications name.
    #[arg(long, value_name = "DIR", env = "FLIER_WEIGHTS", default_value = "models")]
    pub weights: PathBuf,
}

impl DeviceArgs {
    /// Folder of the checkpoint `id` below the weights folder.
    pub fn checkpoint_dir(&self, id: &str) -> PathBuf {
        Path::new(&self.weights).join(id)
    }
}

/// Form of the log on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people, with colour on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object a line, for clusters.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        stage: StageArgs,
        #[command(flatten)]
        device: DeviceArgs,
    }

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(
            [&["stage", "--spec", "unit.toml", "--store", "s", "--weights", "w"], args].concat(),
        )
    }

    #[test]
    fn defaults_are_one_shard_on_the_cpu() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.stage.shard, Shard::default());
        assert_eq!((args.device.device.as_str(), args.stage.log_format), ("cpu", LogFormat::Text));
        assert!(!args.stage.dry_run);
    }

    #[test]
    fn every_argument_is_understood() {
        let args =
            parse(&["--shard", "3/16", "--dry-run", "--log-format", "json", "-vv", "--device", "tch-cuda:1"])
                .unwrap();
        assert_eq!(args.stage.shard, Shard::new(3, 16).unwrap());
        assert_eq!((args.stage.verbose, args.stage.log_format), (2, LogFormat::Json));
        assert_eq!(args.device.device, "tch-cuda:1");
        assert_eq!(args.device.checkpoint_dir("clip"), Path::new("w/clip"));
    }

    #[test]
    fn a_bad_shard_is_a_usage_error_that_says_what_is_expected() {
        let error = parse(&["--shard", "4/4"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("expected `I/N` with I from 0 to N-1"), "{error}");
    }

    #[test]
    fn the_unit_file_is_required() {
        let error = Args::try_parse_from(["stage", "--store", "s"]).unwrap_err();
        assert!(error.to_string().contains("--spec <FILE>"), "{error}");
    }
}
