//! The local engine: the scripts of the jobs, run by `bash` on this machine.

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::script::{self, LOCAL_ID};
use crate::interrupts::Interrupts;
use crate::{exit, terminal};

/// How often the processes are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A job with its script.
pub struct LocalJob {
    /// Its name.
    pub name: String,
    /// Its script.
    pub script: String,
    /// How many tasks it has.
    pub num_tasks: usize,
    /// Jobs that must have succeeded, by index.
    pub after: Vec<usize>,
    /// GPUs of a task.
    pub gpus: u32,
}

/// Runs `jobs` in order with up to `processes` tasks at the same time; gives the exit code.
///
/// # Errors
///
/// Fails if a process cannot be started or a log cannot be written.
pub fn run(
    jobs: &[LocalJob],
    folder: &Path,
    processes: usize,
    interrupts: &Interrupts,
) -> anyhow::Result<u8> {
    let mut codes: Vec<Option<u8>> = Vec::new();
    for job in jobs {
        let blocked = job.after.iter().any(|&input| codes[input] != Some(0));
        if blocked || interrupts.signal().is_some() {
            terminal::note(format_args!("{}: not started", job.name));
            codes.push(None);
            continue;
        }
        let engine = Engine { job, folder, processes, interrupts };
        codes.push(Some(engine.run()?));
    }
    if let Some(signal) = interrupts.signal() {
        return Ok(exit::code_of_signal(signal));
    }
    Ok(codes.into_iter().flatten().find(|&code| code != 0).unwrap_or(0))
}

struct Engine<'a> {
    job: &'a LocalJob,
    folder: &'a Path,
    processes: usize,
    interrupts: &'a Interrupts,
}

struct Running {
    task: usize,
    child: Child,
}

impl Engine<'_> {
    /// Runs every task; gives the first exit code that is not 0.
    fn run(&self) -> anyhow::Result<u8> {
        // Slurm keeps its own copy; this one is for those who read the logs.
        let script = self.folder.join(format!("{}-{LOCAL_ID}.sh", self.job.name));
        crate::plan_files::replace(&script, self.job.script.as_bytes())?;
        let mut slots: Vec<Option<Running>> = (0..self.processes).map(|_| None).collect();
        let (mut next, mut failed, mut code, mut signals) = (0, 0, 0, 0);
        loop {
            for (slot, place) in slots.iter_mut().enumerate() {
                if let Some(running) = place
                    && let Some(status) = running.child.try_wait().context("cannot wait for a task")?
                {
                    let task = running.task;
                    *place = None;
                    let ended = if status.success() { 0 } else { exit::code_of_status(status) };
                    if ended != 0 && signals == 0 {
                        failed += 1;
                        let log = self.log(task);
                        terminal::note(format_args!(
                            "{} task {task}: exit code {ended}, log {}",
                            self.job.name,
                            log.display()
                        ));
                    }
                    code = if code == 0 { ended } else { code };
                }
                if place.is_none() && next < self.job.num_tasks && signals == 0 {
                    *place = Some(Running { task: next, child: self.start(&script, next, slot)? });
                    next += 1;
                }
            }
            if slots.iter().all(Option::is_none) {
                break;
            }
            while signals < self.interrupts.count() {
                signals += 1;
                for running in slots.iter().flatten() {
                    if let Some(pid) = Pid::from_raw(running.child.id() as i32) {
                        // To the script, which passes it on. Fails only if the process has ended by itself.
                        let _ = kill_process(pid, Signal::TERM);
                    }
                }
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        terminal::note(format_args!(
            "{}: {next} of {} tasks run, {failed} failed",
            self.job.name, self.job.num_tasks
        ));
        Ok(code)
    }

    fn log(&self, task: usize) -> PathBuf {
        self.folder.join(script::log_file(&self.job.name, LOCAL_ID, task))
    }

    fn start(&self, script: &Path, task: usize, slot: usize) -> anyhow::Result<Child> {
        let path = self.log(task);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write `{}`", path.display()))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut bash = Command::new("bash");
        bash.arg(script)
            .env("SLURM_JOB_NAME", &self.job.name)
            .env("SLURM_ARRAY_JOB_ID", LOCAL_ID)
            .env("SLURM_ARRAY_TASK_ID", task.to_string())
            .env_remove("SLURM_RESTART_COUNT")
            .env("RAYON_NUM_THREADS", (cores / self.processes).max(1).to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot use a log twice")?)
            .stderr(log)
            // Ctrl-C reaches only this program, which passes it on once.
            .process_group(0);
        if self.job.gpus > 0 {
            bash.env("CUDA_VISIBLE_DEVICES", gpus_of_slot(slot, self.job.gpus as usize));
        }
        bash.spawn().context("cannot start `bash`")
    }
}

/// The GPUs of one of the processes: each its own, of those that this process sees.
fn gpus_of_slot(slot: usize, gpus: usize) -> String {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    choose_gpus(&visible, slot, gpus)
}

fn choose_gpus(visible: &str, slot: usize, gpus: usize) -> String {
    let visible: Vec<&str> = visible.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let chosen = (slot * gpus..(slot + 1) * gpus).map(|index| match visible.len() {
        0 => index.to_string(),
        count => visible[index % count].to_owned(),
    });
    chosen.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_a_gpu_of_its_own() {
        assert_eq!(choose_gpus("", 2, 1), "2");
        assert_eq!(choose_gpus("4,5,6,7", 1, 1), "5");
        assert_eq!(choose_gpus("GPU-a,GPU-b", 0, 2), "GPU-a,GPU-b");
    }
}
