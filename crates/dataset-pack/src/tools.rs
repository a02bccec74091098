//! The commands beside the stage: `shots`, `doctor`, `init`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use dataset_pack::doctor::{self, Examination};
use dataset_pack::shots::{self, IndexFormat, index_file};
use dataset_pack::split_file::SplitLists;
use dataset_pack::{init, photo};
use pipeline_spec::DatasetId;
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::spec::{ShortClass, ValShots};
use stage_cli::InputFault;
use stage_cli::progress::Display;

use crate::with_exit_code;

/// What to do instead of running the stage.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Draw a shot list from a split file, or translate a published one.
    Shots(Shots),
    /// Compare a data set on disk with its manifest and say what to do.
    Doctor(Doctor),
    /// Write a manifest for your own images, to be edited.
    Init(Init),
}

/// Runs a command.
pub fn run(tool: Tool) -> ExitCode {
    stage_cli::finish(match tool {
        Tool::Shots(shots) => shots.run(),
        Tool::Doctor(doctor) => doctor.run(),
        Tool::Init(init) => init.run(),
    })
}

/// Arguments of `shots`.
#[derive(Debug, Args)]
pub struct Shots {
    /// Split file of CoOp (`split_zhou_*.json`).
    #[arg(long, value_name = "FILE")]
    split_file: PathBuf,
    /// Training images per class.
    #[arg(long, value_name = "K", required_unless_present = "import", conflicts_with = "import")]
    shots: Option<u32>,
    /// Seed of the draw [default: 1 with `--mode tip-adapter`].
    #[arg(long, value_name = "S", conflicts_with = "import")]
    seed: Option<u64>,
    /// Whose protocol: validation images are min(K, 4) per class (coop) or all of them (tip-adapter).
    #[arg(long, value_enum, default_value_t = Mode::Coop)]
    mode: Mode,
    /// What to do with a class that has fewer than K images.
    #[arg(long, value_enum, default_value_t = Short::TakeAll)]
    short_class: Short,
    /// Read this published list instead of drawing one.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Fail unless the list is the one in this file, in the same order.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Form::Tsv)]
    format: Form,
    /// What to put before every path, for example `./data/dtd/images/`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Write here instead of to stdout; with `--format 2sfs` the start of two names.
    #[arg(long, value_name = "FILE", required_if_eq("format", "2sfs"))]
    out: Option<PathBuf>,
}

/// Whose protocol draws the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Seeds 1 to 3, validation min(K, 4) per class.
    Coop,
    /// Seed 1, all validation images.
    TipAdapter,
}

/// What to do with a class that has too few images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Short {
    /// Take all there are, as CoOp.
    TakeAll,
    /// Draw with replacement, as FLIER's released code.
    Repeat,
}

/// A form of shot lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// `path TAB label` lines: train, an empty line, val.
    Tsv,
    /// JSON of cross_modal_adaptation.
    CrossModal,
    /// JSON lines of rethinking_fewshot_vlms, in two files.
    #[value(name = "2sfs")]
    TwoStage,
}

impl Shots {
    fn run(self) -> anyhow::Result<()> {
        let lists = SplitLists::read(&self.split_file).map_err(with_exit_code)?;
        let list = match (&self.import, self.shots) {
            (Some(published), _) => index_file::read(published, &lists).map_err(with_exit_code)?,
            (None, Some(num_shots)) => {
                let (val_shots, seed) = match (self.mode, self.seed) {
                    (Mode::Coop, Some(seed)) => (ValShots::MinShots4, seed),
                    (Mode::TipAdapter, seed) => (ValShots::All, seed.unwrap_or(1)),
                    (Mode::Coop, None) => bail!("expected `--seed`; CoOp's are 1, 2 and 3"),
                };
                let short_class = match self.short_class {
                    Short::TakeAll => ShortClass::TakeAll,
                    Short::Repeat => ShortClass::Repeat,
                };
                shots::from_lists(&lists, num_shots, seed, val_shots, short_class).map_err(with_exit_code)?
            }
            (None, None) => bail!("expected `--shots` or `--import`"),
        };
        if let Some(path) = &self.compare {
            let published = index_file::read(path, &lists).map_err(with_exit_code)?;
            if let Some(difference) = list.first_difference(&published) {
                let problem = format!("`{}` is another list: {difference}", path.display());
                return Err(InputFault::new(io::Error::other(problem)).into());
            }
        }
        let format = match self.format {
            Form::Tsv => IndexFormat::Tsv,
            Form::CrossModal => IndexFormat::CrossModal,
            Form::TwoStage => IndexFormat::TwoStage,
        };
        match &self.out {
            Some(target) => {
                index_file::write_files(&list, format, &self.prefix, target)?;
            }
            None => ignore_closed(index_file::write(&list, format, &self.prefix, &mut io::stdout().lock()))?,
        }
        Ok(())
    }
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Name of the data set, as in `<manifests>/<name>.toml`.
    name: String,
    /// Folder of the data: that of all data sets, or of this one.
    #[arg(long, value_name = "DIR", env = "FLIER_DATA", default_value = "data")]
    root: PathBuf,
    /// Folder of the data manifests.
    #[arg(long, value_name = "DIR", default_value = "data-manifests")]
    manifests: PathBuf,
    /// How many images to decode, spread over all classes: a number, or `all`.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = parse_sample)]
    sample: Sample,
    /// Most pixels of an image.
    #[arg(long, value_name = "N", default_value_t = photo::MAX_PIXELS)]
    max_pixels: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// How many images to decode; `None` is all.
#[derive(Debug, Clone, Copy)]
struct Sample(Option<usize>);

fn parse_sample(text: &str) -> Result<Sample, String> {
    if text == "all" {
        return Ok(Sample(None));
    }
    text.parse().map(|n| Sample(Some(n))).map_err(|_| "expected a number or `all`".to_owned())
}

impl Doctor {
    fn run(self) -> anyhow::Result<()> {
        let name = DatasetId::try_from(self.name)?;
        let (manifest, _) = DataManifest::read(&self.manifests.join(format!("{name}.toml")))?;
        let examination =
            Examination { root: &self.root, sample: self.sample.0, max_pixels: self.max_pixels };
        let display = Display::new(!self.json);
        let bar = OnceLock::new();
        let on_image = |_, total| bar.get_or_init(|| display.progress("images", total)).inc(1);
        let report = doctor::examine(&manifest, examination, on_image).map_err(with_exit_code)?;
        drop(bar);
        let text = if self.json {
            serde_json::to_string_pretty(&report).context("the report is no JSON")? + "\n"
        } else {
            report.table()
        };
        ignore_closed(io::stdout().write_all(text.as_bytes()))?;
        let found = match (&report.layout, &report.folder) {
            (Some(layout), Some(folder)) => format!("layout `{layout}` in `{folder}`, "),
            _ => String::new(),
        };
        match report.num_problems() {
            0 => {
                say(format_args!("`{name}`: {found}no problem"));
                Ok(())
            }
            n => {
                let problem = format!("`{name}`: {found}{}", doctor::counted(n, "problem"));
                Err(InputFault::new(io::Error::other(problem)).into())
            }
        }
    }
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Folder of the images: a folder per class (perhaps below `train`, `val`, `test`), a CSV file, or Parquet files.
    dir: PathBuf,
    /// Where to write the manifest [default: `<manifests>/<name of DIR>.toml`].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder of the data manifests.
    #[arg(long, value_name = "DIR", default_value = "data-manifests")]
    manifests: PathBuf,
}

impl Init {
    fn run(self) -> anyhow::Result<()> {
        let (manifest, found) = init::describe(&self.dir).map_err(with_exit_code)?;
        let out = self.out.unwrap_or_else(|| self.manifests.join(format!("{}.toml", manifest.dataset)));
        let text = init::to_toml(&manifest).map_err(with_exit_code)?;
        let mut file = std::fs::File::create_new(&out).with_context(|| {
            format!("cannot create `{}`; remove it first or name another with `--out`", out.display())
        })?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write `{}`", out.display()))?;
        let data = match self.dir.parent().map(|parent| parent.display().to_string()) {
            Some(parent) if !parent.is_empty() => parent,
            _ => ".".to_owned(),
        };
        say(format_args!("found {found}"));
        say(format_args!("wrote `{}`; edit its class names and templates", out.display()));
        say(format_args!("then: dataset-pack doctor {} --root {data}", manifest.dataset));
        Ok(())
    }
}

/// A line for people.
fn say(line: std::fmt::Arguments<'_>) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// A reader that went away (`| head`) is no failure.
fn ignore_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
