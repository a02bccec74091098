//! A process of a stage that computes the units that it is given, one after the other.

use anyhow::Context;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use crate::exit;

/// The process. Dropped, it ends after its unit, and is waited for.
pub struct Worker {
    child: Child,
    /// Names units; closed, the process ends after its unit.
    units: Option<ChildStdin>,
    answers: ChildStdout,
    /// The part of an answer that has come.
    answer: Vec<u8>,
}

/// What has ended.
#[derive(Debug, Clone, Copy)]
pub enum Ended {
    /// The unit, with this exit code; the process waits for the next one.
    Unit(u8),
    /// The process.
    Process(ExitStatus),
}

impl Worker {
    /// Starts `command`, which must name units by `--spec -`.
    ///
    /// # Errors
    ///
    /// Fails if the program cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        // In a group of its own: Ctrl-C reaches only this program, which passes it on once.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut child =
            child.with_context(|| format!("cannot start `{}`", command.get_program().display()))?;
        let (units, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.context("a stage has no standard output")?;
        fcntl_setfl(&answers, OFlags::NONBLOCK).context("cannot read from a stage")?;
        Ok(Self { child, units, answers, answer: Vec::new() })
    }

    /// Names the next unit. A process that has ended in the meantime says so at the next look.
    pub fn give(&mut self, unit_file: &Path) {
        if let Some(units) = &mut self.units {
            let line = [unit_file.as_os_str().as_bytes(), b"\n"].concat();
            let _ = units.write_all(&line).and_then(|()| units.flush());
        }
    }

    /// No further unit comes.
    pub fn dismiss(&mut self) {
        self.units = None;
    }

    /// Whether no further unit can be given.
    pub fn is_dismissed(&self) -> bool {
        self.units.is_none()
    }

    /// What has ended since the last look, without waiting for it.
    ///
    /// # Errors
    ///
    /// Fails if the system does not tell, or the process does not keep to `--spec -`.
    pub fn look(&mut self) -> anyhow::Result<Option<Ended>> {
        // Asked first: what it wrote before its end is then there to be read.
        let status = self.child.try_wait().context("cannot wait for a stage")?;
        let mut byte = [0];
        loop {
            match self.answers.read(&mut byte) {
                Ok(0) => break,
                Ok(_) if byte == *b"\n" => {
                    let line = std::mem::take(&mut self.answer);
                    let text = String::from_utf8_lossy(&line);
                    let code = text.parse().with_context(|| {
                        format!("a stage wrote `{text}` to its output, expected an exit code")
                    });
                    return code.map(|code| Some(Ended::Unit(code)));
                }
                Ok(_) => self.answer.extend(byte),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read from a stage"),
            }
        }
        Ok(status.map(Ended::Process))
    }

    /// Sends `signal` to the process and those that it started.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // Fails only if the process has ended by itself.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.dismiss();
        // Nothing can be done for a process that cannot be waited for.
        let _ = self.child.wait();
    }
}

/// The exit code of a unit whose process ended before it answered.
pub fn code_without_answer(status: ExitStatus) -> u8 {
    if status.success() { exit::FAILED } else { exit::code_of_status(status) }
}
