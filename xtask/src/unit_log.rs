//! The log of a unit, kept beside the artifacts: `<store>/logs/<key>.log`, and a note of its failure.

use anyhow::Context;
use pipeline_spec::{ArtifactId, Store};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::plan_files;

/// How much of a log's end is looked at.
const TAIL_BYTES: u64 = 64 << 10;

/// The log of one unit on this machine.
pub struct UnitLog {
    path: PathBuf,
    failure_path: PathBuf,
}

/// What is kept of a failure until the unit succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Exit code of the stage.
    pub exit_code: u8,
}

impl UnitLog {
    /// The log of the unit that yields `output`.
    pub fn new(store: &Store, output: &ArtifactId) -> Self {
        let failure_path = store.logs_dir().join(format!("{}.failed.json", output.key));
        Self { path: store.log_path(output), failure_path }
    }

    /// The log's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the command line of a task to the log, which is emptied where the task is the unit's first.
    pub fn begin(&self, is_first: bool, command_line: &str) -> anyhow::Result<()> {
        let mut file = self.append()?;
        let mut write = || {
            if is_first {
                file.set_len(0)?;
            }
            writeln!(file, "$ {command_line}")
        };
        write().with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Opens the log to add to it.
    pub fn append(&self) -> anyhow::Result<File> {
        let open = || {
            std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
            File::options().append(true).create(true).open(&self.path)
        };
        open().with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Notes that the unit failed.
    pub fn mark_failure(&self, exit_code: u8) -> anyhow::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        plan_files::replace(&self.failure_path, &serde_json::to_vec(&Failure { exit_code })?)
    }

    /// Takes the note of a failure away.
    pub fn mark_success(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.failure_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove `{}`", self.failure_path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The note of a failure, if there is one that can be read.
    pub fn failure(&self) -> Option<Failure> {
        serde_json::from_slice(&std::fs::read(&self.failure_path).ok()?).ok()
    }

    /// The last `count` lines; none where there is no log.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        last_lines(&self.path, None, count)
    }
}

/// The last `count` lines of the log `path` that are not blank, up to the last one with `mark` in it if there is such a
/// line; none where there is no log.
pub fn last_lines(path: &Path, mark: Option<&str>, count: usize) -> Vec<String> {
    let tail = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let text = tail().map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let marked = mark.and_then(|mark| lines.iter().rposition(|line| line.contains(mark)));
    let end = marked.map_or(lines.len(), |line| line + 1);
    lines[end.saturating_sub(count)..end].iter().map(|&line| line.to_owned()).collect()
}
