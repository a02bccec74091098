//! The protocol of `cargo xtask bench`, for programs that time one pass.
//!
//! For every line on stdin one pass, answered by `WALL CPU` in seconds; at the end of stdin `peak KIB`, the process's largest
//! resident memory. `tests/scale/passes.py` is the other side.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;

/// Makes `warm_up` passes, then one for each line on stdin, with the memory of the stages.
///
/// # Errors
///
/// Fails if a pass does, or if stdin, stdout or `/proc` cannot be used.
#[allow(clippy::print_stdout)] // the times are the output
pub fn serve(warm_up: usize, mut pass: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    stage_cli::keep_freed_memory();
    (0..warm_up).try_for_each(|_| pass())?;
    for line in std::io::stdin().lines() {
        line.context("cannot read stdin")?;
        let (wall, cpu) = (Instant::now(), cpu_seconds()?);
        pass()?;
        println!("{} {}", wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        std::io::stdout().flush()?;
    }
    println!("peak {}", peak()?);
    Ok(())
}

/// User and system time of the process.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("no fields in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0) // the kernel counts hundredths for programs on every Linux
}

/// Largest resident memory in KiB.
fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM in /proc/self/status")?;
    line.split_whitespace().nth(1).context("an empty VmHWM")?.parse().context("VmHWM is no number")
}
