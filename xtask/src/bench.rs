//! `bench`: the networks beside PyTorch's and the artifacts beside pyarrow's, in one command.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use crate::{terminal, workspace};

/// Cases of CLIP's towers: name and what it is.
const TOWERS: &[(&str, &str)] = &[
    ("vit-forward", "ViT-B/16, forward, batch 8"),
    ("rn50-forward", "RN50, forward, batch 16"),
    ("vit-step", "ViT-B/16, forward and backward, batch 8"),
    ("rn50-step", "RN50, forward and backward, batch 16"),
    ("text-forward", "text tower, forward, batch 64"),
];
/// Cases of FLIER's training: both branches, AdamW with layer-wise decay, moving average.
const STEPS: &[(&str, &str)] = &[
    ("vit", "ViT-B/16, a real and a generated step of 16 images"),
    ("rn50", "RN50, a real and a generated step of 16 images"),
];
/// Cases of Stable Diffusion 2.1-base.
const SD: &[(&str, &str)] = &[
    ("unet", "UNet, two latents of 64x64"),
    ("vae-decode", "decoder, one image of 512 pixels"),
    ("text", "text encoder, two prompts"),
];
/// Cases of artifacts: 10,000 latents [4, 64, 64] of f16 precision with 10,000 images of about 32 KiB, in five parts.
const ARTIFACTS: &[(&str, &str)] = &[
    ("write", "10,000 latents and images, written"),
    ("read", "10,000 latents and images, read"),
    ("row", "100 single rows, read"),
];
/// Between two passes: threads of the last one stop spinning.
const PAUSE: Duration = Duration::from_millis(300);

/// Time full-size networks and artifacts beside their reference implementations; prints a Markdown table
///
/// Every program is a process of its own and runs one pass at a time, in turns: what else the machine does meets all alike.
/// Times are medians; the ratio is the reference's time by ours, so more is better. Memory is the largest resident size.
#[derive(Args)]
pub struct Bench {
    /// What is timed
    #[arg(value_enum)]
    model: Model,
    /// Python with torch, and open_clip or diffusers and transformers; with pyarrow for artifacts
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Passes of each program
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Threads of each program
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Device of the networks
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Cases, all of them by default
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    cases: Vec<String>,
    /// Time ONNX Runtime as well on the forward cases of images; `--python` needs onnx and onnxruntime then
    #[arg(long)]
    onnxruntime: bool,
}

/// What can be timed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Model {
    /// The towers of CLIP
    Towers,
    /// Training steps of FLIER
    Steps,
    /// The networks of Stable Diffusion
    Sd,
    /// Latents and images in Parquet files
    Artifacts,
}

impl Model {
    fn cases(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Model::Towers => TOWERS,
            Model::Steps => STEPS,
            Model::Sd => SD,
            Model::Artifacts => ARTIFACTS,
        }
    }

    /// The crate with both sides, and their name.
    fn programs(self) -> (&'static str, &'static str) {
        match self {
            Model::Towers => ("clip-model", "time_towers"),
            Model::Steps => ("trainer", "time_steps"),
            Model::Sd => ("sd-model", "time_sd"),
            Model::Artifacts => ("artifacts", "time_artifacts"),
        }
    }

    /// What ours is timed beside.
    fn reference(self) -> &'static str {
        match self {
            Model::Towers | Model::Steps | Model::Sd => "PyTorch",
            Model::Artifacts => "pyarrow",
        }
    }
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let names: Vec<&str> = self.model.cases().iter().map(|(name, _)| *name).collect();
        if let Some(unknown) = self.cases.iter().find(|case| !names.contains(&case.as_str())) {
            bail!("no case `{unknown}`; there are {}", names.join(", "));
        }
        let ours = self.build()?;
        let (package, program) = self.model.programs();
        let script = workspace::root().join(format!("crates/{package}/tests/scale/{program}.py"));
        let other = self.model.reference();
        terminal::print(format_args!(
            "| case | {other} s | ours s | ratio | CPU time ratio | ONNX Runtime s | {other} MiB | ours MiB |"
        ));
        terminal::print("|---|---|---|---|---|---|---|---|");
        let is_asked = |name: &str| self.cases.is_empty() || self.cases.iter().any(|case| case == name);
        for &(name, what) in self.model.cases().iter().filter(|(name, _)| is_asked(name)) {
            let mut reference = Command::new(&self.python);
            reference.arg(&script).arg(name);
            let mut port = Command::new(&ours);
            port.args([name, "--device", &self.device]);
            let mut programs = vec![self.start(reference)?, self.start(port)?];
            if self.onnxruntime && matches!(name, "vit-forward" | "rn50-forward") {
                let mut onnxruntime = Command::new(&self.python);
                onnxruntime.arg(&script).args([name, "--engine", "onnxruntime"]);
                programs.push(self.start(onnxruntime)?);
            }
            for _ in 0..self.rounds.max(1) {
                for program in &mut programs {
                    std::thread::sleep(PAUSE);
                    program.pass()?;
                }
            }
            let results = programs.into_iter().map(Program::finish).collect::<anyhow::Result<Vec<_>>>()?;
            let [reference, port] = [&results[0], &results[1]];
            let onnxruntime = results.get(2).map_or("-".to_owned(), |result| format!("{:.3}", result.wall));
            terminal::print(format_args!(
                "| {what} | {:.3} | {:.3} | {:.2} | {:.2} | {onnxruntime} | {} | {} |",
                reference.wall,
                port.wall,
                reference.wall / port.wall,
                reference.cpu / port.cpu,
                reference.peak_kib / 1024,
                port.peak_kib / 1024,
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Builds the example that runs our side; gives its path.
    fn build(&self) -> anyhow::Result<PathBuf> {
        let (package, program) = self.model.programs();
        let mut build = workspace::cargo();
        build.args(["build", "--release", "--package", package, "--example", program]);
        build.args(["--message-format", "json-render-diagnostics"]);
        if self.device.starts_with("tch") {
            build.args(["--features", "backend/tch"]);
        }
        let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cannot build the networks; the messages are above");
        }
        let executable = output.stdout.split(|byte| *byte == b'\n').find_map(|line| {
            let message: serde_json::Value = serde_json::from_slice(line).ok()?;
            let is_ours = message.pointer("/target/name")?.as_str()? == program;
            is_ours.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
        });
        executable.with_context(|| format!("cargo named no program `{program}`"))
    }

    fn start(&self, mut command: Command) -> anyhow::Result<Program> {
        let threads = self.threads.to_string();
        for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, &threads);
        }
        let name = Path::new(command.get_program()).display().to_string();
        terminal::note(format_args!("$ {command:?}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let input = child.stdin.take().context("a program without stdin")?;
        let output = BufReader::new(child.stdout.take().context("a program without stdout")?);
        Ok(Program { name, child, input, output, wall: Vec::new(), cpu: Vec::new() })
    }
}

/// A program that runs one pass per line on its stdin.
struct Program {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

/// Medians and the peak of a program.
struct Timing {
    wall: f64,
    cpu: f64,
    peak_kib: u64,
}

impl Program {
    fn pass(&mut self) -> anyhow::Result<()> {
        // A program that has ended gives an empty answer, which says more than the broken pipe.
        let _ = self.input.write_all(b"\n");
        let answer = self.answer()?;
        let mut numbers = answer.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(wall)), Some(Ok(cpu))) = (numbers.next(), numbers.next()) else {
            bail!(
                "`{}` answered `{}` instead of two times; its messages are above",
                self.name,
                answer.trim()
            );
        };
        self.wall.push(wall);
        self.cpu.push(cpu);
        Ok(())
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).with_context(|| format!("cannot read from `{}`", self.name))?;
        Ok(line)
    }

    /// Ends the program and reads its peak.
    fn finish(self) -> anyhow::Result<Timing> {
        let Program { name, mut child, input, mut output, wall, cpu } = self;
        drop(input);
        let mut line = String::new();
        output.read_line(&mut line).with_context(|| format!("cannot read from `{name}`"))?;
        let peak = line.strip_prefix("peak ").and_then(|kib| kib.trim().parse().ok());
        let status = child.wait().with_context(|| format!("cannot wait for `{name}`"))?;
        let (Some(peak_kib), true) = (peak, status.success()) else {
            bail!("`{name}` ended with {status} and `{}` instead of its peak memory", line.trim());
        };
        Ok(Timing { wall: median(wall), cpu: median(cpu), peak_kib })
    }
}

/// The middle value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_whatever_the_order() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
